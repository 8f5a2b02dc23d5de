"""The engine message by message: elections, replication, crashes, partitions, snapshots, membership, and the
holes of the stock library that must stay closed."""

from __future__ import annotations

import pickle

import msgspec
import pytest

from raft import syncobj
from raft.consensus import TICK_S
from raft.errors import FailedPrecondition
from raft.membership import Configuration
from raft.messages import Ack, Append, PreVote, RequestVote, TimeoutNow, VoteAnswer
from raft.stock import LEADER_CHANGED, NOT_LEADER, SUCCESS, Timings


@pytest.fixture(autouse=True)
def no_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("pickle was used")

    for name in ("loads", "load", "dumps", "dump", "_loads", "_load"):
        monkeypatch.setattr(pickle, name, refuse)


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


# ---- D: one membership change at a time ----


def test_second_change_is_refused_until_the_first_is_committed(cluster):
    cluster.start("a", "b", "c")
    leader = cluster.leader()
    now = leader.engine.configuration
    done: list[int] = []
    leader.engine.change_configuration(now.with_member("d", "d:1"), lambda _, reason: done.append(reason))
    with pytest.raises(FailedPrecondition, match="in progress"):
        leader.engine.change_configuration(now.with_member("e", "e:1"), lambda _, reason: None)
    cluster.until(lambda: done)
    assert done == [SUCCESS]
    cluster.run(0.3)
    assert all(set(n.engine.configuration.members) == set("abcd") for n in cluster.up.values())


def test_uncommitted_change_is_undone_with_its_entry(cluster):
    cluster.start("a", "b", "c")
    old, gone = cluster.leader(), cluster.followers()[0]
    cluster.isolate(old.id)
    old.engine.change_configuration(old.engine.configuration.without_member(gone.id), lambda _, reason: None)
    old.engine.turn()
    assert set(old.engine.configuration.members) == {"a", "b", "c"} - {gone.id}
    cluster.until(lambda: [n for n in cluster.up.values() if n.engine.is_leader() and n is not old])
    cluster.heal()
    cluster.run(1.0)
    assert all(set(n.engine.configuration.members) == {"a", "b", "c"} for n in cluster.up.values())


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


# ---- elections ----


def test_node_that_was_cut_off_does_not_disturb_when_it_returns(cluster):
    cluster.start("a", "b", "c")
    leader = cluster.leader()
    lonely = cluster.followers()[0]
    term = leader.engine.term()
    cluster.isolate(lonely.id)
    cluster.run(10.0)
    assert lonely.engine.term() == term
    cluster.heal()
    cluster.run(2.0)
    assert (leader.engine.is_leader(), leader.engine.term()) == (True, term)


def test_one_way_cut_follower_does_not_depose_the_leader(cluster):
    cluster.start("a", "b", "c")
    leader = cluster.leader()
    deaf = cluster.followers()[0]
    term = leader.engine.term()
    cluster.partition((leader.id, deaf.id))
    cluster.run(5.0)
    assert (leader.engine.is_leader(), leader.engine.term()) == (True, term)


def test_stale_leader_learns_the_term_and_steps_down(cluster):
    cluster.start("a", "b", "c")
    old = cluster.leader()
    follower = cluster.followers()[0]
    old.engine.receive(follower.id, Ack(old.engine.term() + 1, 0, 0, False, False, 0))
    assert not old.engine.is_leader()


def test_candidate_with_an_older_log_gets_no_vote(cluster):
    cluster.start("a", "b", "c")
    cluster.write(b"one")
    cluster.leader().crash()
    node = next(iter(cluster.up.values()))
    other = next(n for n in cluster.up.values() if n is not node)
    cluster.now += 2.0
    asked = []
    node.engine._send = lambda target, message: asked.append(message)
    node.engine.receive(other.id, PreVote(node.engine.term() + 1, node.log.last - 1, node.log[-1][2]))
    node.engine.receive(other.id, RequestVote(node.engine.term() + 1, 99, node.log[-1][2] - 1, False))
    assert [m.granted for m in asked] == [False, False]


def test_hand_over_is_quick_and_loses_no_proposal(cluster):
    cluster.start("a", "b", "c")
    cluster.write(b"one")
    old = cluster.leader()
    cluster.run(0.2)
    old.engine.hold_proposals(True)
    held = old.propose(b"held")
    assert old.engine.offer_leadership()
    assert any(isinstance(m, TimeoutNow) for _, m in old.engine._outbox)
    assert (
        cluster.until(lambda: any(n.engine.is_leader() and n is not old for n in cluster.up.values())) < 0.1
    )
    assert held == [(None, NOT_LEADER)]


# ---- membership ----


def test_joiner_catches_up_by_snapshot_before_it_counts(cluster):
    cluster.snapshot_interval = 20
    (leader,) = cluster.start("a")
    for i in range(60):
        cluster.write(b"%d" % i)
    joiner = cluster.manager("b")
    joiner.start()
    cluster.run(3.0)
    assert joiner.engine.term() == 0  # nobody asks it, and it does not stand
    leader.engine.add_learner("b", "b:2377")
    cluster.until(lambda: leader.engine.progress("b")[0] == leader.log.last)
    assert leader.engine.configuration.quorum == 1
    done: list[int] = []
    leader.engine.change_configuration(
        leader.engine.configuration.with_member("b", "b:2377"), lambda _, reason: done.append(reason)
    )
    cluster.until(lambda: done)
    cluster.run(0.3)
    assert joiner.commands == leader.commands
    assert (
        joiner.engine.configuration
        == leader.engine.configuration
        == Configuration({"a": "a:2377", "b": "b:2377"})
    )
    assert joiner.peers == {"a": "a:2377"}


