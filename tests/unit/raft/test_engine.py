"""The engine message by message: elections, replication, crashes, partitions, snapshots, membership, and the
holes of the stock library that must stay closed."""

from __future__ import annotations

import msgspec
import pytest

from raft import syncobj
from raft.consensus import TICK_S
from raft.messages import Ack, Append, RequestVote, VoteAnswer
from raft.stock import LEADER_CHANGED, NOT_LEADER, SUCCESS, Timings

pytestmark = pytest.mark.usefixtures("no_pickle")


def test_single_member_leads_and_commits_in_its_first_turns(cluster):
    (node,) = cluster.start("a")
    node.engine.turn()
    assert node.engine.is_leader()
    outcome = node.propose(b"x")
    node.engine.turn()
    assert outcome == [(node.machine.applied[-1][0], SUCCESS)]


def test_three_elect_one_leader_and_replicate(cluster):
    cluster.start("a", "b", "c")
    assert cluster.until(lambda: any(n.engine.is_leader() for n in cluster.up.values())) <= 1.2
    cluster.write(b"one")
    cluster.write(b"two")
    cluster.run(0.3)
    assert [n.commands for n in cluster.up.values()] == [[b"one", b"two"]] * 3
    assert len({n.engine.leader_id() for n in cluster.up.values()}) == 1
    assert sum(n.engine.is_leader() for n in cluster.up.values()) == 1


def test_new_leader_within_election_time_and_old_one_catches_up(cluster):
    cluster.start("a", "b", "c")
    cluster.write(b"one")
    old = cluster.leader()
    old.crash()
    assert cluster.until(lambda: any(n.engine.is_leader() for n in cluster.up.values())) <= 1.5
    cluster.write(b"two")
    old.start()
    cluster.until(lambda: old.commands == [b"one", b"two"])


def test_everything_acknowledged_survives_a_crash_of_all(cluster):
    nodes = cluster.start("a", "b", "c")
    for i in range(20):
        cluster.write(b"%d" % i)
    for node in nodes:
        node.crash()
    for node in nodes:
        node.start()
    cluster.until(lambda: all(len(n.commands) == 20 for n in nodes))


def test_cut_leader_steps_down_and_its_proposer_is_told_that_nothing_is_known(cluster):
    cluster.start("a", "b", "c")
    cluster.write(b"one")
    old = cluster.leader()
    cluster.isolate(old.id)
    lost = old.propose(b"lost")
    assert cluster.until(lambda: lost) <= Timings().leader_fallback_s + TICK_S
    assert lost == [(None, LEADER_CHANGED)]
    assert not old.engine.is_leader()
    assert cluster.until(lambda: [n for n in cluster.up.values() if n.engine.is_leader()]) <= 1.0
    cluster.write(b"two")
    cluster.heal()
    cluster.until(lambda: old.commands == [b"one", b"two"])


def test_proposal_on_a_follower_is_refused_as_not_written(cluster):
    cluster.start("a", "b", "c")
    outcome = cluster.followers()[0].propose(b"x")
    cluster.step()
    assert outcome == [(None, NOT_LEADER)]


def test_poisonous_command_is_a_result_and_blocks_nothing(cluster):
    cluster.start("a", "b", "c")
    outcome = cluster.leader().propose(b"poison")
    cluster.until(lambda: outcome)
    assert "could not be applied: poison" in str(outcome[0][0])
    cluster.write(b"next")
    cluster.run(0.3)
    assert all(n.commands == [b"next"] for n in cluster.up.values())


def test_long_backlog_is_applied_over_several_turns(cluster, monkeypatch):
    """One turn for all of it would keep the manager from answering the others."""
    cluster.start("n1", "n2", "n3")
    leader, late = cluster.leader(), cluster.followers()[0]
    late.crash()
    outcomes = [leader.propose(b"command %d" % number) for number in range(40)]
    cluster.until(lambda: all(outcomes))
    monkeypatch.setattr(syncobj, "APPLIED_ENTRIES_MAX", 15)
    late.start()
    turn, sizes = late.engine.turn, []

    def counted() -> None:
        before = len(late.machine.applied)
        turn()
        sizes.append(len(late.machine.applied) - before)

    monkeypatch.setattr(late.engine, "turn", counted)
    cluster.until(lambda: late.commands == leader.commands)
    assert max(sizes) == 15
    assert sum(sizes) == 40
    assert not late.engine.has_more_to_apply()


