"""Who leads and who belongs, message by message: elections, hand-over, changes of the members."""

from __future__ import annotations

import pytest

from raft.errors import FailedPrecondition
from raft.membership import Configuration
from raft.messages import Ack, PreVote, RequestVote, TimeoutNow
from raft.stock import NOT_LEADER, SUCCESS

pytestmark = pytest.mark.usefixtures("no_pickle")


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