def test_joiner_votes_although_the_entry_that_makes_it_a_member_never_reached_it(cluster):
    """The only manager wrote the new configuration and went down before it could send it."""
    cluster.start("a")
    leader, joiner = cluster.leader(), cluster.manager("b")
    joiner.start()
    leader.engine.add_learner("b", "b:2377")
    cluster.until(lambda: leader.engine.progress("b")[0] == leader.log.last)
    cluster.isolate("b")
    wanted = leader.engine.configuration.with_member("b", "b:2377")
    leader.engine.change_configuration(wanted, lambda *_: None)
    leader.engine.turn()
    leader.crash()
    cluster.heal()
    leader.start()
    assert "b" not in joiner.engine.configuration.members
    cluster.write(b"x")
    cluster.run(0.3)
    assert joiner.commands == [b"x"]


def test_new_member_is_elected_by_one_that_has_not_heard_of_it(cluster):
    """Two of three have the entry that makes one a member, the leader is gone: the third, which does not know
    the new member, has to follow it."""
    cluster.start("a", "b")
    leader, other, joiner = cluster.leader(), cluster.followers()[0], cluster.manager("c")
    joiner.start()
    leader.engine.add_learner("c", "c:2377")
    cluster.until(lambda: leader.engine.progress("c")[0] == leader.log.last)
    cluster.partition((leader.id, other.id))
    wanted = leader.engine.configuration.with_member("c", "c:2377")
    leader.engine.change_configuration(wanted, lambda *_: None)
    cluster.step()
    assert "c" in joiner.engine.configuration.members
    leader.crash()
    assert "c" not in other.engine.configuration.members
    assert cluster.leader() is joiner
    cluster.write(b"x")
    cluster.run(0.3)
    assert other.commands == joiner.commands == [b"x"]


def test_removed_member_is_told_and_stays_quiet(cluster):
    cluster.start("a", "b", "c")
    leader = cluster.leader()
    gone = cluster.followers()[0]
    leader.engine.change_configuration(
        leader.engine.configuration.without_member(gone.id), lambda _, reason: None
    )
    cluster.run(0.5)
    assert gone.engine.is_removed()
    term = leader.engine.term()
    cluster.run(3.0)
    assert (leader.engine.is_leader(), leader.engine.term()) == (True, term)
    assert gone.id not in leader.peers
    cluster.write(b"still")


def test_member_removed_while_it_was_down_is_told_when_it_returns(cluster):
    cluster.start("a", "b", "c")
    leader = cluster.leader()
    gone = cluster.followers()[0]
    gone.crash()
    done: list[int] = []
    leader.engine.change_configuration(
        leader.engine.configuration.without_member(gone.id), lambda _, reason: done.append(reason)
    )
    cluster.until(lambda: done)
    gone.start()
    assert not gone.engine.is_removed()
    cluster.run(2.5)
    assert gone.engine.is_removed()
    assert leader.engine.is_leader()


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


# ---- the disk ----


def test_manager_with_a_full_disk_promises_nothing_and_comes_back(cluster, monkeypatch):
    cluster.start("a", "b", "c")
    cluster.write(b"one")
    old = cluster.leader()

    def full() -> None:
        if old.log._wal.dirty:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(old.log._wal, "sync", full)
        lost = old.propose(b"two")
        cluster.until(lambda: lost)
        assert lost == [(None, LEADER_CHANGED)]
        assert old.engine.storage_error() is not None
        cluster.until(lambda: any(n.engine.is_leader() for n in cluster.up.values()))
        assert cluster.leader() is not old
        cluster.write(b"three")
    cluster.until(lambda: old.engine.storage_error() is None)
    cluster.until(lambda: old.commands == cluster.leader().commands)


def test_single_manager_whose_disk_has_healed_does_not_spin(cluster, monkeypatch):
    """It leads again when its election time has come; a turn before that must end."""
    (node,) = cluster.start("a")
    cluster.write(b"x")

    def full() -> None:
        if node.log._wal.dirty:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(node.log._wal, "sync", full)
        outcome = node.propose(b"y")
        cluster.step()
        assert outcome == [(None, LEADER_CHANGED)]
    ticks = []
    tick = node.engine.doTick

    def counted(time_to_wait: float) -> None:
        ticks.append(cluster.now)
        assert len(ticks) < 1000, "the turn never ends"
        tick(time_to_wait)

    monkeypatch.setattr(node.engine, "doTick", counted)
    cluster.run(3.0)
    assert node.engine.is_leader()
    cluster.write(b"z")


def test_nothing_leaves_before_the_vote_is_durable(cluster, monkeypatch):
    cluster.start("a", "b", "c")
    node = cluster.manager("a")
    order: list[str] = []
    real_sync = node.log.sync
    monkeypatch.setattr(node.log, "sync", lambda: (order.append("sync"), real_sync()))
    monkeypatch.setattr(node, "send", lambda target, message: order.append(type(message).__name__))
    cluster.now += 2.0
    node.engine.receive("b", RequestVote(node.engine.term() + 1, 99, 99, False))
    node.engine._election_deadline = cluster.now + 1
    node.engine.turn()
    assert order == ["sync", "VoteAnswer"]
