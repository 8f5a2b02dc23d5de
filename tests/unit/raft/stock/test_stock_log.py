"""Holes A and B: entries that match are truncated, acknowledgements and votes count for anybody and any term."""

from __future__ import annotations

import pytest

from raft.messages import VoteAnswer
from tests.unit.raft.stock.engine import EngineWorld
from tests.unit.raft.stock.library import LibraryWorld, set_private
from tests.unit.raft.stock.sides import on_both
from tests.unit.raft.stock.world import World, both_ways

LARGE = 40 * 1024  # two of them fill one of PySyncObj's batches of 64 KiB


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours sends as many bytes at once as PySyncObj does by default, for the same course of messages."""
    monkeypatch.setattr("raft.stock.BATCH_BYTES", 2**16)


# ---- A ----


def leader_that_dies_while_it_repeats_itself(world: World) -> set[int]:
    """No fault but latency: a's batches overtake b's acknowledgements, c is slow. a commits with b, answers its
    clients, and dies. Returns the acknowledged commands that no survivor has."""
    world.start("a", "b", "c")
    world.elect("a")
    world.run(0.5)
    world.hold(("a", "c"), ("b", "a"), ("a", "b"))
    for _ in range(20):
        world.propose("a", LARGE)
    world.run(0.12)
    world.release("a", "b")
    world.hold(("a", "b"))
    # The first acknowledgement takes a back to the second batch, although all are under way.
    world.release("b", "a", 1)
    world.run(0.12)
    world.release("b", "a")
    world.run(0.02)
    assert len(world.acknowledged()) == 20
    # One message more of what a sent meanwhile arrives; the others go down with it.
    world.release("a", "b", 1)
    world.crash("a")
    world.until(world.leaders)
    world.run(1.0)
    assert world.applied("b") == world.applied("c")
    return world.acknowledged() - set(world.applied("b"))


@on_both("lost", stock=set(range(5, 21)), ours=set())
@pytest.mark.usefixtures("small_batches")
def test_a_leader_that_dies_while_it_repeats_itself_takes_acknowledged_commands_along(
    world: World, lost: set[int]
):
    assert leader_that_dies_while_it_repeats_itself(world) == lost


def entries_sent_for_each_written(world: World) -> float:
    """20 large commands over a link whose acknowledgements come one by one, 120 ms apart; nothing is lost."""
    world.start("a", "b", "c")
    world.elect("a")
    world.run(0.5)
    sent_before = entries_sent(world)
    world.hold(("b", "a"))
    for _ in range(20):
        world.propose("a", LARGE)
    world.run(0.12)
    for _ in range(3):
        world.release("b", "a", 1)
        world.run(0.12)
    world.release("b", "a")
    world.run(0.5)
    assert len(world.acknowledged()) == 20
    return (entries_sent(world) - sent_before) / 20


def entries_sent(world: World) -> int:
    """From a to b."""
    if isinstance(world, LibraryWorld):
        sent = [m.get("entries", []) for source, target, m in world.seen if (source, target) == ("a", "b")]
    else:
        assert isinstance(world, EngineWorld)
        seen = world.cluster.seen
        sent = [getattr(m, "entries", ()) for source, target, m in seen if (source, target) == ("a", "b")]
    return sum(len(entries) for entries in sent)


@pytest.mark.usefixtures("small_batches")
def test_a_acknowledgement_takes_the_stock_leader_back_to_what_is_under_way(stock: LibraryWorld):
    assert entries_sent_for_each_written(stock) > 2


@pytest.mark.usefixtures("small_batches")
def test_a_acknowledgement_never_takes_our_leader_back(ours: EngineWorld):
    assert entries_sent_for_each_written(ours) == 1


# ---- B ----


def leader_again_that_hears_an_old_acknowledgement(world: World) -> tuple[int, set[int]]:
    """Five managers. b's acknowledgements of a's first leadership are late; meanwhile e led and replaced those
    entries. Back in the lead, a writes to d only. Then a and d go, a minority. Returns how many of the last
    five commands were acknowledged, and which acknowledged ones no survivor has."""
    world.start(*"abcde")
    world.elect("a")
    world.run(0.5)
    world.hold(("b", "a"))
    world.cut(*both_ways("a", "cde"))
    for _ in range(10):
        world.propose("a")
    world.run(0.2)
    world.elect("e")
    world.run(0.5)
    world.heal()
    world.run(0.5)
    assert world.leaders() == ["e"]
    world.cut(*both_ways("e", "abcd"))
    world.elect("a")
    world.heal()
    world.run(0.5)
    assert world.leaders() == ["a"]
    world.cut(*both_ways("a", "ce"))
    world.hold(("a", "b"))
    last = [world.propose("a") for _ in range(5)]
    world.run(0.2)
    world.release("b", "a")
    world.run(0.2)
    promised = sum(write.acknowledged for write in last)
    world.crash("a")
    world.crash("d")
    world.until(world.leaders)
    world.run(1.0)
    assert world.applied("b") == world.applied("c") == world.applied("e")
    return promised, world.acknowledged() - set(world.applied("b"))


@on_both("promised, lost", stock=(5, set(range(11, 16))), ours=(0, set()))
def test_b_acknowledgement_of_an_older_term_is_credited_to_the_new_one(
    world: World, promised: int, lost: set[int]
):
    assert leader_again_that_hears_an_old_acknowledgement(world) == (promised, lost)


def test_b_answers_of_one_observer_make_a_stock_leader_and_a_second_one_in_its_term(stock: LibraryWorld):
    """The stock transport lets anybody in who says "readonly", and hands on what it says like a member's."""
    stock.start(*"abcde")
    stock.cut(*both_ways("a", "bcde"))
    observer = stock.observer("a")
    set_private(stock.nodes["a"], "raftElectionDeadline", 0.0)
    stock.tick("a")
    term = stock.term("a")
    for _ in range(2):
        stock.transports["a"]._onMessageReceived(observer, {"type": "response_vote", "term": term})
    stock.elect("c")
    assert stock.leaders() == ["a", "c"]
    assert [stock.term(leader) for leader in stock.leaders()] == [term, term]


def test_b_vote_that_arrives_twice_makes_a_stock_leader(stock: LibraryWorld):
    stock.start(*"abcde")
    stock.cut(*both_ways("a", "cde"))
    set_private(stock.nodes["a"], "raftElectionDeadline", 0.0)
    stock.tick("a")
    stock.deliver()
    assert stock.leaders() == []
    stock.inject("b", "a", {"type": "response_vote", "term": stock.term("a")})
    assert stock.leaders() == ["a"]


def test_b_our_leader_needs_a_majority_of_different_members(ours: EngineWorld):
    ours.start(*"abcde")
    ours.cut(*((other, "a") for other in "bcde"))
    candidate = ours.cluster.up["a"].engine
    candidate._election_allowed_in = ours.term("a") + 1
    candidate._election_deadline = 0.0
    candidate.turn()
    term = ours.term("a")
    assert term == 2
    for voter in ("observer", "observer", "another", "b", "b", "b"):
        candidate.receive(voter, VoteAnswer(term, True))
    candidate.turn()
    assert candidate.leader_id() is None
    candidate.receive("c", VoteAnswer(term, True))
    assert candidate.leader_id() == "a"
