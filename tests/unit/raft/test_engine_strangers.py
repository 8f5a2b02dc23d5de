"""Messages of managers that are not members: none of them may move anything that members decide."""

from __future__ import annotations

import pytest

from raft.messages import (
    Ack,
    AnyMessage,
    PreVote,
    PreVoteAnswer,
    Removed,
    RequestVote,
    TimeoutNow,
    VoteAnswer,
)
from tests.unit.raft.conftest import Cluster, Manager

FUTURE = 1000


def state(node: Manager) -> tuple[object, ...]:
    engine = node.engine
    return (
        *(engine.term(), engine.leader_id(), engine.is_leader(), engine.commit_index(), engine.is_removed()),
        *(engine.configuration, node.log.last, node.log.getVotedForNodeId()),
    )


@pytest.mark.parametrize(
    "message",
    [
        Ack(FUTURE, 0, FUTURE, True, False, 0),
        Ack(2, FUTURE, FUTURE, True, False, 0),
        VoteAnswer(FUTURE, True),
        VoteAnswer(2, True),
        PreVoteAnswer(FUTURE, FUTURE, True),
        PreVoteAnswer(2, 3, True),
        TimeoutNow(FUTURE),
        TimeoutNow(2),
        Removed(FUTURE),
        PreVote(FUTURE, FUTURE, FUTURE),
        RequestVote(FUTURE, FUTURE, FUTURE, False),
    ],
    ids=lambda message: f"{type(message).__name__}-{message.term}",
)
def test_stranger_changes_nothing(cluster: Cluster, message: AnyMessage):
    cluster.start("a", "b", "c")
    cluster.write(b"x")
    cluster.run(0.3)
    assert cluster.leader().engine.term() == 2
    before = {node_id: state(node) for node_id, node in cluster.up.items()}
    for node in cluster.up.values():
        node.engine.receive("stranger", message)
    cluster.run(3.0)
    assert {node_id: state(node) for node_id, node in cluster.up.items()} == before


@pytest.mark.parametrize("message", [TimeoutNow(2), VoteAnswer(2, True)], ids=lambda m: type(m).__name__)
def test_follower_is_not_told_what_to_do_by_another_follower(cluster: Cluster, message: AnyMessage):
    """A hand-over is the leader's to offer."""
    cluster.start("a", "b", "c")
    cluster.write(b"x")
    leader, (one, other) = cluster.leader(), cluster.followers()
    one.engine.receive(other.id, message)
    cluster.run(3.0)
    assert cluster.leader() is leader
    assert leader.engine.term() == 2


def test_removed_manager_is_answered_and_moves_nothing(cluster: Cluster):
    cluster.start("a", "b", "c")
    cluster.write(b"x")
    leader, gone = cluster.leader(), cluster.followers()[0]
    leader.engine.change_configuration(leader.engine.configuration.without_member(gone.id), lambda *_: None)
    cluster.run(0.3)
    before = state(leader)
    for message in (
        RequestVote(FUTURE, FUTURE, FUTURE, True),
        PreVote(FUTURE, FUTURE, FUTURE),
        Ack(FUTURE, 0, 9, True, False, 0),
    ):
        leader.engine.receive(gone.id, message)
        assert leader.engine._outbox == [(gone.id, Removed(leader.engine.term()))]
        leader.engine.turn()
    assert state(leader) == before
