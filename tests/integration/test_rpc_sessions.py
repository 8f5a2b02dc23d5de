"""An agent and managers over real TLS on the loopback: sessions, redirects, a manager that dies, logs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from test_rpc_tls import node_tls

from engine.config import LogOptions, LogRecord
from node.agent.agent import Agent
from node.agent.log_publisher import LogPublisher
from node.agent.managers import KnownManagers
from node.agent.task_step import ContainerInfo, TaskFile
from node.agent.worker import Worker
from node.loop import SystemClock
from node.manager.dispatcher import Dispatcher
from node.manager.liveness import CLOSED_GRACE_S
from node.manager.logbroker import LogBroker, LogSelection
from node.rpc import MANAGER, RpcClient, RpcServer
from overlay_net import records
from raft.objects.assignment import ManagerAddress
from raft.objects.base import Kind
from raft.objects.node import Node, NodeDescription, NodeState
from raft.objects.task import Task, TaskState, TaskStatus
from raft.store import LocalProposer, Store


class Host:
    """Containers that run until they are stopped; every log has ten thousand lines."""

    def __init__(self) -> None:
        self.running: dict[str, asyncio.Event] = {}

    async def inspect(self, task: Task) -> ContainerInfo | None:
        ended = self.running.get(task.id)
        return ContainerInfo(
            id=task.id, started=ended is not None, running=ended is not None and not ended.is_set(), pid=1
        )

    async def create(self, task: Task, files: Sequence[TaskFile]) -> None:
        pass

    async def start(self, task: Task) -> None:
        self.running[task.id] = asyncio.Event()

    async def wait_healthy(self, task: Task) -> None:
        raise AssertionError("no health checks here")

    async def wait_ended(self, task: Task) -> None:
        await self.running[task.id].wait()

    async def stop(self, task: Task) -> None:
        self.running[task.id].set()

    async def remove(self, task: Task) -> None:
        self.running.pop(task.id, None)

    async def logs(self, task: Task, options: LogOptions) -> AsyncGenerator[LogRecord, None]:
        for number in range(10_000):
            yield LogRecord(1, number, b"x" * 200 + b"\n")

    async def apply_map(self, map: records.NetworkMap) -> None:
        pass


async def dead_machine(host: str) -> bool:
    """All nodes of these tests are on this machine, which answers for those that died as well."""
    return False


class Leader:
    """One manager: a listener, and a dispatcher on the shared store."""

    def __init__(self, folder: Path, name: str, store: Store, leader_address: Callable[[], str]) -> None:
        self.server = RpcServer(node_tls(folder, name, MANAGER))
        self.dispatcher = Dispatcher(
            store,
            SystemClock(),
            leader_address=leader_address,
            confirm=lambda: asyncio.sleep(0),
            answers=dead_machine,
        )
        self.broker = LogBroker(store, self.dispatcher)
        self.dispatcher.register(self.server)
        self.broker.register(self.server)
        self.leading: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    def lead(self) -> None:
        self.leading = asyncio.create_task(self.dispatcher.run())

    async def stop(self) -> None:
        if self.leading is not None:
            self.leading.cancel()
            await asyncio.gather(self.leading, return_exceptions=True)
        await self.server.stop()


@contextlib.asynccontextmanager
async def agent_on(folder: Path, *managers: Leader) -> AsyncIterator[Host]:
    host, client = Host(), RpcClient(node_tls(folder, "w1"))
    known = KnownManagers(folder / "managers.json")
    known.replace(ManagerAddress(node_id=str(n), address=m.address) for n, m in enumerate(managers))

    async def leave(reason: str) -> None:
        raise AssertionError(reason)

    agent = Agent(
        streams=client,
        managers=known,
        logs=LogPublisher(client, host, lambda id: worker.task(id)),
        clock=SystemClock(),
        describe=lambda: NodeDescription(hostname="w1"),
        address=lambda: "127.0.0.1",
        on_session=lambda message: None,
        on_leave=leave,
    )
    worker = Worker(
        folder / "tasks",
        host,
        host,
        report=agent.report,
        acknowledged=agent.acknowledged,
        clock=SystemClock(),
    )

    async def live() -> None:
        async with asyncio.TaskGroup() as group:
            worker.start(group)
            await agent.run(worker)

    living = asyncio.create_task(live())
    try:
        yield host
    finally:
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)
        await client.close()


@pytest.fixture
async def store() -> Store:
    store = Store()
    LocalProposer(store)
    await store.update(lambda tx: tx.put(Node(id="w1")))
    return store


@pytest.fixture
async def leader(tmp_path: Path, store: Store) -> AsyncIterator[Leader]:
    made = Leader(tmp_path, "m1", store, lambda: "")
    await made.server.start("127.0.0.1", 0)
    made.lead()
    yield made
    await made.stop()


def new_task(id: str) -> Task:
    return Task(id=id, service_id="s", node_id="w1", status=TaskStatus(state=TaskState.ASSIGNED))


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def state(store: Store, task_id: str) -> TaskState:
    return store.view().tasks[task_id].status.state


async def test_tasks_run_and_survive_a_change_of_the_leader(tmp_path: Path, store: Store):
    leaders: list[Leader] = []
    first, second = (Leader(tmp_path, name, store, lambda: leaders[0].address) for name in ("m1", "m2"))
    leaders.append(first)
    await first.server.start("127.0.0.1", 0)
    await second.server.start("127.0.0.1", 0)
    first.lead()
    try:
        async with agent_on(tmp_path, first, second) as host:
            await store.update(lambda tx: [tx.put(new_task(f"t{n}")) for n in range(20)])
            await until(lambda: all(state(store, f"t{n}") is TaskState.RUNNING for n in range(20)))
            await first.stop()
            leaders[0] = second
            second.lead()
            await store.update(lambda tx: tx.put(new_task("later")))
            with store.watch({Kind.NODE}) as watch:
                await until(lambda: state(store, "later") is TaskState.RUNNING)
                seen = [e.new.status.state for e in watch.drain() if isinstance(e.new, Node)]
            assert NodeState.DOWN not in seen
            assert len(host.running) == 21
    finally:
        await first.stop()
        await second.stop()


async def test_agent_that_dies_is_noticed_at_once_and_down_after_the_grace(
    tmp_path: Path, store: Store, leader: Leader
):
    async with agent_on(tmp_path, leader):
        await until(lambda: store.view().nodes["w1"].status.state is NodeState.READY)
    await until(lambda: store.view().nodes["w1"].status.state is NodeState.DOWN, seconds=CLOSED_GRACE_S + 3.0)


async def test_slow_reader_of_logs_gets_every_line(tmp_path: Path, store: Store, leader: Leader):
    async with agent_on(tmp_path, leader):
        await store.update(lambda tx: tx.put(new_task("t1")))
        await until(lambda: state(store, "t1") is TaskState.RUNNING)
        logs: Any = leader.broker.logs(lambda view: list(view.tasks.values()), LogSelection())
        numbers = []
        async for line in logs:
            numbers.append(line.timestamp_ns)
            if len(numbers) % 2500 == 0:
                await asyncio.sleep(0.05)
        assert numbers == list(range(10_000))
