"""Holes C and D and their neighbours: what is committed without having been compared, clients that are told
something wrong or nothing at all, membership that changes faster than it is agreed on."""

from __future__ import annotations

from typing import Any

import pytest
from pysyncobj.node import Node

from raft.errors import FailedPrecondition
from raft.stock import LEADER_CHANGED, NOT_LEADER
from raft.stock import SUCCESS as DONE
from tests.unit.raft.stock.engine import EngineWorld
from tests.unit.raft.stock.library import LibraryWorld
from tests.unit.raft.stock.sides import on_both
from tests.unit.raft.stock.world import World, Write, both_ways

# ---- C: the commit index of a log that was never compared with the leader's ----


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our snapshot comes in several, as PySyncObj's does."""
    monkeypatch.setattr("raft.snapshot.PIECE_BYTES", 100)


def cut_leader_with_commands_of_its_own(world: World, own: int, others: int) -> list[Write]:
    """a is cut off and goes on accepting commands; b leads the others, and has compacted its log so far that a
    needs the snapshot. Returns what a's clients wrote meanwhile."""
    world.compact_at(others // 2)
    world.start("a", "b", "c")
    world.elect("a")
    world.run(0.5)
    world.isolate("a")
    lost = [world.propose("a") for _ in range(own)]
    world.run(0.2)
    world.elect("b")
    for _ in range(others):
        world.propose("b")
        world.run(0.12)
    world.compact("b")
    return lost


@on_both("promised, applied", stock=(5, {1, 2, 3, 4, 5}), ours=(0, set()))
@pytest.mark.usefixtures("small_pieces")
def test_c_rejoining_leader_applies_and_confirms_what_nobody_else_ever_got(
    world: World, promised: int, applied: set[int]
):
    lost = cut_leader_with_commands_of_its_own(world, own=5, others=30)
    own = {write.number for write in lost}
    ever: set[int] = set()
    world.hold(("b", "a"))
    world.heal()

    def caught_up() -> bool:
        ever.update(world.applied("a"))
        world.release("b", "a", 1)
        return world.applied("a") == world.applied("b")

    world.until(caught_up)
    world.run(1.0)
    assert sum(write.acknowledged for write in lost) == promised
    assert ever & own == applied
    assert world.applied("a") == world.applied("c") == list(range(6, 36))


@pytest.mark.parametrize("serialized", [None, (b"the first piece", True, False)], ids=["heartbeat", "piece"])
def test_c_stock_follower_commits_its_own_log_on_a_message_without_a_position(
    stock: LibraryWorld, serialized: object
):
    """What the leader sends while it writes or sends a snapshot says nothing about the follower's log."""
    lost = cut_leader_with_commands_of_its_own(stock, own=5, others=30)
    message = {
        "type": "append_entries",
        "term": stock.term("b"),
        "commit_index": stock.nodes["b"].raftCommitIndex,
        "serialized": serialized,
    }
    stock.inject("b", "a", message)
    stock.tick("a")
    assert [write.answers for write in lost] == [[(write.number, DONE)] for write in lost]
    assert not set(stock.applied("a")) & set(stock.applied("b"))


@on_both("lost", stock=set(range(91, 96)), ours=set())
def test_c_follower_acknowledges_a_snapshot_that_it_could_not_load(world: World, lost: set[int]):
    """b leads; a, with 60 commands of its own, cannot load b's snapshot. Then c is cut off: b has nobody left
    but a. What b confirms now is gone with it."""
    cut_leader_with_commands_of_its_own(world, own=60, others=30)
    world.refuse_snapshots("a")
    world.heal()
    world.run(2.0)
    world.cut(*both_ways("c", "ab"))
    last = [world.propose("b") for _ in range(5)]
    world.run(0.6)
    promised = {write.number for write in last if write.acknowledged}
    world.crash("b")
    world.refuse_snapshots("a", False)
    world.heal()
    world.until(world.leaders)
    world.run(1.0)
    assert promised - set(world.applied("c")) == lost


# ---- clients that hear nothing ----


def test_clients_of_a_stock_leader_that_was_set_back_by_a_snapshot_never_hear_of_it(stock: LibraryWorld):
    """All of the snapshot arrives between two ticks of a."""
    lost = cut_leader_with_commands_of_its_own(stock, own=5, others=30)
    stock.paused.add("a")
    stock.heal()
    stock.run(2.0)
    stock.paused.clear()
    stock.run(60.0)
    assert stock.applied("a") == stock.applied("b")
    assert [write.answers for write in lost] == [[]] * 5


def test_clients_of_our_leader_are_told_that_nobody_knows(ours: EngineWorld):
    lost = cut_leader_with_commands_of_its_own(ours, own=5, others=30)
    ours.heal()
    ours.run(60.0)
    assert ours.applied("a") == ours.applied("b")
    assert [write.answers for write in lost] == [[(None, LEADER_CHANGED)]] * 5


@on_both("answers", stock=[], ours=[(None, NOT_LEADER)])
def test_client_of_a_follower_whose_connection_broke_gets_an_answer(
    world: World, answers: list[tuple[Any, int]]
):
    world.start("a", "b", "c")
    world.elect("a")
    world.run(0.5)
    world.cut(*both_ways("a", "b"))
    write = world.propose("b")
    world.step()
    world.heal()
    world.run(60.0)
    assert world.leaders() == ["a"]
    assert write.answers == answers


# ---- a command that raises ----


def test_command_that_raises_stops_stock_for_good(stock: LibraryWorld):
    stock.start("a", "b", "c")
    stock.elect("a")
    stock.run(0.5)
    poison = Write(0)
    stock.nodes["a"].put_poison(callback=poison)
    stock.run(0.3)
    write = stock.propose("a")
    stock.run(20.0)
    assert poison.answers == write.answers == []
    assert [stock.applied(node) for node in "abc"] == [[], [], []]
    # The same entry, again in every tick: a leader cannot even send.
    assert len([node for node, err in stock.raised if str(err) == "poison"]) > 1000


def test_command_that_raises_is_a_result_and_stops_nothing_of_ours(ours: EngineWorld):
    ours.start("a", "b", "c")
    ours.elect("a")
    poison = ours.cluster.up["a"].propose(b"poison")
    write = ours.propose("a")
    ours.run(0.5)
    assert "could not be applied: poison" in str(poison[0][0])
    assert write.acknowledged
    assert [ours.applied(node) for node in "abc"] == [[1], [1], [1]]


# ---- D: membership ----


def test_d_three_additions_at_once_split_a_stock_cluster(stock: LibraryWorld):
    stock.settings["dynamicMembershipChange"] = True
    stock.start("a", "b", "c")
    stock.elect("a")
    stock.run(0.5)
    for node in "def":
        stock.start_one(node, [other for other in "abcdef" if other != node])
    stock.cut(*both_ways("b", "adef"), *both_ways("c", "adef"))
    answers = [Write(0) for _ in "def"]
    for node, answer in zip("def", answers, strict=True):
        stock.nodes["a"].addNodeToCluster(Node(node), callback=answer)
    stock.run(0.5)
    assert [answer.answers for answer in answers] == [[(None, DONE)]] * 3
    stock.elect("b")
    left, right = stock.propose("a"), stock.propose("b")
    stock.run(0.5)
    # Two leaders, each with a majority of the members that it knows, and both have told a client "done".
    assert stock.leaders() == ["a", "b"]
    assert left.acknowledged
    assert right.acknowledged
    assert [stock.applied(node) for node in "abcdef"] == [[1], [2], [2], [1], [1], [1]]


def test_d_our_leader_adds_one_at_a_time_and_none_without_its_majority(ours: EngineWorld):
    ours.start("a", "b", "c")
    ours.elect("a")
    ours.run(0.5)
    leader = ours.cluster.up["a"].engine
    for node in "def":
        ours.cluster.manager(node).start()
    ours.cut(*both_ways("b", "adef"), *both_ways("c", "adef"))
    answers: list[int] = []
    leader.change_configuration(
        leader.configuration.with_member("d", "d:2377"), lambda _, reason: answers.append(reason)
    )
    for node in "ef":
        with pytest.raises(FailedPrecondition, match="another change of the managers is in progress"):
            leader.change_configuration(
                leader.configuration.with_member(node, f"{node}:2377"), lambda *_: None
            )
    left = ours.propose("a")
    ours.elect("b")
    right = ours.propose("b")
    ours.run(1.0)
    assert answers == [LEADER_CHANGED]
    assert ours.leaders() == ["b"]
    assert (left.acknowledged, right.acknowledged) == (False, True)
    ours.heal()
    ours.run(1.0)
    assert [ours.applied(node) for node in "abc"] == [[2]] * 3
    assert set(leader.configuration.members) == set("abc")


# ---- leaders that lead no longer ----


def seconds_of_two_leaders(world: World, settle_s: float) -> float:
    """a and b hear each other, b and c as well, a and c do not. c stands for election."""
    world.start("a", "b", "c")
    world.elect("a")
    world.run(0.5)
    world.cut(*both_ways("a", "c"))
    both, start = 0.0, world.now
    while world.now - start < settle_s:
        world.step()
        both += 0.01 * (len(world.leaders()) > 1)
    return both


def test_stock_leader_believes_in_itself_for_half_a_minute(stock: LibraryWorld):
    """b answers neither its outdated appends nor anybody else: only its own time-out ends it."""
    assert 28 < seconds_of_two_leaders(stock, 40.0) < 31


def test_our_leader_is_the_only_one(ours: EngineWorld):
    assert seconds_of_two_leaders(ours, 40.0) == 0


@on_both("least, most", stock=(29.0, 31.0), ours=(0.9, 1.2))
def test_leader_that_is_cut_off_gives_up(world: World, least: float, most: float):
    world.start("a", "b", "c")
    world.elect("a")
    world.run(0.5)
    world.isolate("a")
    assert least < world.until(lambda: not world.leads("a"), limit_s=60) < most


@on_both("leaders", stock=["a", "c"], ours=["c"])
def test_outdated_leader_learns_of_its_successor_from_a_follower(world: World, leaders: list[str]):
    """a comes back, but hears b only. b knows better than to follow it: does it say so?"""
    world.start("a", "b", "c")
    world.elect("a")
    world.run(0.5)
    world.isolate("a")
    world.elect("c")
    assert world.leaders() == ["a", "c"]
    world.heal()
    world.cut(*both_ways("a", "c"))
    world.run(0.3)
    assert world.leaders() == leaders


@on_both("deposed", stock=True, ours=False)
def test_deaf_manager_deposes_a_healthy_leader(world: World, deposed: bool):
    """c hears nobody for a while, and is heard again afterwards."""
    world.start("a", "b", "c")
    world.elect("a")
    world.run(0.5)
    term = world.term("a")
    world.lossy.update(both_ways("c", "ab"))
    world.run(10.0)
    world.lossy.clear()
    world.run(3.0)
    assert (world.term("a") > term) is deposed


# ---- how long a command takes ----


@on_both("ticks", stock=(10, 22), ours=(0, 2))
def test_command_is_confirmed_at_once(world: World, ticks: tuple[int, int]):
    """Over a network without latency, 10 ms per tick; PySyncObj waits for its next heartbeat, twice."""
    world.start("a", "b", "c")
    world.elect("a")
    world.run(0.5)
    write = world.propose("a")
    seconds = world.until(lambda: write.acknowledged)
    assert ticks[0] <= round(seconds / 0.01) <= ticks[1]
