"""Writes what the nodes report into the store, many reports in one commit.

The first report is written after a few milliseconds; what arrives while a commit is under way goes into the
next one, so that the batch grows with the load. Invariants: a task's state never goes backwards; a report
about a task of another node is dropped; what could not be written is kept until the leadership ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

import msgspec

from node.loop import Backoff, Clock
from raft.errors import InvalidArgument, NotLeader, RaftError
from raft.objects.base import Kind
from raft.objects.node import Node
from raft.objects.task import Task, TaskState, TaskStatus
from raft.store import Store, Transaction

log = logging.getLogger(__name__)

COALESCE_S = 0.005
BATCH_TASKS_MAX = 150

NodeChange = Callable[[Node], Node]


class StatusWriter:
    """Collects reports; `run` writes them. All methods are cheap and never block."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._tasks: dict[str, tuple[str, TaskStatus]] = {}
        self._nodes: dict[str, list[NodeChange]] = {}
        self._queued = asyncio.Event()

    def report_task(self, node_id: str, task_id: str, status: TaskStatus) -> None:
        pending = self._tasks.get(task_id)
        if pending is not None and pending[1].state > status.state:
            return
        self._tasks[task_id] = (node_id, status)
        self._queued.set()

    def change_node(self, node_id: str, change: NodeChange) -> None:
        """`change` gets the node as it is at the time of the write; it may run more than once."""
        self._nodes.setdefault(node_id, []).append(change)
        self._queued.set()

    async def run(self) -> None:
        """Until cancelled, or until this manager is no longer the leader (then NotLeader)."""
        backoff = Backoff(first=0.05, most=1.0)
        while True:
            await self._queued.wait()
            await self._clock.sleep(COALESCE_S)
            try:
                await self.flush()
            except NotLeader:
                raise
            except RaftError as error:
                log.warning("cannot write the nodes' reports, trying again: %s", error)
                await self._clock.sleep(backoff.next())
            else:
                backoff.reset()

    async def flush(self) -> None:
        """Write all that is queued. Raises RaftError; what was not written stays queued."""
        while self._tasks or self._nodes:
            task_ids = list(self._tasks)[:BATCH_TASKS_MAX]
            tasks = {id: self._tasks.pop(id) for id in task_ids}
            nodes, self._nodes = self._nodes, {}
            try:
                await self._write(tasks, nodes)
            except RaftError:
                for id, report in tasks.items():
                    self._tasks.setdefault(id, report)
                for node_id, changes in nodes.items():
                    self._nodes[node_id] = changes + self._nodes.get(node_id, [])
                raise
        self._queued.clear()

    async def _write(
        self, tasks: dict[str, tuple[str, TaskStatus]], nodes: dict[str, list[NodeChange]]
    ) -> None:
        def transaction(tx: Transaction) -> None:
            for node_id, changes in nodes.items():
                _stage_node(tx, node_id, changes)
            for task_id, (node_id, status) in tasks.items():
                _stage_task(tx, task_id, node_id, status)

        try:
            await self._store.update(transaction)
        except InvalidArgument as error:
            if len(tasks) < 2:
                log.error("report of %s cannot be written: %s", ", ".join([*tasks, *nodes]), error)
                return
            items = list(tasks.items())
            half = len(items) // 2
            await self._write(dict(items[:half]), nodes)
            await self._write(dict(items[half:]), {})


def _stage_node(tx: Transaction, node_id: str, changes: Iterable[NodeChange]) -> None:
    old = tx.get(Kind.NODE, node_id)
    if not isinstance(old, Node):
        return
    new = old
    for change in changes:
        new = change(new)
    if new != old:
        tx.put(new)


def _stage_task(tx: Transaction, task_id: str, node_id: str, status: TaskStatus) -> None:
    task = tx.get(Kind.TASK, task_id)
    if not isinstance(task, Task) or task.node_id != node_id:
        return
    old = task.status
    if status.state < old.state or old.state.is_terminal or status.state < TaskState.ASSIGNED:
        return
    status = msgspec.structs.replace(status, applied_by=node_id)
    if msgspec.structs.replace(status, timestamp=old.timestamp) == old:
        return
    tx.put(msgspec.structs.replace(task, status=status))
