"""Tasks on the container engine of this host: the engine's implementation of `task_step.Executor`.

Owns the translation of tasks to containers and of the engine's errors to reasons. A task's container is
found by its name, which contains the task's id. Keeps no state: after a restart of the daemon it finds
whatever the engine has.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Protocol

from engine.config import ContainerCreate, LogOptions, LogRecord, SecretFile, TaskEndpoint
from engine.errors import EngineError, NotFound, NotModified
from node.agent.container_body import SECOND_NS, container_body, endpoints
from node.agent.task_step import ContainerInfo, ExecutorError, TaskFile
from node.agent.templates import Templates
from node.loop import Clock
from raft.objects.task import Task

HEALTH_POLL_S = 0.2
STOP_GRACE_S = 10
NEVER_STARTED = "0001-01-01T00:00:00Z"


class ContainerEngine(Protocol):
    """The part of the engine that tasks use."""

    async def create_container(
        self,
        name: str,
        body: ContainerCreate,
        *,
        files: Sequence[SecretFile] = (),
        endpoints: Sequence[TaskEndpoint] = (),
    ) -> tuple[str, list[str]]: ...

    async def fetch_image(self, ref: str, auth: str) -> None:
        """The image is on this host afterwards."""

    async def start_container(self, ref: str) -> None: ...

    async def stop_container(self, ref: str, timeout: int | None = None, signal: str = "") -> None: ...

    async def remove_container(self, ref: str, *, force: bool = False, volumes: bool = False) -> None: ...

    async def wait_container(self, ref: str, condition: str = "") -> Any: ...

    async def inspect_container(self, ref: str, size: bool = False) -> dict[str, Any]: ...

    def container_logs(self, ref: str, options: LogOptions) -> AsyncGenerator[LogRecord, None]: ...


class EngineExecutor:
    """node_id and hostname fill in the templates of the specs."""

    def __init__(
        self,
        engine: ContainerEngine,
        clock: Clock,
        *,
        node_id: str,
        hostname: str,
        os: str,
        architecture: str,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._node = {"node_id": node_id, "hostname": hostname, "os": os, "architecture": architecture}

    async def inspect(self, task: Task) -> ContainerInfo | None:
        try:
            shown = await self._engine.inspect_container(task.name)
        except NotFound:
            return None
        except EngineError as error:
            raise ExecutorError(str(error)) from error
        state = shown["State"]
        return ContainerInfo(
            id=shown["Id"],
            running=state["Running"],
            started=state["StartedAt"] != NEVER_STARTED,
            pid=state["Pid"],
            exit_code=state["ExitCode"],
            error=state["Error"],
            health=(state.get("Health") or {}).get("Status", "").replace("none", ""),
        )

    async def create(self, task: Task, files: Sequence[TaskFile]) -> None:
        if await self.inspect(task) is not None:
            return
        templates = Templates(task, **self._node)
        body = container_body(task, templates)
        in_memory = [
            SecretFile(target=f.target, data=f.data, uid=f.uid, gid=f.gid, mode=f.mode) for f in files
        ]
        try:
            await self._engine.fetch_image(body.image, task.spec.container.registry_auth)
            await self._engine.create_container(task.name, body, files=in_memory, endpoints=endpoints(task))
        except EngineError as error:
            raise ExecutorError(str(error)) from error

    async def start(self, task: Task) -> None:
        try:
            await self._engine.start_container(task.name)
        except NotModified:
            return
        except EngineError as error:
            raise ExecutorError(str(error)) from error

    async def wait_healthy(self, task: Task) -> None:
        while True:
            info = await self._alive(task)
            if info.health in ("healthy", ""):
                return
            if info.health == "unhealthy":
                raise ExecutorError("task: unhealthy container")
            if not info.running:
                raise ExecutorError(info.error or f"task: non-zero exit ({info.exit_code})")
            await self._clock.sleep(HEALTH_POLL_S)

    async def wait_ended(self, task: Task) -> None:
        info = await self._alive(task)
        if not info.health:
            await self._wait(task)
            return
        waiting = asyncio.create_task(self._wait(task))
        try:
            while not waiting.done():
                await asyncio.wait({waiting}, timeout=HEALTH_POLL_S * 5)
                if not waiting.done() and (await self._alive(task)).health == "unhealthy":
                    raise ExecutorError("task: unhealthy container")
            waiting.result()
        finally:
            waiting.cancel()

    async def stop(self, task: Task) -> None:
        spec = task.spec.container
        grace_ns = spec.stop_grace_period_ns
        grace_s = STOP_GRACE_S if grace_ns is None else -(-grace_ns // SECOND_NS)
        try:
            await self._engine.stop_container(task.name, grace_s, spec.stop_signal)
        except (NotFound, NotModified):
            return
        except EngineError as error:
            raise ExecutorError(str(error)) from error

    async def remove(self, task: Task) -> None:
        try:
            await self._engine.remove_container(task.name, force=True, volumes=True)
        except NotFound:
            return
        except EngineError as error:
            raise ExecutorError(str(error)) from error

    async def logs(self, task: Task, options: LogOptions) -> AsyncGenerator[LogRecord, None]:
        """The task's log; nothing when it has no container. Raises ExecutorError."""
        try:
            async with contextlib.aclosing(self._engine.container_logs(task.name, options)) as lines:
                async for record in lines:
                    yield record
        except NotFound:
            return
        except EngineError as error:
            raise ExecutorError(str(error)) from error

    async def _alive(self, task: Task) -> ContainerInfo:
        info = await self.inspect(task)
        if info is None:
            raise ExecutorError("the task's container is gone")
        return info

    async def _wait(self, task: Task) -> None:
        try:
            await self._engine.wait_container(task.name, "not-running")
        except NotFound as error:
            raise ExecutorError("the task's container is gone") from error
        except EngineError as error:
            raise ExecutorError(str(error)) from error
