"""Managers that come and go: whole managers over socket pairs, written to all the time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from raft.consensus import ConsensusConfig
from raft.errors import FailedPrecondition, NotLeader, RaftError, Unavailable
from tests.unit.raft.test_consensus import FAST, Node, World, until


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    for node in list(made.nodes.values()):
        await node.stop()


async def join(world: World, node_id: str) -> Node:
    leader = await world.leader()
    node = Node(world, node_id)
    await node.start("join", leader.consensus.members())
    await leader.consensus.add_member(node_id, node.config.address)
    return node


async def leave(world: World, node_id: str) -> None:
    """As `node demote` does it: the leader hands over first, and the next one is asked."""
    async with asyncio.timeout(10):
        while True:
            leader = await world.leader()
            try:
                return await leader.consensus.remove_member(node_id)
            except NotLeader:
                await asyncio.sleep(0.01)


async def create(world: World, name: str) -> None:
    leader = await world.leader()
    await leader.create(name)


class Writer:
    """Writes on whoever leads; what was confirmed must be everywhere in the end."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.confirmed: set[str] = set()
        self.ended = False
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        number = 0
        while not self.ended:
            number += 1
            leader = next((n for n in self.world.nodes.values() if n.consensus.is_leader), None)
            try:
                if leader is not None:
                    await leader.create(f"w{number}")
                    self.confirmed.add(f"w{number}")
            except RaftError:
                pass
            await asyncio.sleep(0.002)

    async def end(self) -> set[str]:
        self.ended = True
        await self.task
        return self.confirmed


async def test_one_three_five_three_under_writes(world: World):
    (first,) = await world.cluster("a")
    writer = Writer(world)
    for node_id in "bcde":
        await join(world, node_id)
    assert set(first.consensus.members()) == set("abcde")
    # A minority goes without notice and returns.
    lost = [node for node in world.nodes.values() if not node.consensus.is_leader][:2]
    for node in lost:
        await node.stop()
    await create(world, "three of five")
    for node in lost:
        await node.start("resume")
    await leave(world, "a")
    await leave(world, "b")
    await until(lambda: all(world.nodes[gone].consensus.is_removed for gone in "ab"))
    for gone in "ab":
        await world.nodes[gone].stop()
    await create(world, "three")
    await world.nodes["c"].stop()
    await create(world, "two of three")
    await world.nodes_back("c") if hasattr(world, "nodes_back") else None
    confirmed = await writer.end()
    assert len(confirmed) > 20
    left = [world.nodes[node_id] for node_id in "de"]
    assert {frozenset(node.consensus.members()) for node in left} == {frozenset("cde")}
    await until(lambda: all(node.names() >= confirmed for node in left))
