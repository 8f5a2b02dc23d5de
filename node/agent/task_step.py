"""One step of one task: from its present status to the next, by one action of the executor.

Owns the order of a task's states on its node. Keeps nothing: the caller (`task_runner`) holds the status,
stamps it with the time, reports it and calls again. Invariants: the state only moves forward; what failed before STARTING is
REJECTED, from then on FAILED; a container that has ever run is never started again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from raft.objects.service import PublishMode
from raft.objects.task import ContainerStatus, PortStatus, Task, TaskState, TaskStatus


class ExecutorError(Exception):
    """The host cannot do it; the message reaches `service ps`."""


class TaskFile(msgspec.Struct, frozen=True, kw_only=True):
    """A secret or config as a file in memory. `target`: absolute path in the container."""

    target: str
    data: bytes
    uid: int
    gid: int
    mode: int


class ContainerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A task's container. `health`: "" without a health check, else starting, healthy or unhealthy."""

    id: str
    running: bool = False
    started: bool = False  # ever
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    health: str = ""


class Executor(Protocol):
    """What a task needs of its host. Every call may raise ExecutorError and can be repeated safely."""

    async def inspect(self, task: Task) -> ContainerInfo | None:
        """None when the task has no container."""

    async def create(self, task: Task, files: Sequence[TaskFile]) -> None:
        """Also when there is one already: then nothing happens."""

    async def start(self, task: Task) -> None: ...

    async def wait_healthy(self, task: Task) -> None:
        """Return when the health check passes. Raises ExecutorError when it fails or the container ends."""

    async def wait_ended(self, task: Task) -> None:
        """Return when the container has ended. Raises ExecutorError when it became unhealthy."""

    async def stop(self, task: Task) -> None:
        """Stop signal, grace period, kill. Nothing when it does not run."""

    async def remove(self, task: Task) -> None:
        """The container with its log. Nothing when there is none."""


class Prerequisites(Protocol):
    """What must be there before a task's container is created."""

    async def wait(self, task: Task) -> None:
        """Return when its networks are programmed and its secrets have arrived. Raises ExecutorError."""

    def files(self, task: Task) -> Sequence[TaskFile]: ...


def is_waiting(task: Task, status: TaskStatus) -> bool:
    """The next step only waits, so it may be broken off when the assignment changes."""
    if status.state is TaskState.STARTING:
        return bool(status.container and status.container.pid)
    return status.state in (TaskState.ACCEPTED, TaskState.RUNNING)


async def step(
    task: Task, status: TaskStatus, executor: Executor, prerequisites: Prerequisites
) -> TaskStatus | None:
    """The next status; None when there is nothing to do until the assignment changes."""
    if status.state.is_terminal:
        return None
    try:
        if task.desired_state >= TaskState.SHUTDOWN:
            await executor.stop(task)
            return await _ended(task, status, executor, TaskState.SHUTDOWN, "shutdown")
        return await _forward(task, status, executor, prerequisites)
    except ExecutorError as error:
        return failed(status, str(error))


def failed(status: TaskStatus, error: str) -> TaskStatus:
    """The terminal status after an error."""
    state = TaskState.FAILED if status.state >= TaskState.STARTING else TaskState.REJECTED
    message = "started" if status.state >= TaskState.RUNNING else _DOING.get(status.state, "preparing")
    return msgspec.structs.replace(status, state=state, message=message, error=error)


_DOING = {TaskState.STARTING: "starting"}


async def _forward(
    task: Task, status: TaskStatus, executor: Executor, prerequisites: Prerequisites
) -> TaskStatus | None:
    match status.state:
        case TaskState.ACCEPTED:
            await prerequisites.wait(task)
            return _moved(status, TaskState.PREPARING, "preparing")
        case TaskState.PREPARING:
            await executor.create(task, prerequisites.files(task))
            return await _ended(task, status, executor, TaskState.READY, "prepared")
        case TaskState.READY:
            if task.desired_state < TaskState.RUNNING:
                return None
            return _moved(status, TaskState.STARTING, "starting")
        case TaskState.STARTING:
            return await _start(task, status, executor)
        case TaskState.RUNNING:
            return await _run(task, status, executor)
        case _:
            return _moved(status, TaskState.ACCEPTED, "accepted")


async def _start(task: Task, status: TaskStatus, executor: Executor) -> TaskStatus:
    """Two steps for a container with a health check: started, then healthy."""
    before = await _container(task, executor)
    if not before.started:
        await executor.start(task)
        before = await _container(task, executor)
    if before.health and before.running:
        if not (status.container and status.container.pid):
            return _with_container(_moved(status, TaskState.STARTING, "waiting for the health check"), before)
        await executor.wait_healthy(task)
    ports = tuple(p for p in (task.endpoint.ports if task.endpoint else ()) if p.mode is PublishMode.HOST)
    running = _with_container(_moved(status, TaskState.RUNNING, "started"), before)
    return msgspec.structs.replace(running, port_status=PortStatus(ports=ports) if ports else None)


async def _run(task: Task, status: TaskStatus, executor: Executor) -> TaskStatus:
    await executor.wait_ended(task)
    end = await _container(task, executor)
    if end.exit_code == 0 and not end.error:
        return _with_container(_moved(status, TaskState.COMPLETE, "finished"), end)
    error = end.error or f"task: non-zero exit ({end.exit_code})"
    return _with_container(failed(status, error), end)


async def _ended(
    task: Task, status: TaskStatus, executor: Executor, state: TaskState, message: str
) -> TaskStatus:
    info = await executor.inspect(task)
    moved = _moved(status, state, message)
    return moved if info is None else _with_container(moved, info)


async def _container(task: Task, executor: Executor) -> ContainerInfo:
    info = await executor.inspect(task)
    if info is None:
        raise ExecutorError("the task's container is gone")
    return info


def _moved(status: TaskStatus, state: TaskState, message: str) -> TaskStatus:
    assert state >= status.state, f"a task never goes from {status.state.name} back to {state.name}"
    return msgspec.structs.replace(status, state=state, message=message, error="")


def _with_container(status: TaskStatus, info: ContainerInfo) -> TaskStatus:
    container = ContainerStatus(container_id=info.id, pid=info.pid, exit_code=info.exit_code)
    return msgspec.structs.replace(status, container=container)
