"""Gives up the tasks of nodes that will not come back: removed ones, and those down for a day.

Owns the state ORPHANED. Invariant: a task of a node that may still return in time is left alone.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math

import msgspec

from node.loop import Clock
from raft.errors import RaftError
from raft.objects.base import Kind
from raft.objects.node import Node, NodeState
from raft.objects.task import Task, TaskState, TaskStatus
from raft.store import Store, Transaction, View
from raft.watch import Watch

log = logging.getLogger(__name__)

ORPHAN_AFTER_S = 24 * 3600.0
TASKS_PER_COMMIT = 150
RETRY_S = 1.0


class OrphanKeeper:
    """`run` while this manager leads."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._changed = asyncio.Event()

    async def run(self) -> None:
        with self._store.watch({Kind.NODE}) as watch:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow(watch))
                while True:
                    self._changed.clear()
                    due = await self._write_due()
                    await self._clock.wait(self._changed, due - self._clock.now())

    async def _follow(self, watch: Watch) -> None:
        while True:
            await watch.wait()
            watch.drain()
            self._changed.set()

    async def _write_due(self) -> float:
        """Write what is due; return the Unix time of the next look."""
        now = self._clock.now()
        lost = lost_tasks(self._store.view(), now)
        try:
            for start in range(0, len(lost), TASKS_PER_COMMIT):
                batch = lost[start : start + TASKS_PER_COMMIT]
                await self._store.update(functools.partial(_orphan, task_ids=batch, now=now))
        except RaftError as error:
            log.warning("cannot give up tasks of lost nodes, trying again: %s", error)
            return now + RETRY_S
        return next_due(self._store.view(), now)


def lost_tasks(view: View, now: float) -> list[str]:
    """Ids of the tasks to give up."""
    return [
        task.id
        for task in view.tasks.values()
        if task.status.state.uses_node and _is_lost(view.nodes.get(task.node_id), now)
    ]


def next_due(view: View, now: float) -> float:
    """When the next node will have been down for a day (Unix seconds), or infinity."""
    ends = [n.status.since + ORPHAN_AFTER_S for n in view.nodes.values() if n.status.state is NodeState.DOWN]
    return min((end for end in ends if end > now), default=math.inf)


def _is_lost(node: Node | None, now: float) -> bool:
    if node is None:
        return True
    return node.status.state is NodeState.DOWN and node.status.since + ORPHAN_AFTER_S <= now


def _orphan(tx: Transaction, task_ids: list[str], now: float) -> None:
    for task_id in task_ids:
        task = tx.get(Kind.TASK, task_id)
        if isinstance(task, Task) and task.status.state.uses_node:
            status = TaskStatus(state=TaskState.ORPHANED, timestamp=now, message="the node is gone")
            tx.put(msgspec.structs.replace(task, status=status))
