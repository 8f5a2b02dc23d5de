"""A snapshot on its way from engine to engine: pieces lost, repeated, out of order, connections and leaders
that change in the middle. The follower ends with the leader's state and never has anything else."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pysyncobj.syncobj
import pytest

from raft import transfers
from raft.messages import Message, SnapshotChunk
from tests.unit.raft.conftest import Cluster, Manager

Tamper = Callable[[SnapshotChunk], list[SnapshotChunk]]


class TamperedCluster(Cluster):
    """What happens to the pieces of snapshots is up to the test."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.tamper: Tamper = lambda chunk: [chunk]
        self.chunks = 0

    def send(self, source: str, target: str, message: Message) -> None:
        sent: list[Message] = [message]
        if isinstance(message, SnapshotChunk):
            self.chunks += 1
            sent = list(self.tamper(message))
        for piece in sent:
            super().send(source, target, piece)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TamperedCluster]:
    """b leads, c follows, a was down while the others compacted what it needs: 17 pieces."""
    monkeypatch.setattr(transfers, "CHUNK_BYTES", 400)
    monkeypatch.setattr(transfers, "WINDOW_BYTES", 1600)
    made = TamperedCluster(tmp_path)
    monkeypatch.setattr(pysyncobj.syncobj, "monotonicTime", lambda: made.now)
    made.snapshot_interval = 50
    made.start("a", "b", "c")
    made.manager("a").crash()
    write(made, 101)
    assert made.leader().log.base > 50
    yield made
    made.close()


def write(cluster: Cluster, count: int) -> None:
    """Twenty at a time."""
    for first in range(0, count, 20):
        leader = cluster.leader()
        outcomes = [
            leader.propose(b"%04d" % number + b"x" * 100) for number in range(first, min(first + 20, count))
        ]
        cluster.until(lambda outcomes=outcomes: all(outcomes))


def bring_back(cluster: TamperedCluster) -> Manager:
    node = cluster.manager("a")
    node.start()
    return node


def catch_up(cluster: TamperedCluster, node: Manager, limit_s: float = 30.0) -> None:
    """Until it has everything; on the way it may only have what the leader had at some time."""
    expected = cluster.leader().commands

    def done() -> bool:
        assert node.commands == expected[: len(node.commands)]
        return len(node.commands) == len(expected)

    cluster.until(done, limit_s)


def nth(position: int, change: Tamper) -> Tamper:
    """Do that to one piece, once."""
    counter = iter(range(position + 1))

    def tamper(chunk: SnapshotChunk) -> list[SnapshotChunk]:
        return change(chunk) if next(counter, None) == position else [chunk]

    return tamper


def damaged(chunk: SnapshotChunk) -> list[SnapshotChunk]:
    return [msgspec.structs.replace(chunk, data=bytes(len(chunk.data)))]


class Swapped:
    """Holds a piece back until the next one has passed."""

    def __init__(self) -> None:
        self.kept: list[SnapshotChunk] = []

    def __call__(self, chunk: SnapshotChunk) -> list[SnapshotChunk]:
        if not self.kept:
            self.kept = [chunk]
            return []
        first, self.kept = self.kept, []
        return [chunk, *first]


@pytest.mark.parametrize("position", [0, 1, 5, 12, 16])
@pytest.mark.parametrize(
    "change", [lambda _: [], lambda chunk: [chunk] * 3, damaged], ids=["lost", "thrice", "bad"]
)
def test_piece_that_is_lost_repeated_or_damaged(cluster: TamperedCluster, position: int, change: Tamper):
    cluster.tamper = nth(position, change)
    catch_up(cluster, bring_back(cluster))
    assert cluster.chunks >= 17


def test_every_piece_repeated(cluster: TamperedCluster):
    cluster.tamper = lambda chunk: [chunk, chunk]
    catch_up(cluster, bring_back(cluster))


def test_pieces_out_of_order_are_sent_again(cluster: TamperedCluster):
    node = bring_back(cluster)
    cluster.tamper = Swapped()
    cluster.run(12.0)
    assert node.commands == []
    cluster.tamper = lambda chunk: [chunk]
    catch_up(cluster, node)


