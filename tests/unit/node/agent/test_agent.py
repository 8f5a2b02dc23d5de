"""Agent and leader in one process, joined by streams in memory: from the store to the host and back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from agent_world import FakeHost, FakeWire, task

from engine.config import LogRecord
from node.agent.agent import Agent
from node.agent.log_publisher import LogPublisher
from node.agent.managers import KnownManagers
from node.agent.worker import Worker
from node.loop import ManualClock
from node.manager.dispatcher import Dispatcher
from node.manager.logbroker import LogBroker, LogSelection
from node.rpc import WORKER, Identity, RpcError
from raft.errors import Unavailable
from raft.objects.assignment import ManagerAddress, SessionMessage
from raft.objects.base import Kind
from raft.objects.node import ManagerStatus, Node, NodeDescription, NodeState
from raft.objects.task import Task, TaskState
from raft.store import LocalProposer, Store

LEADER = "10.0.0.1:2377"
FOLLOWER = "10.0.0.2:2377"


@dataclass
class World:
    clock: ManualClock
    store: Store
    dispatcher: Dispatcher
    broker: LogBroker
    wire: FakeWire
    host: FakeHost
    agent: Agent
    sessions: list[SessionMessage]
    left: list[str]
    managers_file: Path

    async def put(self, *objects: Node | Task) -> None:
        def write(tx: Any) -> None:
            for obj in objects:
                kind = Kind.NODE if isinstance(obj, Node) else Kind.TASK
                old = tx.get(kind, obj.id)
                tx.put(msgspec.structs.replace(obj, meta=old.meta) if old else obj)

        await self.store.update(write)
        await self.clock.advance(0.1)

    def state(self, task_id: str) -> TaskState:
        return self.store.view().tasks[task_id].status.state

    def node_state(self) -> NodeState:
        return self.store.view().nodes["n1"].status.state


async def refuse(caller: Identity, stream: Any) -> None:
    raise RpcError("not_leader", "ask the leader", LEADER)


@contextlib.asynccontextmanager
async def world(tmp_path: Path, known: str = LEADER) -> AsyncIterator[World]:
    clock = ManualClock()
    store = Store(clock=clock.now)
    LocalProposer(store)

    async def answers(address: str) -> bool:
        return False

    dispatcher = Dispatcher(
        store, clock, leader_address=lambda: LEADER, confirm=lambda: asyncio.sleep(0), answers=answers
    )
    broker = LogBroker(store, dispatcher)
    wire = FakeWire(Identity("n1", WORKER, "c1"))
    wire.serve[LEADER] = {"dispatcher.session": dispatcher.serve, "dispatcher.logs": broker.receive}
    wire.serve[FOLLOWER] = {"dispatcher.session": refuse}
    host = FakeHost()
    managers = KnownManagers(tmp_path / "managers.json")
    managers.replace([ManagerAddress(node_id="m", address=known)])
    sessions: list[SessionMessage] = []
    left: list[str] = []

    async def leave(reason: str) -> None:
        left.append(reason)

    logs = LogPublisher(wire, host, lambda id: worker.task(id))
    agent = Agent(
        streams=wire,
        managers=managers,
        logs=logs,
        clock=clock,
        describe=lambda: NodeDescription(hostname="n1"),
        address=lambda: "10.0.0.7",
        on_session=sessions.append,
        on_leave=leave,
    )
    worker = Worker(
        tmp_path / "tasks",
        host,
        host,
        report=agent.report,
        acknowledged=agent.acknowledged,
        clock=clock,
    )

    async def live() -> None:
        async with asyncio.TaskGroup() as group:
            worker.start(group)
            await agent.run(worker)

    made = World(
        clock, store, dispatcher, broker, wire, host, agent, sessions, left, tmp_path / "managers.json"
    )
    manager = Node(id="m", manager=ManagerStatus(address=LEADER))
    await made.put(Node(id="n1"), manager)
    running = [asyncio.create_task(dispatcher.run()), asyncio.create_task(live())]
    await clock.advance(0.1)
    try:
        yield made
    finally:
        for one in running:
            one.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await wire.close()


async def test_task_goes_from_the_store_to_the_host_and_back(tmp_path):
    async with world(tmp_path) as w:
        assert w.node_state() is NodeState.READY
        await w.put(task("t1"))
        assert w.state("t1") is TaskState.RUNNING
        await w.put(msgspec.structs.replace(w.store.view().tasks["t1"], desired_state=TaskState.SHUTDOWN))
        assert w.state("t1") is TaskState.SHUTDOWN
        await w.store.update(lambda tx: tx.delete(Kind.TASK, "t1"))
        await w.clock.advance(0.1)
        assert w.host.containers == {}


async def test_created_to_running_takes_few_commits_and_milliseconds(tmp_path):
    async with world(tmp_path) as w:
        before, start = w.store.index, w.clock.monotonic()
        created = [task(f"t{i}") for i in range(50)]
        await w.store.update(lambda tx: [tx.put(t) for t in created])
        while any(w.state(t.id) is not TaskState.RUNNING for t in created):
            await w.clock.advance(0.005)
            assert w.clock.monotonic() - start < 0.1
        assert w.store.index - before <= 10


async def test_redirect_to_the_leader_is_followed_at_once(tmp_path):
    async with world(tmp_path, known=FOLLOWER) as w:
        assert w.wire.dialled == [FOLLOWER, LEADER]
        assert w.node_state() is NodeState.READY


async def test_managers_are_learnt_and_kept(tmp_path):
    async with world(tmp_path, known=FOLLOWER) as w:
        assert [m.address for m in KnownManagers(w.managers_file).all] == [LEADER]


async def test_broken_session_is_resumed_and_nothing_restarts(tmp_path):
    async with world(tmp_path) as w:
        await w.put(task("t1"))
        with w.store.watch({Kind.NODE}) as watch:
            await w.wire.cut()
            await w.clock.advance(3)
            assert all(
                e.new.status.state is NodeState.READY for e in watch.drain() if isinstance(e.new, Node)
            )
        assert len({m.session_id for m in w.sessions}) == 2
        assert w.host.containers["t1"].starts == 1
        assert w.agent.connected_to == LEADER


async def test_exit_without_a_manager_is_reported_later(tmp_path):
    async with world(tmp_path) as w:
        await w.put(task("t1"))
        handlers = w.wire.serve.pop(LEADER)
        await w.wire.cut()
        w.host.containers["t1"].end(1)
        await w.clock.advance(5)
        assert w.node_state() is NodeState.DOWN
        assert w.state("t1") is TaskState.RUNNING
        w.wire.serve[LEADER] = handlers
        await w.clock.advance(10)
        assert w.node_state() is NodeState.READY
        assert w.state("t1") is TaskState.FAILED


async def test_attempts_back_off(tmp_path):
    async with world(tmp_path) as w:
        del w.wire.serve[LEADER]
        await w.wire.cut()
        w.wire.dialled.clear()
        await w.clock.advance(60)
        assert 8 <= len(w.wire.dialled) <= 25


async def test_removed_node_stops_its_tasks_and_leaves(tmp_path):
    async with world(tmp_path) as w:
        await w.put(task("t1"))
        await w.store.update(lambda tx: tx.delete(Kind.NODE, "n1"))
        await w.clock.advance(0.2)
        assert w.left == ["the node was removed from the swarm"]
        assert w.host.containers == {}


async def test_goodbye_keeps_the_node_for_a_restart(tmp_path):
    async with world(tmp_path) as w:
        handlers = w.wire.serve.pop(LEADER)
        await w.agent.goodbye(restarting=True)
        await w.clock.advance(15)
        assert w.node_state() is NodeState.READY
        assert handlers


async def test_goodbye_for_good_has_the_tasks_replaced_at_once(tmp_path):
    async with world(tmp_path) as w:
        w.wire.serve.pop(LEADER)
        await w.agent.goodbye(restarting=False)
        await w.clock.advance(4)
        assert w.node_state() is NodeState.DOWN


# ---- logs ------------------------------------------------------------------------------------------------


async def collect(w: World, selection: LogSelection) -> list[tuple[str, bytes]]:
    return [
        (line.task_id, line.data)
        async for line in w.broker.logs(lambda view: list(view.tasks.values()), selection)
    ]


async def test_logs_of_all_tasks(tmp_path):
    async with world(tmp_path) as w:
        w.host.log = [LogRecord(1, n, b"line %d\n" % n) for n in range(2000)]
        await w.put(task("t1"), task("t2"))
        lines = await asyncio.wait_for(collect(w, LogSelection()), 5)
        for task_id in ("t1", "t2"):
            assert [data for id, data in lines if id == task_id] == [r.data for r in w.host.log]


async def test_followed_logs_end_with_the_container(tmp_path):
    async with world(tmp_path) as w:
        w.host.log = [LogRecord(1, 1, b"hello\n")]
        await w.put(task("t1"))
        following = asyncio.create_task(collect(w, LogSelection(follow=True)))
        await w.clock.settle()
        assert not following.done()
        w.host.containers["t1"].end(0)
        assert await asyncio.wait_for(following, 5) == [("t1", b"hello\n")]


async def test_new_tasks_are_followed(tmp_path):
    async with world(tmp_path) as w:
        w.host.log = [LogRecord(1, 1, b"hello\n")]
        await w.put(task("t1"))
        logs = w.broker.logs(
            lambda view: list(view.tasks.values()), LogSelection(follow=True, new_tasks=True)
        )
        assert (await anext(logs)).task_id == "t1"
        await w.put(task("t2"))
        assert (await asyncio.wait_for(anext(logs), 5)).task_id == "t2"
        await logs.aclose()


async def test_unreachable_node_is_named_after_the_lines_of_the_others(tmp_path):
    async with world(tmp_path) as w:
        w.host.log = [LogRecord(1, 1, b"hello\n")]
        await w.put(task("t1"), task("t2", node_id="gone", state=TaskState.RUNNING))
        lines = []
        with pytest.raises(Unavailable, match="incomplete log stream: node gone"):
            async for line in w.broker.logs(lambda view: list(view.tasks.values()), LogSelection()):
                lines.append(line.data)
        assert lines == [b"hello\n"]
