"""The engine and its disk: what a failing one may be promised, and what must be durable first."""

from __future__ import annotations

import pytest

from raft.messages import RequestVote
from raft.stock import LEADER_CHANGED

pytestmark = pytest.mark.usefixtures("no_pickle")


# ---- the disk ----


def fill_disk(patch, node):
    """What was written cannot be synced while something is unsynced."""

    def full() -> None:
        if node.log._wal.dirty:
            raise OSError(28, "No space left on device")

    patch.setattr(node.log._wal, "sync", full)


def test_manager_with_a_full_disk_promises_nothing_and_comes_back(cluster, monkeypatch):
    cluster.start("a", "b", "c")
    cluster.write(b"one")
    old = cluster.leader()

    with monkeypatch.context() as patch:
        fill_disk(patch, old)
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

    with monkeypatch.context() as patch:
        fill_disk(patch, node)
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
