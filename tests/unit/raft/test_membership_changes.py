"""Managers that come and go: whole managers over socket pairs, written to all the time."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from raft.errors import FailedPrecondition, MaybeCommitted, NotLeader, RaftError, Unavailable
from tests.unit.raft.consensus_world import Node, World, until


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

    async def goes_on(self) -> None:
        """Three more are confirmed."""
        wanted = len(self.confirmed) + 3
        await until(lambda: len(self.confirmed) >= wanted)

    async def end(self) -> set[str]:
        self.ended = True
        await self.task
        return self.confirmed


async def test_one_three_five_three_under_writes(world: World):
    (first,) = await world.cluster("a")
    writer = Writer(world)
    for node_id in "bcde":
        await writer.goes_on()
        await join(world, node_id)
    assert set(first.consensus.members()) == set("abcde")
    # A minority goes without notice and returns.
    lost = [node for node in world.nodes.values() if not node.consensus.is_leader][:2]
    for node in lost:
        await node.stop()
    await writer.goes_on()
    for node in lost:
        await node.start("resume")
    leader = (await world.leader()).consensus
    await until(lambda: all(leader.reachable(node_id) for node_id in "abcde"))
    for gone in "ab":
        await leave(world, gone)
        await until(lambda gone=gone: world.nodes[gone].consensus.is_removed)
        await world.nodes[gone].stop()
        await writer.goes_on()
    c = world.nodes["c"]
    await c.stop()
    await writer.goes_on()
    await c.start("resume")
    confirmed = await writer.end()
    left = [world.nodes[node_id] for node_id in "cde"]
    await until(lambda: all(node.names() >= confirmed for node in left))
    assert [set(node.consensus.members()) for node in left] == [set("cde")] * 3


async def test_changes_asked_for_at_once_are_made_one_by_one(world: World):
    nodes = await world.cluster("a", "b", "c")
    steps: list[set[str]] = []

    def note() -> None:
        members = set(nodes[1].consensus.members())
        if not steps or steps[-1] != members:
            steps.append(members)

    nodes[1].consensus.on_change(note)
    for node_id in ("d", "e"):
        await Node(world, node_id).start("join", nodes[0].consensus.members())
    leader = nodes[0].consensus
    await asyncio.gather(
        leader.add_member("d", "d:2377"), leader.remove_member("c"), leader.add_member("e", "e:2377")
    )
    await until(lambda: set(nodes[1].consensus.members()) == set("abde"))
    await until(lambda: steps and steps[-1] == set("abde"))
    for before, after in zip([set("abc"), *steps], steps, strict=False):
        assert len(before ^ after) <= 1


async def test_change_without_a_majority_is_not_made_and_no_other_is_begun(world: World):
    """The others are cut off while the change is under way: it is undone with the leadership."""
    nodes = await world.cluster("a", "b", "c")
    await Node(world, "d").start("join", nodes[0].consensus.members())
    leader = nodes[0].consensus
    for node in nodes[1:]:
        await node.stop()
    with pytest.raises((MaybeCommitted, FailedPrecondition, NotLeader)):
        await leader.add_member("d", "d:2377")
    with pytest.raises(NotLeader):
        await leader.add_member("e", "e:2377")
    for node in nodes[1:]:
        await node.start("resume")
    await create(world, "on")
    await until(lambda: all("on" in node.names() for node in nodes))
    settled = {frozenset(node.consensus.members()) for node in nodes}
    assert settled in ({frozenset("abc")}, {frozenset("abcd")})


async def test_manager_that_knows_only_who_is_gone_or_has_moved_is_found_by_the_others(world: World):
    """c was down: a has left meanwhile, b has another address, d is new. c's list leads nowhere."""
    nodes = await world.cluster("a", "b", "c")
    await nodes[2].stop()
    await join(world, "d")
    await leave(world, "a")
    await until(lambda: nodes[0].consensus.is_removed)
    await nodes[0].stop()
    await nodes[1].stop()
    nodes[1].config = replace(nodes[1].config, address="moved:9")
    await nodes[1].start("resume")
    # b and d need each other: d only knows b's old address, b dials d.
    leader = await world.leader()
    await leader.consensus.add_member("b", "moved:9")
    await create(world, "meanwhile")
    await nodes[2].start("resume")
    assert nodes[2].consensus.members() == {"a": "a:2377", "b": "b:2377", "c": "c:2377"}
    await until(lambda: "meanwhile" in nodes[2].names())
    assert nodes[2].consensus.members() == {"b": "moved:9", "c": "c:2377", "d": "d:2377"}


async def test_joiner_that_was_given_an_outdated_list_joins_all_the_same(world: World):
    nodes = await world.cluster("a", "b", "c")
    late = Node(world, "d")
    await late.start("join", {"gone": "gone:1", "a": "elsewhere:1"})
    await nodes[0].consensus.add_member("d", "d:2377")
    await create(world, "x")
    await until(lambda: late.names() == {"x"})
    assert late.consensus.members() == nodes[0].consensus.members()


async def test_removed_machine_joins_again_as_a_new_node(world: World):
    nodes = await world.cluster("a", "b", "c")
    await nodes[0].consensus.remove_member("c")
    await until(lambda: nodes[2].consensus.is_removed)
    await nodes[2].stop()
    again = Node(world, "c2")
    again.config = replace(again.config, address="c:2377")
    await again.start("join", nodes[0].consensus.members())
    await nodes[0].consensus.add_member("c2", "c:2377")
    await nodes[2].start("resume")  # the old one, with its old state, is no longer heard
    await create(world, "x")
    await until(lambda: again.names() == {"x"})
    assert "x" not in nodes[2].names()
    assert set(nodes[0].consensus.members()) == {"a", "b", "c2"}


async def test_joiner_that_hears_but_is_not_heard_is_refused(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("raft.consensus.JOINER_CONTACT_TIMEOUT_S", 0.2)
    (node,) = await world.cluster("a")
    mute = Node(world, "b")
    await mute.start("join", node.consensus.members())
    monkeypatch.setattr(mute.consensus, "send", lambda *_: None)
    with pytest.raises(Unavailable, match="manager b at b:2377 cannot be reached"):
        await node.consensus.add_member("b", "b:2377")
    assert node.consensus.members() == {"a": "a:2377"}
    await node.create("still")
