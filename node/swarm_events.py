"""`docker events` of the swarm on a manager: services, nodes, networks, secrets and configs that change.

Follows the store from the moment this manager is up to date: what a restart reads again from the log is no news.
Names and attributes are Docker's; the scope is `swarm`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Protocol

from raft.errors import RaftError
from raft.objects.base import Kind, ObjectRecord
from raft.objects.cluster import Config, Network, Secret
from raft.objects.node import Node
from raft.objects.service import Service
from raft.store import Store
from raft.watch import Event

logger = logging.getLogger(__name__)

KINDS = (Kind.SERVICE, Kind.NODE, Kind.NETWORK, Kind.SECRET, Kind.CONFIG)  # Docker's words as well
ACTIONS = {"create": "create", "update": "update", "delete": "remove"}
BARRIER_AGAIN_S = 1.0


class Barrier(Protocol):
    async def read_barrier(self) -> None:
        """RaftError while no majority answers."""


class Publisher(Protocol):
    def publish(
        self,
        kind: str,
        action: str,
        actor_id: str,
        attributes: dict[str, str] | None = None,
        *,
        scope: str = "local",
    ) -> object: ...


class SwarmEvents:
    def __init__(self, bus: Publisher) -> None:
        self._bus = bus

    async def follow(self, store: Store, consensus: Barrier) -> None:
        """Until cancelled. Never fails: events are not worth a manager."""
        while True:
            try:
                await consensus.read_barrier()
                with store.watch(KINDS) as watch:
                    async for event in watch:
                        self._tell(event)
            except RaftError:
                await asyncio.sleep(BARRIER_AGAIN_S)
            except Exception:
                logger.exception("following the swarm for its events failed")
                await asyncio.sleep(BARRIER_AGAIN_S)

    def _tell(self, event: Event) -> None:
        about = event.new or event.old
        action = ACTIONS.get(event.action)
        if about is None or action is None or event.kind is None:
            return
        attributes = dict(_attributes(event.old, about))
        is_news = event.action != "update" or len(attributes) > 1 or _spec(event.old) != _spec(about)
        if is_news:
            self._bus.publish(event.kind.value, action, about.id, attributes, scope="swarm")


def _spec(record: ObjectRecord | None) -> object:
    return getattr(record, "spec", None)


def _attributes(old: ObjectRecord | None, new: ObjectRecord) -> Iterator[tuple[str, str]]:
    if isinstance(new, Node):
        yield "name", new.description.hostname or new.spec.annotations.name
        if isinstance(old, Node) and old is not new:
            yield from _node_changes(old, new)
    elif isinstance(new, Service):
        yield "name", new.spec.annotations.name
        if isinstance(old, Service) and old is not new:
            yield from _service_changes(old, new)
    elif isinstance(new, Network | Secret | Config):
        yield "name", new.spec.annotations.name


def _node_changes(old: Node, new: Node) -> Iterator[tuple[str, str]]:
    yield from _changed("state", old.status.state.name.lower(), new.status.state.name.lower())
    yield from _changed(
        "availability", old.spec.availability.name.lower(), new.spec.availability.name.lower()
    )
    yield from _changed("role", old.spec.role.name.lower(), new.spec.role.name.lower())
    before, after = old.manager, new.manager
    if after is not None:
        was_leader = str(before.leader).lower() if before is not None else "false"
        yield from _changed("leader", was_leader, str(after.leader).lower())
        was_reachable = before is None or before.reachable
        words = ("unreachable", "reachable")
        yield from _changed("reachability", words[was_reachable], words[after.reachable])


def _service_changes(old: Service, new: Service) -> Iterator[tuple[str, str]]:
    yield from _changed("image", old.spec.task.container.image, new.spec.task.container.image)
    yield from _changed("replicas", str(old.spec.replicas), str(new.spec.replicas))
    if new.update_status is not None:
        state = new.update_status.state.name.lower()
        if old.update_status is None:
            yield "updatestate.new", state
        else:
            yield from _changed("updatestate", old.update_status.state.name.lower(), state)


def _changed(name: str, old: str, new: str) -> Iterator[tuple[str, str]]:
    if old != new:
        yield f"{name}.new", new
        yield f"{name}.old", old
