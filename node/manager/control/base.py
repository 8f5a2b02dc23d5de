"""Finding objects by what a user calls them, and the checks that every kind of object shares."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypeVar, cast

from raft.errors import InvalidArgument, NotFound, OutOfSequence
from raft.objects.base import Kind, ObjectRecord
from raft.objects.cluster import Cluster, Config, Network, Secret
from raft.objects.node import Node
from raft.objects.request import Request
from raft.objects.service import Service
from raft.store import Store, Transaction, View

T = TypeVar("T")
R = TypeVar("R", bound=ObjectRecord)
Named = TypeVar("Named", Service, Network, Secret, Config)

Filters = Mapping[str, list[str]]


class Leadership(Protocol):
    """What the control API and the manager must know about the managers' group."""

    @property
    def is_leader(self) -> bool:
        """This manager leads and has applied everything of earlier terms."""

    @property
    def leader_id(self) -> str | None: ...

    def members(self) -> Mapping[str, str]:
        """Node id -> host:port of every member."""

    def reachable(self, node_id: str) -> bool:
        """Is this manager connected to that one? Itself: always."""

    async def read_barrier(self) -> None:
        """After this, the local state contains everything that was acknowledged before the call.

        Raises NotLeader, Unavailable.
        """


class Control:
    """Base of the parts of the control API."""

    def __init__(self, store: Store, leadership: Leadership, now: Callable[[], float] = time.time) -> None:
        """`now`: Unix seconds, for the times that a user's request starts."""
        self._store = store
        self._leadership = leadership
        self._now = now
        self._deciding = asyncio.Lock()

    async def _update_alone(self, fn: Callable[[Transaction], T], request: Request | None) -> T:
        """`Store.update` for what is decided by objects that it does not write: that a secret exists, that a
        port is free, that nothing uses a network. Versions guard only what is written, so these decisions
        wait for each other; all of them are made on the leader."""
        async with self._deciding:
            return await self._store.update(fn, request)

    @property
    def index(self) -> int:
        """Log index of the last command that was applied on this manager."""
        return self._store.index


def find(kind: Kind, rows: Mapping[str, R], ref: str, names: Callable[[R], Iterable[str]]) -> R:
    """By id, else by name, else by unique prefix of the id. Raises NotFound, InvalidArgument (ambiguous)."""
    if not ref:
        raise InvalidArgument(f"{kind} id or name must be provided")
    exact = rows.get(ref)
    if exact is not None:
        return exact
    named = [obj for obj in rows.values() if ref in names(obj)]
    matches = named or [obj for obj in rows.values() if obj.id.startswith(ref)]
    if not matches:
        raise NotFound(f"{kind} {ref} not found")
    if len(matches) > 1:
        raise InvalidArgument(f"{kind} {ref} is ambiguous ({len(matches)} matches found)")
    return matches[0]


def find_named(kind: Kind, view: View, ref: str) -> ObjectRecord:
    """`find` for the kinds with unique names: the name costs no scan."""
    exact = view.get(kind, ref) or (view.by_name(kind, ref) if ref else None)
    return exact or find(kind, {obj.id: obj for obj in view.all(kind)}, ref, lambda _: ())


def find_service(view: View, ref: str) -> Service:
    return cast(Service, find_named(Kind.SERVICE, view, ref))


def find_network(view: View, ref: str) -> Network:
    return cast(Network, find_named(Kind.NETWORK, view, ref))


def find_node(view: View, ref: str) -> Node:
    return find(Kind.NODE, view.nodes, ref, lambda n: (n.spec.annotations.name, n.description.hostname))


def require_cluster(view: View) -> Cluster:
    cluster = view.cluster
    if cluster is None:
        raise NotFound("the cluster has no state yet; wait until this manager has joined")
    return cluster


def check_version(obj: ObjectRecord, version: int) -> None:
    """The caller must have read the object as it is now."""
    if obj.meta.version != version:
        raise OutOfSequence("update out of sequence")
