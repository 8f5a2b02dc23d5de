"""Agents that are played by the tests, before a dispatcher on a manual clock."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from node.loop import ManualClock
from node.manager.dispatcher import Dispatcher
from node.rpc import WORKER, Identity, RpcError
from raft.codec import to_json
from raft.objects.assignment import (
    AgentMessage,
    Heartbeat,
    Hello,
    ManagerMessage,
    TaskReport,
)
from raft.objects.base import Kind
from raft.objects.cluster import CLUSTER_ID, Cluster, Network, Secret
from raft.objects.node import Node, NodeDescription, NodeState, NodeStatus
from raft.objects.task import Task, TaskState, TaskStatus
from raft.store import LocalProposer, Store


class FakeStream:
    """The manager's end of a stream; the test holds the other one."""

    def __init__(self) -> None:
        self.to_manager: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.to_agent: list[Any] = []
        self.closed = False

    async def send(self, data: bytes) -> None:
        if self.closed:
            raise RpcError("unavailable", "stream is closed")
        self.to_agent.append(msgspec.json.decode(data, type=ManagerMessage))

    async def receive(self) -> bytes | None:
        return None if self.closed else await self.to_manager.get()

    async def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.to_manager.put_nowait(None)


@dataclass
class PlayedAgent:
    stream: FakeStream
    handler: asyncio.Task[None]
    clock: ManualClock
    beating: asyncio.Task[None] | None = None

    def say(self, message: AgentMessage) -> None:
        self.stream.to_manager.put_nowait(to_json(message))

    def told(self, kind: type) -> list[Any]:
        return [message for message in self.stream.to_agent if isinstance(message, kind)]

    def beat(self) -> None:
        async def beats() -> None:
            while True:
                self.say(Heartbeat())
                await self.clock.sleep(1.0)

        self.beating = asyncio.create_task(beats())

    def fall_silent(self) -> None:
        assert self.beating is not None
        self.beating.cancel()


@dataclass
class World:
    store: Store
    clock: ManualClock
    dispatcher: Dispatcher
    agents: list[PlayedAgent] = field(default_factory=list)
    cut_off: bool = False
    answering: bool = False
    asked: list[str] = field(default_factory=list)

    def open(self, node_id: str, *, session_id: str = "", address: str = "10.1.0.1") -> PlayedAgent:
        stream = FakeStream()
        identity = Identity(node_id, WORKER, "c1")
        agent = PlayedAgent(stream, asyncio.create_task(self.dispatcher.serve(identity, stream)), self.clock)
        hello = Hello(description=NodeDescription(hostname=node_id), address=address, session_id=session_id)
        agent.say(hello)
        self.agents.append(agent)
        return agent

    async def put(self, *objects: Any) -> None:
        def write(tx: Any) -> None:
            for obj in objects:
                old = tx.get(KINDS[type(obj)], obj.id)
                tx.put(msgspec.structs.replace(obj, meta=old.meta) if old else obj)

        await self.store.update(write)
        await self.clock.advance(0.02)

    def state(self, node_id: str) -> NodeState:
        return self.store.view().nodes[node_id].status.state

    def task(self, task_id: str) -> Task:
        return self.store.view().tasks[task_id]


KINDS = {Node: Kind.NODE, Task: Kind.TASK, Secret: Kind.SECRET, Network: Kind.NETWORK, Cluster: Kind.CLUSTER}


@contextlib.asynccontextmanager
async def world(
    *node_ids: str, state: NodeState = NodeState.UNKNOWN, answering: bool = False, own_node: str = ""
) -> AsyncIterator[World]:
    clock = ManualClock()
    store = Store(clock=clock.now)
    LocalProposer(store)

    async def confirm() -> None:
        if made.cut_off:
            raise RpcError("unavailable", "no majority of the managers answers")

    async def answers(address: str) -> bool:
        made.asked.append(address)
        return made.answering

    dispatcher = Dispatcher(
        store,
        clock,
        leader_address=lambda: "10.0.0.9:2377",
        confirm=confirm,
        answers=answers,
        own_node=own_node,
    )
    made = World(store, clock, dispatcher, answering=answering)
    status = NodeStatus(state=state, address="10.1.0.1")
    nodes = [Node(id=node_id, status=status) for node_id in node_ids]
    await made.put(Cluster(id=CLUSTER_ID, cluster_id="c1"), *nodes)
    running = asyncio.create_task(dispatcher.run())
    await clock.settle()
    try:
        yield made
    finally:
        tasks = [running, *(a.handler for a in made.agents), *(a.beating for a in made.agents if a.beating)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def task(id: str, node_id: str = "n1", state: TaskState = TaskState.ASSIGNED, **fields: Any) -> Task:
    return Task(id=id, service_id="s", node_id=node_id, status=TaskStatus(state=state), **fields)


def report(task_id: str, state: TaskState) -> TaskReport:
    return TaskReport(task_id=task_id, status=TaskStatus(state=state, timestamp=1.0))
