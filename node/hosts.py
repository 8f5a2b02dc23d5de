"""Where the API is served: what -H may say, and the sockets that systemd hands over. Opens nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from pathlib import Path

import msgspec

PORT_PLAIN = 2375
PORT_TLS = 2376
_FIRST_HANDED_OVER = 3  # sd_listen_fds(3)


class InvalidHost(Exception):
    """Names the address and what would be right."""


class UnixHost(msgspec.Struct, frozen=True, tag="unix"):
    path: Path

    def __str__(self) -> str:
        return f"unix://{self.path}"


class TcpHost(msgspec.Struct, frozen=True, tag="tcp"):
    """`address` is a host name or an IP address, without brackets."""

    address: str
    port: int

    def __str__(self) -> str:
        return (
            f"tcp://[{self.address}]:{self.port}"
            if ":" in self.address
            else f"tcp://{self.address}:{self.port}"
        )


class HandedOver(msgspec.Struct, frozen=True, tag="fd"):
    """`which`: "" is all sockets, else a descriptor's number or its name in the unit (FileDescriptorName=)."""

    which: str = ""

    def __str__(self) -> str:
        return f"fd://{self.which}"


Host = UnixHost | TcpHost | HandedOver


def parse_host(text: str, *, tls: bool = False) -> Host:
    """`unix:///path`, `tcp://[address][:port]` (localhost, and Docker's ports) or `fd://[which]`."""
    scheme, separator, rest = text.partition("://")
    if separator and scheme == "unix" and rest.startswith("/"):
        return UnixHost(Path(rest))
    if separator and scheme == "fd":
        return HandedOver("" if rest == "*" else rest)
    if separator and scheme == "tcp":
        return _tcp(text, rest, PORT_TLS if tls else PORT_PLAIN)
    raise InvalidHost(f"--host {text}: use unix:///absolute/path, tcp://address:port or fd://")


def _tcp(text: str, rest: str, default_port: int) -> TcpHost:
    address, port = rest.rstrip("/"), ""
    if address.startswith("["):
        address, closed, tail = address[1:].partition("]")
        if not closed or (tail and not tail.startswith(":")):
            raise InvalidHost(f"--host {text}: write tcp://[::1]:{default_port}")
        port = tail[1:]
    elif address.count(":") == 1:
        address, _, port = address.partition(":")
    elif ":" in address:
        raise InvalidHost(f"--host {text}: write an IPv6 address in brackets, tcp://[::1]:{default_port}")
    if "/" in address:
        raise InvalidHost(f"--host {text}: an address has no path, write tcp://address:port")
    if port and not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise InvalidHost(f"--host {text}: the port must be 1 to 65535")
    return TcpHost(address or "localhost", int(port) if port else default_port)


def handed_over(environment: MutableMapping[str, str]) -> dict[str, socket.socket]:
    """Sockets that systemd listens on for us, by descriptor number; taken out of the environment.

    Whatever the daemon starts must neither inherit them nor take them for its own.
    """
    pid = environment.pop("LISTEN_PID", "")
    count = environment.pop("LISTEN_FDS", "0")
    names = environment.pop("LISTEN_FDNAMES", "")
    if pid != str(os.getpid()) or not count.isdecimal():
        return {}
    labels = names.split(":") if names else []
    found: dict[str, socket.socket] = {}
    for index in range(int(count)):
        descriptor = _FIRST_HANDED_OVER + index
        os.set_inheritable(descriptor, False)
        label = labels[index] if index < len(labels) else ""
        key = f"{descriptor} {label}".strip()
        found[key] = socket.socket(fileno=descriptor)
    return found


def chosen(host: HandedOver, sockets: dict[str, socket.socket]) -> list[socket.socket]:
    """InvalidHost when nothing was handed over, or not that one."""
    wanted = [made for key, made in sockets.items() if not host.which or host.which in key.split(" ")]
    if not wanted:
        raise InvalidHost(
            f"--host {host}: no sockets found via socket activation: make sure the service was started by systemd"
        )
    return wanted
