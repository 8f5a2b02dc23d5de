"""The names of networks and what a sandbox sees of them. Pure: no sockets, no clock.

A network's names come from the cluster (replaced as a whole) and from local sandboxes. A sandbox sees the
names of its networks in order, bare (`web`) and with the network's name behind (`web.apps`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from overlay_net import dns_message
from overlay_net.dns_message import Question, Record

TTL_S = 3  # names follow tasks
SHORT_ID = 12
_REVERSE = ".in-addr.arpa"
_TASKS = "tasks."


class Zone:
    """The names of one network, in lower case."""

    def __init__(self) -> None:
        self._cluster: dict[str, tuple[str, ...]] = {}
        self._cluster_reverse: dict[str, str] = {}
        self._local: dict[str, dict[str, str]] = {}
        self._local_reverse: dict[str, dict[str, str]] = {}
        self._turns: dict[str, int] = {}

    def __bool__(self) -> bool:
        return bool(self._cluster or self._local)

    def set_cluster(self, names: Mapping[str, tuple[str, ...]]) -> None:
        self._cluster = {name.lower(): addresses for name, addresses in names.items()}
        self._cluster_reverse = _reversed(self._cluster)
        self._forget_turns()

    def add(self, sandbox: str, name: str, address: str) -> None:
        """A sandbox's first name is the one its address has, unless that is only its short id."""
        name = name.lower()
        self._local.setdefault(name, {})[sandbox] = address
        holder = self._local_reverse.setdefault(address, {})
        if holder.get(sandbox, sandbox[:SHORT_ID]) == sandbox[:SHORT_ID]:
            holder[sandbox] = name

    def remove(self, sandbox: str) -> None:
        for table in (self._local, self._local_reverse):
            for key in [key for key, holders in table.items() if sandbox in holders]:
                del table[key][sandbox]
                if not table[key]:
                    del table[key]
        self._forget_turns()

    def addresses(self, name: str) -> tuple[str, ...] | None:
        """None when there is no such name; an empty tuple when it has no address at present."""
        found = self._cluster.get(name, ()) or tuple(dict.fromkeys(self._local.get(name, {}).values()))
        return found if found or name in self._cluster else None

    def rotated(self, name: str) -> tuple[str, ...]:
        """The name's addresses, each time beginning with the next one (round robin)."""
        found = self.addresses(name) or ()
        if len(found) < 2:
            return found
        first = self._turns.get(name, 0) % len(found)
        self._turns[name] = first + 1
        return found[first:] + found[:first]

    def name_of(self, address: str) -> str:
        """The name of the task or container with that address, or ""."""
        local = next(iter(self._local_reverse.get(address, {}).values()), "")
        return local or self._cluster_reverse.get(address, "")

    def _forget_turns(self) -> None:
        for name in [name for name in self._turns if name not in self._cluster and name not in self._local]:
            del self._turns[name]


@dataclass(frozen=True, slots=True)
class Visible:
    """One network as a sandbox sees it."""

    network: str
    zone: Zone


def records(question: Question, networks: Sequence[Visible]) -> list[Record] | None:
    """The answer's records (none: the name has nothing of that type), or None for a name of somebody else."""
    if not question.is_for_internet:
        return None
    if question.name.endswith(_REVERSE):
        return _pointer(question, networks)
    found = _find(question.name, networks)
    if found is None:
        return None
    zone, name = found
    if question.type not in (dns_message.A, dns_message.ANY):
        # Also for AAAA: musl waits for both answers, and another type's NXDOMAIN would deny the name.
        return []
    return [question.address(address, TTL_S) for address in zone.rotated(name)]


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
    address = ".".join(reversed(question.name.removesuffix(_REVERSE).split(".")))
    for visible in networks:
        name = visible.zone.name_of(address)
        if name and dns_message.is_sendable(full := f"{name}.{visible.network}"):
            if question.type not in (dns_message.PTR, dns_message.ANY):
                return []
            return [question.pointer(full, TTL_S)]
    return None


def _reversed(names: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Each address's most particular name: a task's (`web.1.id`) rather than a service's or `tasks.web`."""
    best: dict[str, tuple[bool, int, int, str]] = {}
    for name, addresses in names.items():
        rank = (name.startswith(_TASKS), len(addresses), -name.count("."), name)
        for address in addresses:
            best[address] = min(best.get(address, rank), rank)
    return {address: rank[-1] for address, rank in best.items()}
