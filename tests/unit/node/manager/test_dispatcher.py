"""Sessions with agents that are played by the tests: liveness, assignments, reports, on a manual clock."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from node.loop import ManualClock
from node.manager.absence import CRASHED_S_MAX, PROBE_EVERY_S, RESTARTING_S_MAX, machine_answers
from node.manager.dispatcher import Dispatcher
from node.manager.draining import DRAIN_S_MAX
from node.manager.liveness import CLOSED_GRACE_S, RESTART_GRACE_S, UNKNOWN_GRACE_S
from node.rpc import WORKER, Identity, RpcError
from raft.codec import to_json
from raft.errors import MaybeCommitted
from raft.objects.assignment import (
    AgentMessage,
    Assignments,
    Goodbye,
    Heartbeat,
    Hello,
    Leave,
    ManagerMessage,
    Reports,
    SessionMessage,
    TaskReport,
)
from raft.objects.base import Annotations, Kind
from raft.objects.cluster import CLUSTER_ID, Cluster, IpamConfig, Network, NetworkSpec, Secret, SecretSpec
from raft.objects.node import Node, NodeDescription, NodeRole, NodeState, NodeStatus
from raft.objects.service import ContainerSpec, FileReference, TaskSpec
from raft.objects.task import NetworkAttachment, Task, TaskState, TaskStatus
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
    *node_ids: str, state: NodeState = NodeState.UNKNOWN, answering: bool = False
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
        store, clock, leader_address=lambda: "10.0.0.9:2377", confirm=confirm, answers=answers
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


# ---- opening ---------------------------------------------------------------------------------------------


async def test_session_starts_with_information_then_complete_assignments():
    async with world("n1") as w:
        await w.put(task("t1"), task("t2", "other"), task("t3", state=TaskState.PENDING))
        agent = w.open("n1")
        await w.clock.advance(0.1)
        session, assignments = agent.stream.to_agent[:2]
        assert isinstance(session, SessionMessage)
        assert session.heartbeat_s == 1.0
        assert (assignments.complete, assignments.sequence) == (True, 1)
        assert [t.id for t in assignments.tasks] == ["t1"]
        node = w.store.view().nodes["n1"]
        assert (node.status.state, node.status.address, node.description.hostname) == (
            NodeState.READY,
            "10.1.0.1",
            "n1",
        )


async def test_only_the_leader_serves():
    store = Store()
    dispatcher = Dispatcher(
        store,
        ManualClock(),
        leader_address=lambda: "10.0.0.9:2377",
        confirm=lambda: asyncio.sleep(0),
        answers=lambda host: machine_answers(host, 2377),
    )
    with pytest.raises(RpcError) as caught:
        await dispatcher.serve(Identity("n1", WORKER, "c1"), FakeStream())
    assert (caught.value.code, caught.value.detail) == ("not_leader", "10.0.0.9:2377")


async def test_unknown_node_is_told_to_leave():
    async with world() as w:
        agent = w.open("ghost")
        await w.clock.settle()
        assert agent.told(Leave)
        assert agent.handler.done()


async def test_cut_off_leader_tells_nobody_to_leave_and_opens_no_session():
    async with world("n1") as w:
        w.cut_off = True
        for node_id in ("ghost", "n1"):
            agent = w.open(node_id)
            await w.clock.settle()
            assert agent.stream.to_agent == []
            with pytest.raises(RpcError, match="no majority"):
                await agent.handler


async def test_removed_node_is_told_to_leave_and_its_tasks_are_given_up():
    async with world("n1") as w:
        await w.put(task("t1", state=TaskState.RUNNING))
        agent = w.open("n1")
        await w.clock.advance(0.1)
        await w.store.update(lambda tx: tx.delete(Kind.NODE, "n1"))
        await w.clock.advance(0.1)
        assert agent.told(Leave)
        assert w.task("t1").status.state is TaskState.ORPHANED


async def test_garbage_ends_the_session():
    async with world("n1") as w:
        agent = w.open("n1")
        await w.clock.advance(0.1)
        agent.stream.to_manager.put_nowait(b"\xff{")
        await w.clock.settle()
        error = agent.handler.exception()
        assert isinstance(error, RpcError)
        assert error.code == "invalid_argument"


# ---- alive and dead --------------------------------------------------------------------------------------


async def test_beating_node_stays_ready_and_silent_one_goes_down_after_three_heartbeats():
    async with world("n1") as w:
        agent = w.open("n1")
        agent.beat()
        await w.clock.advance(30)
        assert w.state("n1") is NodeState.READY
        agent.fall_silent()
        await w.clock.advance(2.0)
        assert w.state("n1") is NodeState.READY
        await w.clock.advance(1.5)
        assert w.state("n1") is NodeState.DOWN
        assert w.store.view().nodes["n1"].status.message == "heartbeat failure"
        assert agent.stream.closed


async def test_closed_session_has_a_short_grace():
    async with world("n1") as w:
        agent = w.open("n1")
        await w.clock.advance(0.1)
        await agent.stream.close()
        await w.clock.advance(CLOSED_GRACE_S - 0.1)
        assert w.state("n1") is NodeState.READY
        await w.clock.advance(0.3)
        assert w.state("n1") is NodeState.DOWN


async def test_node_that_returns_in_time_is_never_down():
    async with world("n1") as w:
        first = w.open("n1")
        await w.clock.advance(0.1)
        session = first.told(SessionMessage)[0].session_id
        await first.stream.close()
        await w.clock.advance(0.8)
        again = w.open("n1", session_id=session)
        again.beat()
        with w.store.watch({Kind.NODE}) as watch:
            await w.clock.advance(10)
            states = {event.new.status.state for event in watch.drain() if isinstance(event.new, Node)}
        assert NodeState.DOWN not in states
        assert again.told(Assignments)[0].complete


async def test_announced_restart_has_a_long_grace():
    async with world("n1") as w:
        agent = w.open("n1")
        await w.clock.advance(0.1)
        agent.say(Goodbye(restarting=True))
        await w.clock.advance(19)
        assert w.state("n1") is NodeState.READY
        await w.clock.advance(2)
        assert w.state("n1") is NodeState.DOWN


async def test_daemon_that_crashed_on_a_machine_that_answers_has_twenty_seconds():
    async with world("n1") as w:
        agent = w.open("n1")
        await w.clock.advance(0.1)
        w.answering = True
        await agent.stream.close()
        await w.clock.advance(CRASHED_S_MAX - 0.2)
        assert w.state("n1") is NodeState.READY
        assert set(w.asked) == {"10.1.0.1"}
        await w.clock.advance(0.4)
        assert w.state("n1") is NodeState.DOWN
        asked = len(w.asked)
        await w.clock.advance(5)
        assert len(w.asked) == asked


async def test_announced_restart_on_a_machine_that_answers_has_a_minute():
    async with world("n1") as w:
        agent = w.open("n1")
        await w.clock.advance(0.1)
        w.answering = True
        agent.say(Goodbye(restarting=True))
        await w.clock.advance(RESTARTING_S_MAX - 0.2)
        assert w.state("n1") is NodeState.READY
        await w.clock.advance(0.4)
        assert w.state("n1") is NodeState.DOWN


async def test_machine_that_stops_answering_has_the_short_grace():
    async with world("n1") as w:
        agent = w.open("n1")
        await w.clock.advance(0.1)
        w.answering = True
        await agent.stream.close()
        await w.clock.advance(5)
        w.answering = False
        await w.clock.advance(CLOSED_GRACE_S - PROBE_EVERY_S - 0.1)
        assert w.state("n1") is NodeState.READY
        await w.clock.advance(PROBE_EVERY_S + 0.2)
        assert w.state("n1") is NodeState.DOWN


async def test_announced_restart_at_another_address_has_the_long_grace():
    async with world("n1") as w:
        agent = w.open("n1")
        await w.clock.advance(0.1)
        w.answering = True
        agent.say(Goodbye(restarting=True))
        await w.clock.advance(1)
        w.answering = False
        await w.clock.advance(RESTART_GRACE_S - 1.2)
        assert w.state("n1") is NodeState.READY
        await w.clock.advance(0.4)
        assert w.state("n1") is NodeState.DOWN


async def test_node_that_ends_on_purpose_is_down_at_once():
    async with world("n1") as w:
        agent = w.open("n1")
        await w.clock.advance(0.1)
        w.answering = True
        agent.say(Goodbye(restarting=False))
        await w.clock.advance(0.1)
        assert w.state("n1") is NodeState.DOWN


async def test_nobody_asks_for_the_machine_of_a_node_that_is_back():
    async with world("n1") as w:
        first = w.open("n1")
        await w.clock.advance(0.1)
        w.answering = True
        await first.stream.close()
        await w.clock.advance(1)
        w.open("n1").beat()
        await w.clock.advance(0.1)
        asked = len(w.asked)
        await w.clock.advance(30)
        assert len(w.asked) == asked
        assert w.state("n1") is NodeState.READY


async def test_down_node_that_returns_is_ready_again():
    async with world("n1") as w:
        agent = w.open("n1")
        await w.clock.advance(5)
        assert w.state("n1") is NodeState.DOWN
        await agent.stream.close()
        w.open("n1").beat()
        await w.clock.advance(0.1)
        assert w.state("n1") is NodeState.READY


async def test_new_leader_gives_double_grace():
    async with world("n1", state=NodeState.READY) as w:
        await w.clock.advance(6.0)
        assert w.state("n1") is NodeState.READY
        await w.clock.advance(1.0)
        assert w.state("n1") is NodeState.DOWN


async def test_new_leader_waits_longer_for_nodes_whose_machines_answer():
    async with world("n1", state=NodeState.READY, answering=True) as w:
        await w.clock.advance(CRASHED_S_MAX - 0.5)
        assert w.state("n1") is NodeState.READY
        await w.clock.advance(1.0)
        assert w.state("n1") is NodeState.DOWN


async def test_nodes_that_nobody_heard_from_since_a_restore_have_a_long_grace():
    async with world("n1") as w:
        await w.clock.advance(UNKNOWN_GRACE_S - 1)
        assert w.state("n1") is NodeState.UNKNOWN
        await w.clock.advance(2)
        assert w.state("n1") is NodeState.DOWN


async def test_second_session_with_the_same_identity_is_refused_while_the_first_lives():
    async with world("n1") as w:
        first = w.open("n1")
        first.beat()
        await w.clock.advance(1)
        second = w.open("n1")
        await w.clock.settle()
        error = second.handler.exception()
        assert isinstance(error, RpcError)
        assert error.code == "failed_precondition"
        assert not first.stream.closed


async def test_same_agent_replaces_its_half_dead_connection():
    async with world("n1") as w:
        first = w.open("n1")
        first.beat()
        await w.clock.advance(1)
        second = w.open("n1", session_id=first.told(SessionMessage)[0].session_id)
        second.beat()
        await w.clock.advance(10)
        assert first.stream.closed
        assert second.told(Assignments)
        assert w.state("n1") is NodeState.READY


async def test_tasks_of_a_node_down_for_a_day_are_orphaned():
    async with world("n1") as w:
        await w.put(task("t1", state=TaskState.RUNNING))
        w.open("n1")
        await w.clock.advance(10)
        assert w.state("n1") is NodeState.DOWN
        await w.clock.advance(23.9 * 3600)
        assert w.task("t1").status.state is TaskState.RUNNING
        await w.clock.advance(0.2 * 3600)
        assert w.task("t1").status.state is TaskState.ORPHANED


# ---- assignments -----------------------------------------------------------------------------------------


async def test_changes_arrive_as_numbered_differences():
    async with world("n1") as w:
        agent = w.open("n1")
        await w.clock.advance(0.1)
        await w.put(task("t1"))
        await w.put(msgspec.structs.replace(w.task("t1"), desired_state=TaskState.SHUTDOWN))
        await w.store.update(lambda tx: tx.delete(Kind.TASK, "t1"))
        await w.clock.advance(0.1)
        messages = agent.told(Assignments)
        assert [m.sequence for m in messages] == [1, 2, 3, 4]
        assert [[t.desired_state for t in m.tasks] for m in messages[1:3]] == [
            [TaskState.RUNNING],
            [TaskState.SHUTDOWN],
        ]
        assert messages[3].removed_tasks == ("t1",)


async def test_own_reports_and_other_nodes_tasks_are_not_sent():
    async with world("n1", "n2") as w:
        await w.put(task("t1"))
        agent = w.open("n1")
        await w.clock.advance(0.1)
        agent.say(Reports(tasks=(report("t1", TaskState.RUNNING),)))
        await w.put(task("t2", "n2"))
        await w.clock.advance(0.1)
        assert w.task("t1").status.state is TaskState.RUNNING
        assert len(agent.told(Assignments)) == 1


async def test_node_gets_only_the_secrets_of_its_live_tasks():
    def secret(id: str) -> Secret:
        return Secret(id=id, spec=SecretSpec(annotations=Annotations(name=id), data=b"x"))

    reference = FileReference(id="a", name="a", target="a")
    spec = TaskSpec(container=ContainerSpec(secrets=(reference,)))
    async with world("n1") as w:
        await w.put(secret("a"), secret("b"), task("t1", spec=spec))
        agent = w.open("n1")
        await w.clock.advance(0.1)
        assert [s.id for s in agent.told(Assignments)[0].secrets] == ["a"]
        agent.say(Reports(tasks=(report("t1", TaskState.COMPLETE),)))
        await w.clock.advance(0.1)
        assert agent.told(Assignments)[-1].removed_secrets == ("a",)


async def test_role_change_is_told():
    async with world("n1") as w:
        agent = w.open("n1")
        await w.clock.advance(0.1)
        await w.put(msgspec.structs.replace(w.store.view().nodes["n1"], role=NodeRole.MANAGER))
        assert [m.role for m in agent.told(SessionMessage)] == ["worker", "manager"]


# ---- reports ---------------------------------------------------------------------------------------------


async def test_state_never_goes_backwards_and_foreign_tasks_are_ignored():
    async with world("n1", "n2") as w:
        await w.put(task("t1"), task("t2", "n2"))
        agent = w.open("n1")
        await w.clock.advance(0.1)
        for state in (TaskState.RUNNING, TaskState.PREPARING):
            agent.say(Reports(tasks=(report("t1", state), report("t2", state))))
            await w.clock.advance(0.1)
        assert w.task("t1").status.state is TaskState.RUNNING
        assert w.task("t1").status.applied_by == "n1"
        assert w.task("t2").status.state is TaskState.ASSIGNED


async def test_hundred_reports_are_few_commits():
    async with world("n1") as w:
        await w.put(*(task(f"t{i}") for i in range(100)))
        agent = w.open("n1")
        await w.clock.advance(0.1)
        before = w.store.index
        for i in range(100):
            agent.say(Reports(tasks=(report(f"t{i}", TaskState.RUNNING),)))
        await w.clock.advance(0.1)
        assert all(w.task(f"t{i}").status.state is TaskState.RUNNING for i in range(100))
        assert w.store.index - before <= 3


@pytest.mark.parametrize("written", [False, True])
async def test_report_whose_write_had_no_answer_is_written_again(written: bool):
    async with world("n1") as w:
        await w.put(task("t1"))
        agent = w.open("n1")
        await w.clock.advance(0.1)
        local, doubts = w.store._proposer, iter(range(3))

        class Lossy:
            async def propose(self, command: bytes) -> object:
                lost = next(doubts, None) is not None
                outcome = await local.propose(command) if written or not lost else None
                if lost:
                    raise MaybeCommitted("the leadership was lost")
                return outcome

            async def read_barrier(self) -> None:
                await local.read_barrier()

        w.store.attach(Lossy())
        agent.say(Reports(tasks=(report("t1", TaskState.RUNNING),)))
        await w.clock.advance(0.02)
        agent.say(Reports(tasks=(report("t1", TaskState.FAILED),)))
        await w.clock.advance(5.0)
        assert w.task("t1").status.state is TaskState.FAILED


async def test_acknowledged_network_version():
    async with world("n1") as w:
        assert w.dispatcher.acknowledged("n1") == 0
        agent = w.open("n1")
        agent.say(Reports(network_version=7))
        await w.clock.advance(0.1)
        assert w.dispatcher.acknowledged("n1") == 7


async def test_end_of_leadership_closes_all_sessions():
    async with world("n1") as w:
        agent = w.open("n1")
        await w.clock.advance(0.1)
        running = next(t for t in asyncio.all_tasks() if "Dispatcher.run" in repr(t.get_coro()))
        running.cancel()
        await w.clock.settle()
        assert agent.stream.closed
        assert agent.handler.done()


# ---- shutdown: out of the maps first ---------------------------------------------------------------------


async def networked_world(w: World) -> tuple[PlayedAgent, PlayedAgent]:
    """Two nodes with one running task each on one network, both maps acknowledged."""
    block = IpamConfig(subnet="10.0.1.0/24", gateway="10.0.1.1")
    await w.put(
        Network(id="net", spec=NetworkSpec(annotations=Annotations(name="front")), vni=4096, ipam=(block,))
    )
    agents = w.open("n1", address="10.9.0.1"), w.open("n2", address="10.9.0.2")
    for agent in agents:
        agent.beat()
    await w.clock.advance(0.1)
    for number, node_id in ((1, "n1"), (2, "n2")):
        attachment = NetworkAttachment(network_id="net", address=f"10.0.1.{number + 2}/24", mac="02:00")
        await w.put(task(f"t{number}", node_id, TaskState.RUNNING, networks=(attachment,)))
    for agent in agents:
        acknowledge(agent)
    await w.clock.advance(0.1)
    return agents


def acknowledge(agent: PlayedAgent) -> None:
    newest = max(m.network_map.version for m in agent.told(Assignments) if m.network_map)
    agent.say(Reports(network_version=newest))


def desired(agent: PlayedAgent) -> TaskState:
    state: TaskState = [t.desired_state for m in agent.told(Assignments) for t in m.tasks][-1]
    return state


async def stop_t1(w: World) -> None:
    await w.put(msgspec.structs.replace(w.task("t1"), desired_state=TaskState.SHUTDOWN))


async def test_stop_is_sent_when_every_node_has_taken_the_task_out_of_its_map():
    async with world("n1", "n2") as w:
        first, second = await networked_world(w)
        await stop_t1(w)
        assert desired(first) is TaskState.RUNNING
        acknowledge(first)
        await w.clock.advance(0.1)
        assert desired(first) is TaskState.RUNNING
        acknowledge(second)
        await w.clock.advance(0.01)
        assert desired(first) is TaskState.SHUTDOWN


async def test_stop_is_not_held_back_for_ever():
    async with world("n1", "n2") as w:
        first, _ = await networked_world(w)
        w.agents[1].beat()
        await stop_t1(w)
        first.beat()
        await w.clock.advance(DRAIN_S_MAX - 0.1)
        assert desired(first) is TaskState.RUNNING
        await w.clock.advance(0.2)
        assert desired(first) is TaskState.SHUTDOWN


async def test_node_that_is_gone_holds_nothing_back():
    async with world("n1", "n2") as w:
        first, second = await networked_world(w)
        await stop_t1(w)
        acknowledge(first)
        await second.stream.close()
        await w.clock.advance(0.1)
        assert desired(first) is TaskState.SHUTDOWN


async def test_task_without_a_network_stops_at_once():
    async with world("n1", "n2") as w:
        first, _ = await networked_world(w)
        await w.put(task("t3", "n1", TaskState.RUNNING))
        await w.put(msgspec.structs.replace(w.task("t3"), desired_state=TaskState.SHUTDOWN))
        assert desired(first) is TaskState.SHUTDOWN
