"""One task's life on this node: step after step, until its assignment and its container are gone.

Owns the task's status on this node and the decision to break a wait off when the assignment changes.
Invariant: every status is saved before it is reported; the container of an ended task stays (for its log)
until the task is removed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from node.agent.task_step import Executor, ExecutorError, Prerequisites, failed, is_waiting, step
from node.loop import Backoff, Clock
from raft.objects.task import Task, TaskState, TaskStatus

log = logging.getLogger(__name__)

_HEAVY = frozenset({TaskState.PREPARING, TaskState.STARTING})

SaveStatus = Callable[[Task, TaskStatus], None]


class TaskRunner:
    """`run` ends when the task was removed and its container is gone.

    changed: saves and reports a new status. heavy: bounds how many containers are made at once.
    """

    def __init__(
        self,
        task: Task,
        status: TaskStatus,
        *,
        executor: Executor,
        prerequisites: Prerequisites,
        changed: SaveStatus,
        heavy: asyncio.Semaphore,
        clock: Clock,
    ) -> None:
        self.task = task
        self.status = status
        self._executor = executor
        self._prerequisites = prerequisites
        self._changed = changed
        self._heavy = heavy
        self._clock = clock
        self._news = asyncio.Event()
        self._removed = task.desired_state is TaskState.REMOVE
        self._backoff = Backoff(first=0.2, most=8.0)

    def update(self, task: Task) -> None:
        """A new assignment: the desired state or the networks changed."""
        self.task = task
        self._removed = self._removed or task.desired_state is TaskState.REMOVE
        self._news.set()

    def remove(self) -> None:
        """No longer assigned: stop it, remove its container, end."""
        self._removed = True
        self._news.set()

    async def run(self) -> None:
        while True:
            self._news.clear()
            if self._removed and self.status.state.is_terminal:
                if await self._try_remove():
                    return
                continue
            status = await self._step()
            if status is None:
                await self._news.wait()
            elif status != self.status:
                self.status = msgspec.structs.replace(status, timestamp=self._clock.now())
                self._changed(self.task, self.status)

    async def _step(self) -> TaskStatus | None:
        """One step; the present status when it was broken off by a new assignment."""
        task = self.task
        if self._removed:
            task = msgspec.structs.replace(task, desired_state=TaskState.REMOVE)
        stopping = task.desired_state >= TaskState.SHUTDOWN
        try:
            if is_waiting(task, self.status) and not stopping:
                return await self._interruptible(task)
            if self.status.state in _HEAVY and not stopping:
                async with self._heavy:
                    return await self._plain(task)
            return await self._plain(task)
        except Exception as error:  # a task must end with a reason, whatever went wrong
            log.exception("task %s (%s): step failed", task.id, task.service_name)
            return failed(self.status, f"{type(error).__name__}: {error}")

    async def _plain(self, task: Task) -> TaskStatus | None:
        return await step(task, self.status, self._executor, self._prerequisites)

    async def _interruptible(self, task: Task) -> TaskStatus | None:
        stepping = asyncio.create_task(self._plain(task))
        news = asyncio.create_task(self._news.wait())
        try:
            await asyncio.wait({stepping, news}, return_when=asyncio.FIRST_COMPLETED)
            return stepping.result() if stepping.done() else self.status
        finally:
            stepping.cancel()
            news.cancel()
            await asyncio.gather(stepping, news, return_exceptions=True)

    async def _try_remove(self) -> bool:
        try:
            await self._executor.remove(self.task)
        except ExecutorError as error:
            pause = self._backoff.next()
            log.warning("container of task %s cannot be removed, trying again: %s", self.task.id, error)
            await self._clock.sleep(pause)
            return False
        return True
