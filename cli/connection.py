"""Reaching a daemon: unix sockets, TCP with and without TLS, ssh. Whatever the way, callers get a plain socket.

TLS and ssh work behind a pair of sockets, so that waiting, peeking and ending one direction are the same for all.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, NamedTuple

from cli.errors import DaemonUnreachable, UsageError
from cli.urls import unquote

if TYPE_CHECKING:
    import ssl

DEFAULT_HOST = "unix:///run/swarmctl/swarmd.sock"
CONNECT_SECONDS = 10.0


class TlsFiles(NamedTuple):
    """`verify`: the daemon must show a certificate of `ca`, made out to its address."""

    ca: str
    certificate: str
    key: str
    verify: bool


class Endpoint(NamedTuple):
    """`host` is unix:///PATH, tcp://HOST:PORT or ssh://[USER@]HOST[:PORT]."""

    host: str
    tls: TlsFiles | None = None


def open_endpoint(endpoint: Endpoint) -> socket.socket:
    """DaemonUnreachable says what to look at, UsageError what is wrong with the address."""
    host = endpoint.host
    scheme, separator, rest = host.partition("://")
    if not separator or scheme not in ("unix", "tcp", "http", "https", "ssh") or not rest:
        raise UsageError(
            f'invalid daemon address "{host}"',
            hint="use unix:///path/to/socket, tcp://address:port or ssh://user@address",
        )
    if scheme == "ssh":
        return _through_ssh(host, rest)
    try:
        if scheme == "unix":
            return _connected_unix(rest)
        address, _, port = rest.rstrip("/").rpartition(":")
        if not address or not port.isdigit():
            raise UsageError(f'invalid daemon address "{host}": a port is needed (tcp://address:port)')
        connection = socket.create_connection((address.strip("[]"), int(port)), CONNECT_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        raise unreachable(host, error) from error
    if endpoint.tls is not None:
        from cli.tls_tunnel import tunnel

        return tunnel(connection, _context(endpoint.tls), address.strip("[]"), host)
    connection.settimeout(None)
    return connection


def unreachable(host: str, error: OSError) -> DaemonUnreachable:
    if isinstance(error, PermissionError):
        return DaemonUnreachable(
            f"permission denied while trying to connect to the Docker daemon socket at {host}",
            hint="run the command as root (sudo), or choose another daemon with -H or SWARMCTL_HOST",
        )
    return DaemonUnreachable(
        f"Cannot connect to the Docker daemon at {host}. Is the docker daemon running?",
        hint=f"{error.strerror or error}: start it with `swarmd` as root, or choose another daemon with -H or "
        "SWARMCTL_HOST; "
        "`swarmctl lab ls` shows the daemons of labs on this machine",
    )


def _connected_unix(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(CONNECT_SECONDS)
        connection.connect(path)
        connection.settimeout(None)
    except OSError:
        connection.close()
        raise
    return connection


def _context(files: TlsFiles) -> ssl.SSLContext:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if files.verify:
            context.load_verify_locations(files.ca)
        else:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        # Not Path: importing it would cost a command as much as everything else.
        if os.path.exists(files.certificate) or os.path.exists(files.key):
            context.load_cert_chain(files.certificate, files.key)
    except OSError as error:
        names = f"{files.ca}, {files.certificate}, {files.key}"
        raise UsageError(
            f"unable to read the TLS files: {error.strerror or error} ({names})",
            hint="name them with --tlscacert, --tlscert and --tlskey, or their folder with DOCKER_CERT_PATH",
        ) from error
    return context


def _through_ssh(host: str, rest: str) -> socket.socket:
    """A `swarmctl system dial-stdio` over there. What ssh has to say goes to our stderr."""
    import subprocess

    place, slash, path = rest.partition("/")
    user, at, machine = place.rpartition("@")
    machine, _, port = (
        machine.partition(":") if not machine.startswith("[") else (machine.strip("[]"), "", "")
    )
    if not machine or machine.startswith("-") or ":" in user or (port and not port.isdigit()):
        raise UsageError(
            f'invalid daemon address "{host}"', hint="use ssh://user@address or ssh://user@address:port"
        )
    words: list[str] = ["ssh", "-T", "-o", "ConnectTimeout=30", *(("-l", unquote(user)) if at else ())]
    words += [*(("-p", port) if port else ()), "--", machine, "swarmctl"]
    words += ["--host", f"unix:///{unquote(path)}"] if slash and path else []
    ours, theirs = socket.socketpair()
    try:
        subprocess.Popen(
            [*words, "system", "dial-stdio"],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            start_new_session=True,
        )
    except OSError as error:
        ours.close()
        raise DaemonUnreachable(
            f"cannot start ssh: {error.strerror}", hint="install an ssh client"
        ) from error
    finally:
        theirs.close()
    return ours
