"""Which daemon is meant: the command line, the environment, or a context, in Docker's order; and the contexts' file.

A context names a daemon and the files of its TLS. They lie in one file below SWARMCTL_CONFIG (~/.swarmctl).
Without pathlib, whose import would cost every command as much as all the rest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from cli.connection import DEFAULT_HOST, Endpoint, TlsFiles
from cli.errors import CliError, UsageError

DEFAULT = "default"
Row = dict[str, Any]


class Flags(NamedTuple):
    """Of the command line; None and "" are not given."""

    host: str | None = None
    context: str | None = None
    tls: bool | None = None
    tlsverify: bool | None = None
    tlscacert: str = ""
    tlscert: str = ""
    tlskey: str = ""


def endpoint(flags: Flags, environment: Mapping[str, str]) -> Endpoint:
    """-H, then --context, then SWARMCTL_HOST or DOCKER_HOST, then the context that is in use."""
    if flags.host and flags.context:
        raise UsageError("conflicting options: cannot specify both --host and --context", exit_code=125)
    host = flags.host or ("" if flags.context else _host_of(environment))
    if host:
        return Endpoint(host, _tls(flags, environment) if host.startswith(("tcp:", "http")) else None)
    name = flags.context or current_name(environment)
    if name == DEFAULT:
        return Endpoint(DEFAULT_HOST)
    row = Store(environment).get(name)
    return Endpoint(row["Host"], TlsFiles(**row["TLS"]) if row.get("TLS") else None)


def current_name(environment: Mapping[str, str]) -> str:
    if _host_of(environment):
        return DEFAULT
    named = environment.get("SWARMCTL_CONTEXT") or environment.get("DOCKER_CONTEXT")
    return named or Store(environment).current


def default_endpoint(environment: Mapping[str, str]) -> str:
    return _host_of(environment) or DEFAULT_HOST


def _host_of(environment: Mapping[str, str]) -> str:
    return environment.get("SWARMCTL_HOST") or environment.get("DOCKER_HOST") or ""


def _tls(flags: Flags, environment: Mapping[str, str]) -> TlsFiles | None:
    """Wanted by --tls, by --tlsverify, or by DOCKER_TLS and DOCKER_TLS_VERIFY that are not empty."""
    verify = flags.tlsverify if flags.tlsverify is not None else bool(environment.get("DOCKER_TLS_VERIFY"))
    wanted = flags.tls if flags.tls is not None else bool(environment.get("DOCKER_TLS"))
    if not verify and not wanted:
        return None
    folder = environment.get("DOCKER_CERT_PATH") or os.path.expanduser("~/.docker")
    return TlsFiles(
        ca=flags.tlscacert or os.path.join(folder, "ca.pem"),
        certificate=flags.tlscert or os.path.join(folder, "cert.pem"),
        key=flags.tlskey or os.path.join(folder, "key.pem"),
        verify=verify,
    )


class Store:
    """The file of contexts; written as a whole, beside and over."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        folder = environment.get("SWARMCTL_CONFIG") or os.path.expanduser("~/.swarmctl")
        self._path = os.path.join(folder, "contexts.json")
        try:
            with open(self._path, encoding="utf-8") as file:
                found = json.load(file)
            self.rows: dict[str, Row] = dict(found["Contexts"])
            self.current: str = str(found["Current"])
        except FileNotFoundError:
            self.rows, self.current = {}, DEFAULT
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CliError(f"cannot read {self._path}: {error!r}", hint="repair it, or remove it") from error

    def get(self, name: str) -> Row:
        if name not in self.rows:
            raise CliError(f'context "{name}": context not found', hint="`swarmctl context ls` shows them")
        return self.rows[name]

    def tls_folder(self, name: str) -> str:
        """Where the files of an imported context lie."""
        return os.path.join(os.path.dirname(self._path), "tls", name)

    def save(self) -> None:
        os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
        new = self._path + ".new"
        with open(new, "w", encoding="utf-8") as file:
            json.dump({"Current": self.current, "Contexts": self.rows}, file, indent=1)
        os.replace(new, self._path)
