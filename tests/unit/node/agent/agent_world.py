"""A host for tasks that exists only in memory, and streams that join an agent to a manager in one process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any

from engine.config import LogOptions, LogRecord
from node.agent.task_step import ContainerInfo, ExecutorError, TaskFile
from node.rpc import Identity, RpcError
from overlay_net import records
from raft.objects.task import Task, TaskState, TaskStatus


def task(id: str, state: TaskState = TaskState.ASSIGNED, node_id: str = "n1", **fields: Any) -> Task:
    return Task(
        id=id,
        service_id="s",
        service_name="web",
        slot=1,
        node_id=node_id,
        status=TaskStatus(state=state),
        **fields,
    )


class FakeContainer:
    def __init__(self, health: str = "") -> None:
        self.starts = 0
        self.ended = asyncio.Event()
        self.exit_code = 0
        self.health = health
        self.healthy = asyncio.Event()

    def end(self, exit_code: int = 0) -> None:
        self.exit_code = exit_code
        self.ended.set()


class FakeHost:
    """Implements Executor, LogReader and Networks. `refuse`: operation name -> error text."""

    def __init__(self) -> None:
        self.containers: dict[str, FakeContainer] = {}
        self.files: dict[str, Sequence[TaskFile]] = {}
        self.refuse: dict[str, str] = {}
        self.health = ""
        self.calls: list[str] = []
        self.maps: list[records.NetworkMap] = []
        self.log: list[LogRecord] = []

    def _called(self, name: str, task: Task) -> None:
        self.calls.append(f"{name} {task.id}")
        if name in self.refuse:
            raise ExecutorError(self.refuse[name])

    async def inspect(self, task: Task) -> ContainerInfo | None:
        found = self.containers.get(task.id)
        if found is None:
            return None
        running = bool(found.starts) and not found.ended.is_set()
        return ContainerInfo(
            id=f"c-{task.id}",
            running=running,
            started=bool(found.starts),
            pid=100 if running else 0,
            exit_code=found.exit_code,
            health=found.health,
        )

    async def create(self, task: Task, files: Sequence[TaskFile]) -> None:
        self._called("create", task)
        self.containers.setdefault(task.id, FakeContainer(self.health))
        self.files[task.id] = files

    async def start(self, task: Task) -> None:
        self._called("start", task)
        self.containers[task.id].starts += 1

    async def wait_healthy(self, task: Task) -> None:
        await self.containers[task.id].healthy.wait()

    async def wait_ended(self, task: Task) -> None:
        await self.containers[task.id].ended.wait()

    async def stop(self, task: Task) -> None:
        self._called("stop", task)
        if task.id in self.containers:
            self.containers[task.id].end(0)

    async def remove(self, task: Task) -> None:
        self._called("remove", task)
        self.containers.pop(task.id, None)

    async def logs(self, task: Task, options: LogOptions) -> AsyncGenerator[LogRecord, None]:
        for record in self.log:
            yield record
        if options.follow:
            await self.containers[task.id].ended.wait()

    async def apply_map(self, map: records.NetworkMap) -> None:
        if "apply_map" in self.refuse:
            raise OSError(self.refuse["apply_map"])
        self.maps.append(map)


class _End:
    """One end of a pair of streams."""

    def __init__(self, incoming: asyncio.Queue[bytes | RpcError | None]) -> None:
        self._incoming = incoming
        self.other: _End
        self.closed = False

    async def send(self, data: bytes) -> None:
        if self.closed:
            raise RpcError("unavailable", "stream is closed")
        self.other._incoming.put_nowait(data)

    async def receive(self) -> bytes | None:
        if self.closed:
            return None
        item = await self._incoming.get()
        if item is None:
            await self.close()
        if isinstance(item, RpcError):
            await self.close()
            raise item
        return item

    async def close(self) -> None:
        for end in (self, self.other):
            if not end.closed:
                end.closed = True
                end._incoming.put_nowait(None)


Serve = Callable[[Identity, Any], Coroutine[Any, Any, None]]


class FakeWire:
    """Streams to managers by address; `serve[address][method]` is the manager's handler."""

    def __init__(self, identity: Identity) -> None:
        self.serve: dict[str, dict[str, Serve]] = {}
        self.dialled: list[str] = []
        self.patience: list[float] = []
        self._identity = identity
        self._ends: list[_End] = []
        self._serving: set[asyncio.Task[None]] = set()

    async def stream(self, address: str, method: str, *, connect_s: float = 5.0) -> _End:
        self.dialled.append(address)
        self.patience.append(connect_s)
        if address not in self.serve:
            raise RpcError("unavailable", f"cannot reach {address}")
        ours, theirs = _End(asyncio.Queue()), _End(asyncio.Queue())
        ours.other, theirs.other = theirs, ours
        self._ends += [ours, theirs]
        serving = asyncio.create_task(self._run(self.serve[address][method], theirs))
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)
        return ours

    async def _run(self, handler: Serve, end: _End) -> None:
        try:
            await handler(self._identity, end)
        except RpcError as error:
            end.other._incoming.put_nowait(error)
        finally:
            await end.close()

    async def cut(self) -> None:
        """Every open stream breaks."""
        for end in self._ends:
            await end.close()
        self._ends.clear()

    async def close(self) -> None:
        await self.cut()
        for serving in list(self._serving):
            serving.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
