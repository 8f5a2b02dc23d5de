"""A member that lost its log: it goes, by the others' agreement alone, and comes again as if it were new."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from raft.config import ConsensusConfig, wal_dir
from raft.consensus import Consensus
from raft.errors import FailedPrecondition, NotLeader
from raft.founding import found, prepare_joiner
from raft.framing import WrongKey
from raft.log import Log
from raft.membership import Configuration
from raft.messages import Ack, Append, PreVote, Removed, RequestVote, VoteAnswer
from raft.replication import MEMBERSHIP
from raft.stock import SUCCESS
from raft.wal import Wal, WalDamaged
from tests.unit.raft.conftest import KEY, Cluster
from tests.unit.raft.consensus_world import Node, World, until


async def lose_and_return(node: Node, leader: Node) -> None:
    shutil.rmtree(node.config.state_dir)
    term = await leader.consensus.expel_member(node.id)
    assert node.id not in leader.consensus.members()
    prepare_joiner(node.config, term, leader.id)
    await node.start("resume")
    await leader.consensus.add_member(node.id, node.config.address)


async def test_member_that_lost_its_log_is_taken_in_again_with_everything(world: World):
    nodes = await world.cluster("a", "b", "c")
    for i in range(60):
        await nodes[0].create(f"s{i}")
    await nodes[2].stop()
    await lose_and_return(nodes[2], nodes[0])
    assert set(nodes[0].consensus.members()) == {"a", "b", "c"}
    await until(lambda: nodes[2].names() == nodes[0].names())
    await until(lambda: "c" in nodes[2].consensus.members())
    assert not nodes[2].consensus.is_removed
    # It counts again: with one of the others gone there is a majority only with it.
    await nodes[1].stop()
    await nodes[0].create("with c")
    await until(lambda: "with c" in nodes[2].names())


async def test_expelling_twice_is_the_same_and_a_removed_member_may_come_again_without_its_log(world: World):
    nodes = await world.cluster("a", "b", "c")
    await nodes[2].stop()
    await nodes[0].consensus.remove_member("c")
    with pytest.raises(FailedPrecondition, match="was removed"):
        await nodes[0].consensus.add_member("c", "c:2377")
    await nodes[0].consensus.expel_member("c")
    await lose_and_return(nodes[2], nodes[0])
    await until(lambda: "c" in nodes[2].consensus.members() and not nodes[2].consensus.is_removed)


async def test_without_a_quorum_of_the_others_it_stays_and_the_words_say_why(world: World):
    nodes = await world.cluster("a", "b", "c")
    await nodes[1].stop()
    await until(lambda: not nodes[0].consensus.reachable("b"))
    with pytest.raises(
        FailedPrecondition, match="manager c has lost its log and can't be taken in again: only 1"
    ):
        await nodes[0].consensus.expel_member("c")
    assert "c" in nodes[0].consensus.members()
    with pytest.raises(NotLeader):
        await nodes[2].consensus.expel_member("b")


async def test_last_manager_is_not_expelled(world: World):
    (node,) = await world.cluster("a")
    with pytest.raises(FailedPrecondition, match="last manager"):
        await node.consensus.expel_member("a")


async def test_missing_log_beside_a_snapshot_is_damage(world: World):
    (node,) = await world.cluster("a")
    for i in range(60):
        await node.create(f"s{i}")
    await until(lambda: list((node.config.state_dir / "snapshots").glob("*.snap")))
    await node.stop()
    shutil.rmtree(wal_dir(node.config))
    for _ in range(2):
        with pytest.raises(WalDamaged, match="no log"):
            Consensus.resume(node.config, node.store, node)


async def test_damaged_beginning_of_one_file_is_no_wrong_key(world: World):
    (node,) = await world.cluster("a")
    await node.stop()
    await node.start("resume")
    await node.stop()
    path = min(wal_dir(node.config).glob("wal-*.log"))
    data = bytearray(path.read_bytes())
    data[20] ^= 1  # the salt
    path.write_bytes(data)
    for _ in range(2):
        with pytest.raises(WalDamaged, match="it opens other files"):
            Consensus.resume(node.config, node.store, node)
    with pytest.raises(WrongKey):
        Consensus.resume(replace(node.config, key=b"x" * 32), node.store, node)


def test_half_of_what_is_founded_is_refused(tmp_path: Path):
    config = ConsensusConfig("a", "a:1", "c1", tmp_path, KEY)
    found(config, b"state", 50, 3)
    shutil.rmtree(tmp_path / "snapshots")
    with pytest.raises(WalDamaged):
        Consensus.resume(config, None, None)  # type: ignore[arg-type]


# ---- votes and acknowledgements of the former life ----


def expel(cluster: Cluster, node_id: str) -> None:
    done: list[int] = []
    leader = cluster.leader().engine
    leader.change_configuration(
        leader.configuration.without_trace_of(node_id), lambda _, reason: done.append(reason)
    )
    cluster.until(lambda: done)
    assert done == [SUCCESS]


def forget(cluster: Cluster, node_id: str, term: int, leader_id: str) -> None:
    """The node's disk is empty but for what the answer of the leader told it."""
    node = cluster.manager(node_id)
    shutil.rmtree(node.folder)
    node.stored = None
    wal, state = Wal.open(node.folder, KEY, node_id)
    log = Log(wal, state)
    log.setCurrentTerm(term, leader_id)
    log.sync()
    log.close()


