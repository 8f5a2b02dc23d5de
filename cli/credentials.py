"""Accounts at registries, kept as docker keeps them: ~/.docker/config.json, or a credential helper that it names.

Owns reading, finding, storing and erasing; the file is replaced as a whole, and what else is in it stays.
Source: docker login's documentation (credential store, credential helpers), docker-credential-helpers' protocol.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
from pathlib import Path
from typing import Any

from cli.errors import CliError, UsageError

HUB = "https://index.docker.io/v1/"
HEADER = "X-Registry-Auth"
HELPER_SECONDS = 60
_TOKEN_USER = "<token>"  # a helper's word for: the secret is an identity token
Account = dict[str, str]


def config_path() -> Path:
    folder = os.environ.get("DOCKER_CONFIG")
    return (Path(folder) if folder else Path.home() / ".docker") / "config.json"


def server_of(image: str) -> str:
    """The server under which the account for an image's registry is kept."""
    domain, slash, _ = image.partition("/")
    is_domain = slash and (
        "." in domain or ":" in domain or domain == "localhost" or domain.lower() != domain
    )
    return server_name(domain) if is_domain else HUB


def server_name(server: str) -> str:
    """What the user calls a registry, as it is kept: the host; the hub has an old name."""
    host = _host(server)
    return HUB if host in ("", "docker.io", "index.docker.io", "registry-1.docker.io") else host


def auth_headers(image: str) -> dict[str, str]:
    """For calls of the API that reach the image's registry."""
    return {HEADER: encoded(find(server_of(image)) or {})}


def encoded(account: Account) -> str:
    return base64.urlsafe_b64encode(json.dumps(account).encode()).decode()


def find(server: str) -> Account | None:
    """username, password, identitytoken, serveraddress of the account; None when there is none."""
    config = _read()
    helper = _helper(config, server)
    if helper:
        return _from_helper(helper, server)
    auths = config.get("auths") or {}
    entry = auths.get(server)
    if entry is None:
        entry = next((value for name, value in auths.items() if _host(name) == _host(server)), None)
    if not entry:
        return None
    account = {
        name: str(entry[name]) for name in ("username", "password", "identitytoken") if entry.get(name)
    }
    if entry.get("auth"):
        try:
            text = base64.b64decode(entry["auth"]).decode()
        except ValueError as error:
            raise CliError(
                f"{config_path()}: the auth of {server} is not base64", hint="log in again"
            ) from error
        account["username"], _, account["password"] = text.partition(":")
        account["password"] = account["password"].rstrip("\0")
    return {**account, "serveraddress": server} if account else None


def store(server: str, account: Account) -> bool:
    """True when it lies unencrypted in the file now."""
    config = _read()
    helper = _helper(config, server)
    if helper:
        token = account.get("identitytoken", "")
        sent = {
            "ServerURL": server,
            "Username": _TOKEN_USER if token else account.get("username", ""),
            "Secret": token or account.get("password", ""),
        }
        _run_helper(helper, "store", json.dumps(sent))
        config.setdefault("auths", {})[server] = {}
        _write(config)
        return False
    text = f"{account.get('username', '')}:{account.get('password', '')}"
    entry = {"auth": base64.b64encode(text.encode()).decode()}
    if account.get("identitytoken"):
        entry = {
            "auth": base64.b64encode(f"{account.get('username', '')}:".encode()).decode(),
            "identitytoken": account["identitytoken"],
        }
    config.setdefault("auths", {})[server] = entry
    _write(config)
    return True


def erase(server: str) -> bool:
    """False when there was no account."""
    config = _read()
    helper = _helper(config, server)
    known = (config.get("auths") or {}).pop(server, None) is not None
    if helper:
        with contextlib.suppress(CliError):  # a helper that knows of none says so as an error
            _run_helper(helper, "erase", server)
    if known:
        _write(config)
    return known or bool(helper)


def _host(server: str) -> str:
    return server.partition("://")[2].partition("/")[0] if "://" in server else server.partition("/")[0]


def _helper(config: dict[str, Any], server: str) -> str:
    return str((config.get("credHelpers") or {}).get(server) or config.get("credsStore") or "")


def _from_helper(helper: str, server: str) -> Account | None:
    try:
        answer = json.loads(_run_helper(helper, "get", server))
        user, secret = str(answer.get("Username", "")), str(answer.get("Secret", ""))
    except HelperRefused as error:
        if "credentials not found" in error.message:
            return None
        raise
    except ValueError as error:
        raise CliError(f"docker-credential-{helper} get: the answer is not JSON: {error}") from error
    if user == _TOKEN_USER:
        return {"identitytoken": secret, "serveraddress": server}
    return {"username": user, "password": secret, "serveraddress": server}


class HelperRefused(CliError):
    pass


def _run_helper(helper: str, verb: str, text: str) -> str:
    import subprocess

    name = f"docker-credential-{helper}"
    if "/" in helper:
        raise UsageError(
            f'invalid credential helper "{helper}" in {config_path()}', hint="a name without slashes"
        )
    try:
        done = subprocess.run(
            [name, verb], input=text, capture_output=True, text=True, timeout=HELPER_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CliError(
            f"error getting credentials - {name} {verb}: {error}",
            hint=f"install it, or take it out of {config_path()}",
        ) from error
    if done.returncode:
        words = (done.stdout or done.stderr).strip()
        raise HelperRefused(f"error getting credentials - {name} {verb}: {words}")
    return done.stdout


def _read() -> dict[str, Any]:
    path = config_path()
    try:
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CliError(f"cannot read {path}: {error}", hint="repair it, or move it away") from error
    if not isinstance(config, dict):
        raise CliError(f"{path}: is not a JSON object", hint="repair it, or move it away")
    return config


def _write(config: dict[str, Any]) -> None:
    path = config_path().resolve()  # a link to the file stays one
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                json.dump(config, file, indent="\t")
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CliError(f"cannot write {path}: {error.strerror}") from error