def test_large_command_goes_through(cluster):
    cluster.start("a", "b", "c")
    cluster.write(b"x" * 1_000_000)
    cluster.run(0.3)
    assert all(len(n.commands[0]) == 1_000_000 for n in cluster.up.values())


# ---- A: matching entries are never truncated ----


def test_repeated_append_neither_truncates_nor_rewinds(cluster):
    cluster.start("a", "b", "c")
    leader = cluster.leader()
    follower = cluster.followers()[0]
    outcomes = [leader.propose(b"%d" % i) for i in range(20)]
    cluster.until(lambda: all(outcomes))
    cluster.run(0.3)
    last = follower.log.last
    term = leader.engine.term()
    base_term = follower.log.term_at(1)
    second = follower.log[2]
    # The first entry again, alone: the stock class cuts everything behind it off.
    follower.engine.receive(leader.id, Append(term, 0, 0, 1, base_term, (second,)))
    assert follower.log.last == last
    follower.engine.turn()
    # An old acknowledgement does not move the leader back either.
    leader.engine.receive(follower.id, Ack(term, 0, 3, True, False, 0))
    assert leader.engine.progress(follower.id) == (last, last)


def test_conflicting_entries_give_way_but_never_committed_ones(cluster):
    cluster.start("a", "b", "c")
    cluster.write(b"one")
    follower = cluster.followers()[0]
    cluster.run(0.3)
    committed = follower.engine.commit_index()
    term = follower.engine.term()
    tail = ((b"\x00" + b"i" * 16 + b"mine", committed + 1, term),)
    follower.engine.receive(
        cluster.leader().id, Append(term, 0, committed, committed, follower.log.term_at(committed), tail)
    )
    other = ((b"\x01", committed + 1, term + 1),)
    new_leader = cluster.followers()[1].id
    follower.engine.receive(
        new_leader, Append(term + 1, 0, committed, committed, follower.log.term_at(committed), other)
    )
    assert follower.log[-1] == other[0]
    bad = ((b"\x01", committed, term + 2),)
    with pytest.raises(AssertionError, match="contradicts committed"):
        follower.engine.receive(
            new_leader,
            Append(term + 2, 0, committed, committed - 1, follower.log.term_at(committed - 1), bad),
        )


# ---- B: acknowledgements and votes count for their term and their member ----


def test_acknowledgement_of_another_term_or_a_stranger_does_not_count(cluster):
    cluster.start("a", "b", "c", "d", "e")
    leader = cluster.leader()
    for node in cluster.followers():
        cluster.partition((node.id, leader.id))
    outcome = leader.propose(b"x")
    cluster.step()
    follower = cluster.followers()[0].id
    ack = Ack(leader.engine.term() - 1, 0, leader.log.last + 1, True, False, 0)
    leader.engine.receive(follower, ack)
    leader.engine.receive("stranger", msgspec.structs.replace(ack, term=leader.engine.term()))
    assert leader.engine.progress(follower)[0] < leader.log.last
    leader.engine.turn()
    assert outcome == []


def test_one_voter_counts_once(cluster):
    cluster.start("a", "b", "c", "d", "e")
    node = cluster.manager("a")
    for other in "bcde":
        cluster.partition((other, "a"))
    term = node.engine.term()
    node.engine._election_allowed_in = term + 1
    node.engine._election_deadline = 0.0
    node.engine.turn()
    assert node.engine.term() == term + 1
    for _ in range(3):
        node.engine.receive("b", VoteAnswer(term + 1, True))
    node.engine.turn()
    assert node.engine.leader_id() is None
    node.engine.receive("c", VoteAnswer(term, True))
    node.engine.receive("stranger", VoteAnswer(term + 1, True))
    assert node.engine.leader_id() is None
    node.engine.receive("c", VoteAnswer(term + 1, True))
    assert node.engine.leader_id() == "a"


def test_vote_is_given_once_per_term_and_kept_over_a_restart(cluster):
    cluster.start("a", "b", "c")
    node = cluster.manager("a")
    cluster.isolate("a")
    cluster.run(1.0)  # long after the last leader was heard
    term = node.engine.term() + 5
    log = node.log
    asked = []
    node.engine._send = lambda target, message: asked.append((target, message))
    node.engine.receive("b", RequestVote(term, log.last, log[-1][2], False))
    node.engine.receive("c", RequestVote(term, log.last, log[-1][2], False))
    assert [(t, m.granted) for t, m in asked] == [("b", True), ("c", False)]
    node.engine.turn()
    node.crash()
    node.start()
    node.engine._send = lambda target, message: asked.append((target, message))
    node.engine.receive("c", RequestVote(term, log.last, log[-1][2], False))
    assert asked[-1] == ("c", VoteAnswer(term, False))


