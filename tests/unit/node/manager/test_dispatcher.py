"""Sessions with agents: opening, assignments, reports, the end of the leadership."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from dispatcher_world import FakeStream, report, task, world

from node.loop import ManualClock
from node.manager.absence import machine_answers
from node.manager.dispatcher import Dispatcher
from node.rpc import WORKER, Identity, RpcError
from raft.errors import MaybeCommitted
from raft.objects.assignment import (
    Assignments,
    Leave,
    Reports,
    SessionMessage,
)
from raft.objects.base import Annotations, Kind
from raft.objects.cluster import Secret, SecretSpec
from raft.objects.node import NodeRole, NodeState
from raft.objects.service import ContainerSpec, FileReference, TaskSpec
from raft.objects.task import TaskState
from raft.store import Store

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