@pytest.mark.parametrize("seed", range(5))
def test_any_mixture_ends_when_the_network_is_well_again(cluster: TamperedCluster, seed: int):
    dice = random.Random(seed)
    kept: list[SnapshotChunk] = []

    def tamper(chunk: SnapshotChunk) -> list[SnapshotChunk]:
        kept.append(chunk)
        return dice.choice(
            [[chunk], [chunk], [chunk], [], [chunk, chunk], [dice.choice(kept), chunk], damaged(chunk)]
        )

    cluster.tamper = tamper
    node = bring_back(cluster)
    cluster.run(30.0)
    cluster.tamper = lambda chunk: [chunk]
    catch_up(cluster, node)


def stop_at(cluster: TamperedCluster, count: int) -> None:
    """Run until so many pieces have been sent; the rest of the window is lost with the connection."""
    target = cluster.chunks + count
    cluster.tamper = lambda chunk: [chunk] if cluster.chunks <= target else []
    cluster.until(lambda: cluster.chunks >= target)


def test_connection_that_breaks_again_and_again(cluster: TamperedCluster):
    node = bring_back(cluster)
    for count in (1, 3, 7, 12):
        stop_at(cluster, count)
        cluster.isolate("a")
        cluster.run(0.05)
        assert node.commands == []
        cluster.heal()
    cluster.tamper = lambda chunk: [chunk]
    catch_up(cluster, node, limit_s=4.0)  # a new connection begins anew, without waiting for the old one


def test_leader_that_goes_in_the_middle(cluster: TamperedCluster):
    """Its successor has another snapshot: pieces of both must not become one."""
    node = bring_back(cluster)
    stop_at(cluster, 9)
    old = cluster.leader()
    other = next(n for n in cluster.up.values() if n not in (old, node))
    other.engine._last_snapshot = 0  # has it make a snapshot of its own at its next turn
    other.engine._snapshot_interval = 1
    cluster.step()
    assert other.stored.meta.index > old.stored.meta.index
    old.crash()
    assert node.commands == []
    cluster.tamper = lambda chunk: [chunk]
    cluster.until(lambda: other.engine.is_leader())
    assert node.commands[: len(other.commands)] == other.commands
    cluster.write(b"by the next")
    cluster.run(0.3)
    assert node.commands == other.commands
    assert len(node.commands) == 102


def test_late_pieces_of_a_former_leader_are_not_taken(cluster: TamperedCluster):
    """They continue what has arrived of the same snapshot from its successor."""
    node = bring_back(cluster)
    pieces: list[SnapshotChunk] = []
    cluster.tamper = lambda chunk: pieces.append(chunk) or []
    cluster.until(lambda: len(pieces) == 4)
    old = cluster.leader()
    other = next(n for n in cluster.up.values() if n not in (old, node))
    cluster.isolate(old.id)
    cluster.until(lambda: len(pieces) == 8)
    late, current = pieces[:4], pieces[4:]
    assert late[0].term < current[0].term == node.engine.term()
    assert late[0].data == current[0].data
    node.engine.receive(other.id, current[0])
    for piece in late[1:]:
        node.engine.receive(old.id, piece)
    assert node.engine._incoming.received == len(current[0].data)
    cluster.tamper = lambda chunk: [chunk]
    cluster.until(other.engine.is_leader)
    assert node.commands == other.commands


def test_follower_that_restarts_in_the_middle(cluster: TamperedCluster):
    node = bring_back(cluster)
    stop_at(cluster, 9)
    node.crash()
    cluster.run(0.2)
    node.start()
    cluster.tamper = lambda chunk: [chunk]
    catch_up(cluster, node)


def test_snapshot_that_is_followed_by_another_during_its_journey(
    cluster: TamperedCluster, monkeypatch: pytest.MonkeyPatch
):
    """What is on its way stays whole, and the log that follows it stays until it has arrived."""
    node = bring_back(cluster)
    installed: list[int] = []
    install = node.engine.install
    monkeypatch.setattr(node.engine, "install", lambda s: (installed.append(s.meta.index), install(s)))
    slow: list[SnapshotChunk] = []

    def one_at_a_time(chunk: SnapshotChunk) -> list[SnapshotChunk]:
        slow.append(chunk)
        return []

    cluster.tamper = one_at_a_time
    cluster.step()
    leader = cluster.leader()
    first = leader.stored.meta.index
    for number in range(60):
        cluster.write(b"meanwhile %d" % number)
        if slow:
            Cluster.send(cluster, leader.id, "a", slow.pop(0))
    assert leader.stored.meta.index > first
    cluster.tamper = lambda chunk: [chunk]
    for chunk in slow:
        Cluster.send(cluster, leader.id, "a", chunk)
    cluster.until(lambda: node.commands == leader.commands)
    assert installed == [first]