def test_next_life_votes_in_no_term_of_the_former_one(cluster: Cluster):
    cluster.start("a", "b", "c")
    leader = cluster.leader()
    lost = cluster.followers()[0]
    lost.crash()
    expel(cluster, lost.id)
    term = leader.engine.term()
    forget(cluster, lost.id, term, leader.id)
    lost.start()
    cluster.seen.clear()
    rival = next(node for node in cluster.up.values() if node not in (leader, lost))
    lost.engine.receive(rival.id, RequestVote(term, 10**6, term, True))
    cluster.run(0.05)
    votes = [m for source, _, m in cluster.seen if source == lost.id and isinstance(m, VoteAnswer)]
    assert [vote.granted for vote in votes] == [False]


def test_acknowledgement_of_an_expelled_member_counts_for_nothing(cluster: Cluster):
    cluster.start("a", "b", "c")
    cluster.write(b"one")
    leader = cluster.leader()
    lost, other = cluster.followers()
    lost.crash()
    expel(cluster, lost.id)
    assert lost.id not in leader.peers
    cluster.isolate(other.id)
    outcome = leader.propose(b"two")
    leader.engine.turn()
    leader.engine.receive(lost.id, Ack(leader.engine.term(), 1, 10**6, True, False, 0))
    leader.engine.turn()
    assert outcome == []


def test_stale_word_of_removal_does_not_stop_a_member_that_was_taken_in_again(cluster: Cluster):
    cluster.start("a", "b", "c")
    leader = cluster.leader()
    again, slow = cluster.followers()
    removed_at = leader.engine._log.last + 1
    leader.engine.change_configuration(
        leader.engine.configuration.without_member(again.id), lambda _, reason: None
    )
    cluster.until(lambda: again.engine.is_removed())
    again.crash()
    cluster.isolate(slow.id)
    cluster.heal()
    expel(cluster, again.id)
    forget(cluster, again.id, leader.engine.term(), leader.id)
    again.start()
    leader.engine.add_learner(again.id, f"{again.id}:2377")
    cluster.run(1.0)
    wanted = leader.engine.configuration.with_member(again.id, f"{again.id}:2377")
    leader.engine.change_configuration(wanted, lambda _, reason: None)
    cluster.until(lambda: again.engine.committed_configuration() == wanted)
    again.engine.receive(slow.id, Removed(leader.engine.term(), removed_at))
    assert not again.engine.is_removed()
    assert again.engine._may_vote()


def test_leader_that_was_removed_once_is_heard_by_whoever_has_the_entry_that_took_it_in(cluster: Cluster):
    cluster.start("a", "b", "c")
    leader = cluster.leader()
    gone, slow = cluster.followers()
    wanted = leader.engine.configuration
    leader.engine.change_configuration(wanted.without_member(gone.id), lambda _, reason: None)
    cluster.until(lambda: gone.id in slow.engine.committed_configuration().removed)
    engine = slow.engine
    index, term = engine._log.last + 1, engine.term() + 1
    taken_in = MEMBERSHIP + wanted.encode(), index, term
    old = engine._log[-1]
    engine.receive(leader.id, Append(term, 1, engine.commit_index(), old[1], old[2], (taken_in,)))
    assert gone.id in engine.committed_configuration().removed
    engine.receive(gone.id, Append(term + 1, 1, index, index, term, ()))
    assert engine.committed_configuration() == wanted
    assert engine.leader_id() == gone.id


def test_manager_that_knows_only_of_the_removal_answers_the_candidate_all_the_same(cluster: Cluster):
    cluster.start("a", "b", "c")
    leader = cluster.leader()
    gone, slow = cluster.followers()
    leader.engine.change_configuration(
        leader.engine.configuration.without_member(gone.id), lambda _, reason: None
    )
    cluster.until(lambda: gone.id in slow.engine.committed_configuration().removed)
    leader.crash()
    cluster.run(1.0)
    cluster.seen.clear()
    slow.engine.receive(gone.id, PreVote(slow.engine.term() + 1, 10**6, 10**6))
    cluster.run(0.05)
    answers = [type(message).__name__ for source, _, message in cluster.seen if source == slow.id]
    assert "Removed" in answers and "PreVoteAnswer" in answers


def test_leader_that_was_removed_by_another_life_of_the_cluster_steps_down(cluster: Cluster):
    """As after --force-new-cluster on one, when the two others come back and elect one of themselves."""
    cluster.start("a", "b", "c")
    leader = cluster.leader()
    other = cluster.followers()[0]
    leader.engine.receive(other.id, Removed(leader.engine.term(), 0))
    assert leader.engine.is_leader(), "an older entry says nothing about a newer one"
    leader.engine.receive(other.id, Removed(leader.engine.term(), 10**6))
    assert not leader.engine.is_leader()
    cluster.run(3.0)
    assert not leader.engine.is_leader()
    assert leader.engine.is_removed()


def test_trace_is_neither_membership_nor_removal():
    three = Configuration({"a": "a:1", "b": "b:1", "c": "c:1"}, ("x",))
    assert three.without_trace_of("c") == Configuration({"a": "a:1", "b": "b:1"}, ("x",))
    assert three.without_trace_of("x").removed == ()
    assert three.without_trace_of("stranger") == three
