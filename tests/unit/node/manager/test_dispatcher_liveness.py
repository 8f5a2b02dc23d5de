"""Which nodes a leader takes for alive: heartbeats, sessions that end, announced restarts, machines that answer."""

from __future__ import annotations

from dispatcher_world import task, world

from node.manager.absence import CRASHED_S_MAX, PROBE_EVERY_S, RESTARTING_S_MAX
from node.manager.liveness import CLOSED_GRACE_S, DEAF_S_MAX, RESTART_GRACE_S, UNKNOWN_GRACE_S
from node.rpc import RpcError
from raft.objects.assignment import (
    Assignments,
    Goodbye,
    SessionMessage,
)
from raft.objects.base import Kind
from raft.objects.node import Node, NodeState
from raft.objects.task import TaskState


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


async def test_leader_that_does_not_hear_its_own_node_takes_nobody_for_dead():
    async with world("own", "n2", state=NodeState.READY, own_node="own") as w:
        await w.clock.advance(DEAF_S_MAX - 1)
        assert (w.state("own"), w.state("n2")) == (NodeState.READY, NodeState.READY)
        w.open("own").beat()
        await w.clock.advance(CLOSED_GRACE_S + 1)
        assert (w.state("own"), w.state("n2")) == (NodeState.READY, NodeState.DOWN)


async def test_leader_whose_own_agent_stays_away_sees_deaths_again():
    async with world("own", "n2", state=NodeState.READY, own_node="own") as w:
        await w.clock.advance(DEAF_S_MAX + CLOSED_GRACE_S)
        assert (w.state("own"), w.state("n2")) == (NodeState.DOWN, NodeState.DOWN)


async def test_leader_that_loses_its_own_agent_waits_from_then_on():
    async with world("own", "n2", own_node="own") as w:
        agents = [w.open("own"), w.open("n2")]
        for agent in agents:
            agent.beat()
        await w.clock.advance(60)
        for agent in agents:
            await agent.stream.close()
        await w.clock.advance(DEAF_S_MAX - 1)
        assert (w.state("own"), w.state("n2")) == (NodeState.READY, NodeState.READY)
