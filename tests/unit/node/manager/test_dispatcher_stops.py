"""A task that is to stop leaves the network maps first, and its stop is sent afterwards."""

from __future__ import annotations

import msgspec
from dispatcher_world import PlayedAgent, World, task, world

from node.manager.draining import DRAIN_S_MAX
from raft.objects.assignment import (
    Assignments,
    Reports,
)
from raft.objects.base import Annotations
from raft.objects.cluster import IpamConfig, Network, NetworkSpec
from raft.objects.task import NetworkAttachment, TaskState


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
