"""Applies a node's assignments: one runner per task, the network map, and the secrets in memory.

Owns what this node runs. On start it adopts the tasks that an earlier life left on disk, before any manager
is reached. Invariants: assignments are applied in order and without a gap; secrets and configs are never
written to disk.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from node.agent.network_map import MapProgrammer, Networks
from node.agent.task_runner import TaskRunner
from node.agent.task_step import Executor, ExecutorError, TaskFile
from node.agent.task_store import TaskStore
from node.loop import Clock
from raft.objects.assignment import Assignments
from raft.objects.cluster import Config, Secret
from raft.objects.service import FileReference
from raft.objects.task import Task, TaskStatus

log = logging.getLogger(__name__)

HEAVY_STEPS_MAX = 16
PREREQUISITES_S_MAX = 30.0
STOP_ALL_S_MAX = 60.0

Report = Callable[[str, TaskStatus], None]


class AssignmentGap(Exception):
    """A difference is missing: the session has to start again with a complete set."""


class Worker:
    """Call `start` once, then `apply`. report: called with every new status of a task."""

    def __init__(
        self,
        folder: Path,
        executor: Executor,
        networks: Networks,
        *,
        report: Report,
        acknowledged: Callable[[int], None],
        clock: Clock,
    ) -> None:
        self._store = TaskStore(folder)
        self._executor = executor
        self._report = report
        self._clock = clock
        self._map = MapProgrammer(networks, acknowledged, clock)
        self._heavy = asyncio.Semaphore(HEAVY_STEPS_MAX)
        self._runners: dict[str, TaskRunner] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._secrets: dict[str, Secret] = {}
        self._configs: dict[str, Config] = {}
        self._files_changed = asyncio.Condition()
        self._needs_map: dict[str, int] = {}
        self._group: asyncio.TaskGroup | None = None
        self._sequence: int | None = None

    def start(self, group: asyncio.TaskGroup) -> None:
        """Adopt the stored tasks; everything runs in the group until it is cancelled."""
        self._group = group
        group.create_task(self._map.run(), name="network-map")
        for stored in self._store.load():
            self._add(stored.task, stored.status)
        if self._runners:
            log.info("adopted %d tasks of an earlier run", len(self._runners))

    @property
    def network_version(self) -> int:
        return self._map.version

    def statuses(self) -> Mapping[str, TaskStatus]:
        return {task_id: runner.status for task_id, runner in self._runners.items()}

    def task(self, task_id: str) -> Task | None:
        runner = self._runners.get(task_id)
        return runner.task if runner is not None else None

    # ---- assignments ----

    async def apply(self, assignments: Assignments) -> None:
        """Raises AssignmentGap when a difference is missing."""
        if not assignments.complete and assignments.sequence != (self._sequence or 0) + 1:
            raise AssignmentGap(f"assignments {assignments.sequence} follow {self._sequence}")
        self._sequence = assignments.sequence
        if assignments.network_map is not None:
            self._map.offer(assignments.network_map)
        await self._apply_files(assignments)
        if assignments.complete:
            kept = {task.id for task in assignments.tasks}
            self._remove(task_id for task_id in list(self._runners) if task_id not in kept)
        for task in assignments.tasks:
            self._assign(task)
        self._remove(assignments.removed_tasks)

    def session_ended(self) -> None:
        """The next assignments have to be complete ones."""
        self._sequence = None

    async def stop_all(self) -> None:
        """Stop and remove every task: the node leaves the cluster."""
        self._remove(list(self._runners))
        if self._running:
            await asyncio.wait(set(self._running.values()), timeout=STOP_ALL_S_MAX)

    async def _apply_files(self, assignments: Assignments) -> None:
        if assignments.complete:
            self._secrets.clear()
            self._configs.clear()
        self._secrets.update((secret.id, secret) for secret in assignments.secrets)
        self._configs.update((config.id, config) for config in assignments.configs)
        for secret_id in assignments.removed_secrets:
            self._secrets.pop(secret_id, None)
        for config_id in assignments.removed_configs:
            self._configs.pop(config_id, None)
        async with self._files_changed:
            self._files_changed.notify_all()

    def _assign(self, task: Task) -> None:
        self._needs_map.setdefault(task.id, self._map.wanted_version)
        runner = self._runners.get(task.id)
        if runner is None:
            self._add(task, task.status)
        elif runner.task != task:
            runner.update(task)

    def _add(self, task: Task, status: TaskStatus) -> None:
        assert self._group is not None, "the worker was not started"
        runner = TaskRunner(
            task,
            status,
            executor=self._executor,
            prerequisites=self,
            changed=self._changed,
            heavy=self._heavy,
            clock=self._clock,
        )
        self._runners[task.id] = runner
        self._store.save(task, status)
        self._running[task.id] = self._group.create_task(self._run(runner), name=f"task-{task.id}")

    def _remove(self, task_ids: Iterable[str]) -> None:
        for task_id in task_ids:
            if task_id in self._runners:
                self._runners[task_id].remove()

    async def _run(self, runner: TaskRunner) -> None:
        await runner.run()
        task_id = runner.task.id
        self._store.remove(task_id)
        del self._runners[task_id]
        del self._running[task_id]
        self._needs_map.pop(task_id, None)

    def _changed(self, task: Task, status: TaskStatus) -> None:
        try:
            self._store.save(task, status)
        except OSError as error:  # a full disk must not stop the tasks
            log.error("status of task %s cannot be saved: %s", task.id, error)
        self._report(task.id, status)

    # ---- prerequisites of a task ----

    async def wait(self, task: Task) -> None:
        try:
            async with asyncio.timeout(PREREQUISITES_S_MAX):
                if task.networks:
                    await self._map.wait_for(self._needs_map.get(task.id, 0))
                async with self._files_changed:
                    await self._files_changed.wait_for(lambda: not self._missing(task))
        except TimeoutError as error:
            missing = self._missing(task) or ["the network map is not programmed"]
            raise ExecutorError("; ".join(missing)) from error

    def files(self, task: Task) -> Sequence[TaskFile]:
        missing = self._missing(task)
        if missing:
            raise ExecutorError("; ".join(missing))
        container = task.spec.container
        return [
            *(_file(r, self._secrets[r.id].spec.data, "/run/secrets/") for r in container.secrets),
            *(_file(r, self._configs[r.id].spec.data, "/") for r in container.configs),
        ]

    def _missing(self, task: Task) -> list[str]:
        container = task.spec.container
        return [
            *(f"secret {r.name} did not arrive" for r in container.secrets if r.id not in self._secrets),
            *(f"config {r.name} did not arrive" for r in container.configs if r.id not in self._configs),
        ]


def _file(reference: FileReference, data: bytes, folder: str) -> TaskFile:
    target = reference.target or reference.name
    return TaskFile(
        target=target if target.startswith("/") else folder + target,
        data=data,
        uid=int(reference.uid or 0),
        gid=int(reference.gid or 0),
        mode=reference.mode,
    )
