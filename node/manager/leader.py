"""The leader's pass: watch the store, decide everything that is to be decided, write it.

Owns when to decide and how a long decision is written; what to decide is `scheduler.plan`'s. The watch
starts before the first look at the store, the first pass looks at everything, later ones at the services
that something happened to and those whose time has come. A change is acted on at once; what arrives while
a pass is being written is the next pass. Invariant: a plan is only written over the objects it was made
from; when one of them has changed, the pass is repeated.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from node.loop import Clock, ControlLoop, SystemClock
from raft.errors import NotFound, OutOfSequence
from raft.objects.base import Kind, new_id
from raft.objects.node import Node
from raft.objects.service import Service
from raft.objects.task import Task
from raft.store import Store, Transaction, View
from raft.watch import Event, Watch
from scheduler.actions import NEVER, Action, Delete, NewId, describe
from scheduler.plan import Plan, decide

log = logging.getLogger(__name__)

# The store takes 200 changes and 1 MiB in one command; the rest is for the envelope.
CHANGES_MAX = 200
BYTES_MAX = 900 * 1024

_WATCHED = frozenset({Kind.NODE, Kind.SERVICE, Kind.TASK, Kind.NETWORK, Kind.CLUSTER})


@dataclass(frozen=True, slots=True)
class Observed:
    """`dirty` None: every service."""

    view: View
    dirty: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Work:
    plan: Plan
    dirty: frozenset[str] | None
    due: float


class LeaderLoop:
    """Run it while this manager leads, and cancel it when it does not any more."""

    def __init__(self, store: Store, clock: Clock | None = None, new_id: NewId = new_id) -> None:
        self._store = store
        self._clock = clock or SystemClock()
        self._new_id = new_id
        self._dirty: set[str] = set()
        self._all_dirty = True
        self._dues: dict[str, float] = {}
        self._loop: ControlLoop[Observed, Work] = ControlLoop(
            "leader", observe=self._observe, decide=self._decide, act=self._act, clock=self._clock
        )

    async def run(self) -> None:
        self._all_dirty = True
        self._dues.clear()
        self._loop.wake()
        with self._store.watch(_WATCHED) as watch:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow(watch))
                group.create_task(self._loop.run())

    async def _follow(self, watch: Watch) -> None:
        while True:
            await watch.wait()
            for event in watch.drain():
                self._mark(event)
            self._loop.wake()

    def _mark(self, event: Event) -> None:
        old, new = event.old, event.new
        if isinstance(new, Task) or isinstance(old, Task):
            self._dirty.update(task.service_id for task in (old, new) if isinstance(task, Task))
        elif isinstance(new, Service) or isinstance(old, Service):
            self._dirty.update(service.id for service in (old, new) if service is not None)
        elif event.action == "resync" or event.kind is Kind.CLUSTER or _node_matters(old, new):
            self._all_dirty = True

    # ---- one pass ----

    def _observe(self) -> Observed:
        now = self._clock.now()
        due = {service_id for service_id, time in self._dues.items() if time <= now}
        dirty = None if self._all_dirty else frozenset(self._dirty | due)
        self._dirty.clear()
        # Set again at the end of a pass that succeeds: after a failure everything is looked at.
        self._all_dirty = True
        return Observed(self._store.view(), dirty)

    def _decide(self, observed: Observed, now: float) -> Work:
        plan = decide(observed.view, now, self._new_id, observed.dirty)
        if observed.dirty is None:
            self._dues.clear()
        for service_id, time in plan.dues.items():
            self._dues.pop(service_id, None)
            if time != NEVER:
                self._dues[service_id] = time
        return Work(plan, observed.dirty, min(self._dues.values(), default=NEVER))

    async def _act(self, work: Work) -> None:
        # From here on events say what is new; what they mark while this is being written stays marked.
        self._all_dirty = False
        try:
            for batch in batches(work.plan.actions):
                await self._store.update(lambda tx, batch=batch: _write(tx, batch))  # type: ignore[misc]
                for action in batch:
                    log.info("%s", describe(action))
        except OutOfSequence as error:
            log.debug("the store changed while a pass was written, deciding again: %s", error)
            self._decide_again(work)
        except Exception:
            self._all_dirty = True
            raise

    def _decide_again(self, work: Work) -> None:
        if work.dirty is None:
            self._all_dirty = True
        else:
            self._dirty |= work.dirty
        self._loop.wake()


def batches(actions: list[Action]) -> Iterator[list[Action]]:
    """Parts that the store accepts as one transaction each, in order."""
    batch: list[Action] = []
    size = 0
    for action in actions:
        weight = 0 if isinstance(action, Delete) else len(msgspec.msgpack.encode(action.obj))
        if batch and (len(batch) == CHANGES_MAX or size + weight > BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(action)
        size += weight
    if batch:
        yield batch


def _write(tx: Transaction, batch: list[Action]) -> None:
    """Raises OutOfSequence when an object is not the one that was decided about."""
    for action in batch:
        if isinstance(action, Delete):
            try:
                tx.delete(action.kind, action.id)
            except NotFound as error:
                raise OutOfSequence(str(error)) from error
        else:
            tx.put(action.obj)


def _node_matters(old: object, new: object) -> bool:
    """Anything but what the allocator itself writes may change where tasks can be."""
    if not isinstance(old, Node) or not isinstance(new, Node):
        return isinstance(old, Node) or isinstance(new, Node)
    return (old.spec, old.role, old.description, old.status) != (
        new.spec,
        new.role,
        new.description,
        new.status,
    )