# ---- C: the commit index stays within what was verified ----


def test_heartbeat_does_not_commit_what_was_not_verified(cluster):
    cluster.start("a", "b", "c")
    cluster.write(b"one")
    old = cluster.leader()
    cluster.isolate(old.id)
    for i in range(5):
        old.propose(b"never %d" % i)
    old.engine.turn()
    assert old.log.last > old.engine.commit_index()
    cluster.until(lambda: [n for n in cluster.up.values() if n.engine.is_leader() and n is not old])
    new = next(n for n in cluster.up.values() if n.engine.is_leader() and n is not old)
    for i in range(10):
        outcome = new.propose(b"real %d" % i)
        cluster.until(lambda outcome=outcome: outcome)
    commit = old.engine.commit_index()
    # The new leader's heartbeat with a commit index far behind the common prefix.
    old.engine.receive(
        new.id, Append(new.engine.term(), 0, new.engine.commit_index(), 1, old.log.term_at(1), ())
    )
    assert old.engine.commit_index() == commit
    cluster.heal()
    cluster.until(lambda: old.commands == new.commands)
    assert not [c for c in old.commands if c.startswith(b"never")]


def test_rejoining_leader_that_needs_a_snapshot_applies_nothing_of_its_own(cluster):
    cluster.snapshot_interval = 20
    cluster.start("a", "b", "c")
    cluster.write(b"one")
    old = cluster.leader()
    cluster.isolate(old.id)
    for i in range(3):
        old.propose(b"never %d" % i)
    old.engine.turn()
    cluster.until(lambda: [n for n in cluster.up.values() if n.engine.is_leader() and n is not old])
    new = next(n for n in cluster.up.values() if n.engine.is_leader() and n is not old)
    for i in range(60):
        new.propose(b"real %d" % i)
        cluster.step()
    assert new.log.base > old.log.last
    cluster.heal()
    cluster.until(lambda: old.commands == new.commands)
    assert not [c for c in old.commands if c.startswith(b"never")]


def test_snapshot_that_could_not_be_stored_is_not_acknowledged(cluster):
    cluster.snapshot_interval = 20
    cluster.start("a", "b", "c")
    behind = cluster.followers()[0]
    behind.crash()
    leader = cluster.leader()
    for i in range(60):
        cluster.write(b"%d" % i)
    behind.refuse_snapshots = True
    behind.start()
    cluster.run(2.0)
    assert leader.engine.progress(behind.id)[0] < leader.log.base
    assert behind.commands == []
    behind.refuse_snapshots = False
    cluster.until(lambda: behind.commands == leader.commands, limit_s=15)
    behind.crash()
    behind.start()
    cluster.until(lambda: behind.commands == leader.commands)


# ---- reads ----


def test_barrier_needs_a_majority_that_answers_after_it(cluster):
    cluster.start("a", "b", "c")
    cluster.write(b"one")
    leader = cluster.leader()
    passed: list[int] = []
    leader.engine.barrier(lambda _, reason: passed.append(reason))
    cluster.step()
    assert passed == [SUCCESS]
    cluster.isolate(leader.id)
    stale: list[int] = []
    leader.engine.barrier(lambda _, reason: stale.append(reason))
    cluster.run(0.5)
    assert stale == []
    cluster.until(lambda: stale)
    assert stale == [NOT_LEADER]


# ---- snapshots ----


def test_large_commands_bring_the_snapshot_forward(cluster, monkeypatch):
    monkeypatch.setattr("raft.syncobj.SNAPSHOT_BYTES", 3_000_000)
    monkeypatch.setattr("raft.syncobj.KEPT_BYTES_MAX", 1_500_000)
    (node,) = cluster.start("a")
    for _ in range(10):
        cluster.write(b"x" * 1_000_000)
    assert node.stored is not None
    assert node.log.base >= node.stored.meta.index - 2
    node.crash()
    node.start()
    cluster.leader()
    assert len(node.commands) == 10
