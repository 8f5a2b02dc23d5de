"""Host ports: who has which, and which are free.

A port is taken when a container publishes it or a process of the host listens on it; the latter is found
out by binding it for a moment, since DNAT would silently take the process's traffic away.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Sequence

import msgspec

from overlay_net.errors import PortInUse
from overlay_net.records import Publish

FIRST, LAST = 49153, 65535
_ALLOCATED = "port is already allocated"
_EVERY = ("0.0.0.0", "::")
_Key = tuple[str, str, int]


class HostPorts:
    """Ports by (host address, protocol, number); "" is every address."""

    def __init__(self) -> None:
        self._holders: dict[_Key, str] = {}
        self._next = FIRST

    def reserve(self, sandbox: str, wanted: Sequence[Publish]) -> tuple[Publish, ...]:
        """All or none, with numbers filled in. PortInUse in Docker's words."""
        reserved: list[Publish] = []
        try:
            for publish in wanted:
                chosen = publish if publish.host_port else self._choose(publish)
                self._take(sandbox, chosen)
                reserved.append(chosen)
        except BaseException:
            self.release(reserved)
            raise
        return tuple(reserved)

    def adopt(self, sandbox: str, publishes: Iterable[Publish]) -> None:
        """Ports of a container of an earlier life of the daemon."""
        for publish in publishes:
            self._holders[_key(publish)] = sandbox

    def release(self, publishes: Iterable[Publish]) -> None:
        for publish in publishes:
            self._holders.pop(_key(publish), None)

    def _take(self, sandbox: str, publish: Publish) -> None:
        problem = _ALLOCATED if self._conflicts(publish) else _bind_problem(publish)
        if problem:
            raise _refused(publish, problem)
        self._holders[_key(publish)] = sandbox

    def _choose(self, publish: Publish) -> Publish:
        count = LAST - FIRST + 1
        for offset in range(count):
            number = FIRST + (self._next - FIRST + offset) % count
            chosen = msgspec.structs.replace(publish, host_port=number)
            problem = _ALLOCATED if self._conflicts(chosen) else _bind_problem(chosen)
            if not problem:
                self._next = number + 1
                return chosen
            if problem != _ALLOCATED:  # no other number would do either
                raise _refused(chosen, problem)
        raise PortInUse(f"all {count} ports from {FIRST} to {LAST} are in use: give a host port")

    def _conflicts(self, publish: Publish) -> bool:
        same = (key[0] for key in self._holders if key[1:] == (publish.protocol, publish.host_port))
        return any(_meet(publish.host_ip, other) for other in same)


def _meet(one: str, other: str) -> bool:
    """Whether two host addresses have an address in common."""
    if "" in (one, other) or one == other:
        return True
    return (":" in one) == (":" in other) and not {one, other}.isdisjoint(_EVERY)


def _key(publish: Publish) -> _Key:
    return publish.host_ip, publish.protocol, publish.host_port


def _refused(publish: Publish, problem: str) -> PortInUse:
    address = f"[{publish.host_ip}]" if ":" in publish.host_ip else publish.host_ip or "0.0.0.0"
    return PortInUse(f"Bind for {address}:{publish.host_port} failed: {problem}")


def _bind_problem(publish: Publish) -> str:
    """Why the host cannot have that port, or ""."""
    kind = socket.SOCK_STREAM if publish.protocol == "tcp" else socket.SOCK_DGRAM
    family = socket.AF_INET6 if ":" in publish.host_ip else socket.AF_INET
    with socket.socket(family, kind | socket.SOCK_CLOEXEC) as probe:
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            # Connections in TIME_WAIT on that port are no reason to refuse it; listeners still are.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((publish.host_ip or "0.0.0.0", publish.host_port))
        except OSError as error:
            return _ALLOCATED if error.errno == errno.EADDRINUSE else (error.strerror or str(error)).lower()
    return ""
