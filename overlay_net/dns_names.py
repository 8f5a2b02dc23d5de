"""The names of networks and what a sandbox sees of them. Pure: no sockets, no clock.

A network's names come from the cluster (replaced as a whole) and from local sandboxes. A sandbox sees the
names of its networks in order, bare (`web`) and with the network's name behind (`web.apps`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from overlay_net import dns_message
from overlay_net.dns_message import Question, Record

TTL_S = 3  # names follow tasks
SHORT_ID = 12
_REVERSE = ".in-addr.arpa"
_REVERSE6 = ".ip6.arpa"
_NIBBLES = 32
_TASKS = "tasks."
# By type of question, which answers: whether they are IPv6 addresses.
_FAMILIES = {dns_message.A: (False,), dns_message.AAAA: (True,), dns_message.ANY: (False, True)}
_T = TypeVar("_T")


class Zone:
    """The names of one network, in lower case."""

    def __init__(self) -> None:
        self._cluster: dict[str, tuple[str, ...]] = {}
        self._cluster_reverse: dict[str, str] = {}
        self._local: dict[str, dict[str, tuple[str, ...]]] = {}
        self._local_reverse: dict[str, dict[str, str]] = {}
        self._turns: dict[tuple[str, int], int] = {}  # by name and type of question

    def __bool__(self) -> bool:
        return bool(self._cluster or self._local)

    def set_cluster(self, names: Mapping[str, tuple[str, ...]]) -> None:
        self._cluster = {name.lower(): addresses for name, addresses in names.items()}
        self._cluster_reverse = _reversed(self._cluster)
        self._forget_turns()

    def add(self, sandbox: str, name: str, address: str) -> None:
        """A sandbox's first name is the one its address has, unless that is only its short id."""
        name = name.lower()
        holders = self._local.setdefault(name, {})
        holders[sandbox] = tuple(dict.fromkeys((*holders.get(sandbox, ()), address)))
        holder = self._local_reverse.setdefault(address, {})
        if holder.get(sandbox, sandbox[:SHORT_ID]) == sandbox[:SHORT_ID]:
            holder[sandbox] = name

    def remove(self, sandbox: str) -> None:
        _forget(self._local, sandbox)
        _forget(self._local_reverse, sandbox)
        self._forget_turns()

    def addresses(self, name: str) -> tuple[str, ...] | None:
        """None when there is no such name; an empty tuple when it has no address at present."""
        local = (address for addresses in self._local.get(name, {}).values() for address in addresses)
        found = self._cluster.get(name, ()) or tuple(dict.fromkeys(local))
        return found if found or name in self._cluster else None

    def rotated(self, name: str, kind: int = dns_message.ANY) -> tuple[str, ...]:
        """The name's addresses of that type, each time beginning with the next one (round robin)."""
        wanted = _FAMILIES.get(kind, ())
        found = tuple(address for address in self.addresses(name) or () if (":" in address) in wanted)
        if len(found) < 2:
            return found
        first = self._turns.get((name, kind), 0) % len(found)
        self._turns[name, kind] = first + 1
        return found[first:] + found[:first]

    def name_of(self, address: str) -> str:
        """The name of the task or container with that address, or ""."""
        local = next(iter(self._local_reverse.get(address, {}).values()), "")
        return local or self._cluster_reverse.get(address, "")

    def _forget_turns(self) -> None:
        for turn in [
            turn for turn in self._turns if turn[0] not in self._cluster and turn[0] not in self._local
        ]:
            del self._turns[turn]


@dataclass(frozen=True, slots=True)
class Visible:
    """One network as a sandbox sees it."""

    network: str
    zone: Zone


def records(question: Question, networks: Sequence[Visible]) -> list[Record] | None:
    """The answer's records (none: the name has nothing of that type), or None for a name of somebody else."""
    if not question.is_for_internet:
        return None
    if question.name.endswith((_REVERSE, _REVERSE6)):
        return _pointer(question, networks)
    holder = _find(question.name, networks)
    if holder is None:
        return None
    zone, name = holder
    # None for another type: musl waits for A and AAAA, and another type's NXDOMAIN would deny the name.
    return [question.address(address, TTL_S) for address in zone.rotated(name, question.type)]


def _find(name: str, networks: Sequence[Visible]) -> tuple[Zone, str] | None:
    """Names and networks may both have dots: a.b.c is that name, or a.b on network c, or a on b.c."""
    for bare, network in _splits(name):
        for visible in networks:
            if network in ("", visible.network.lower()) and visible.zone.addresses(bare) is not None:
                return visible.zone, bare
    return None


def _splits(name: str) -> Iterator[tuple[str, str]]:
    yield name, ""
    end = name.rfind(".")
    while end > 0:
        yield name[:end], name[end + 1 :]
        end = name.rfind(".", 0, end)


def _pointer(question: Question, networks: Sequence[Visible]) -> list[Record] | None:
    address = _reverse_address(question.name)
    for visible in networks:
        name = visible.zone.name_of(address)
        if name and dns_message.is_sendable(full := f"{name}.{visible.network}"):
            if question.type not in (dns_message.PTR, dns_message.ANY):
                return []
            return [question.pointer(full, TTL_S)]
    return None


def _reverse_address(name: str) -> str:
    """The address that a name below in-addr.arpa or ip6.arpa stands for; "" when it is none."""
    if name.endswith(_REVERSE):
        return ".".join(reversed(name.removesuffix(_REVERSE).split(".")))
    digits = "".join(reversed(name.removesuffix(_REVERSE6).split(".")))
    try:
        return str(ipaddress.IPv6Address(bytes.fromhex(digits))) if len(digits) == _NIBBLES else ""
    except ValueError:
        return ""


def _forget(table: dict[str, dict[str, _T]], sandbox: str) -> None:
    for key in [key for key, holders in table.items() if sandbox in holders]:
        del table[key][sandbox]
        if not table[key]:
            del table[key]


def _reversed(names: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Each address's most particular name: a task's (`web.1.id`) rather than a service's or `tasks.web`."""
    best: dict[str, tuple[bool, int, int, str]] = {}
    for name, addresses in names.items():
        rank = (name.startswith(_TASKS), len(addresses), -name.count("."), name)
        for address in addresses:
            best[address] = min(best.get(address, rank), rank)
    return {address: rank[-1] for address, rank in best.items()}
