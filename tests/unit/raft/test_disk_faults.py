"""Disks that are full or fail: nothing is promised meanwhile, nothing promised before is lost, and it goes on."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from raft import snapshot
from raft import wal as wal_module
from raft.errors import Unavailable
from raft.membership import Configuration
from raft.stock import LEADER_CHANGED, SUCCESS
from raft.wal import Entry, Recovered, Truncate, Vote, Wal
from tests.unit.raft.conftest import Cluster, Manager
from tests.unit.raft.faulty_files import FaultyFiles

KEY = b"k" * 32
CODES = pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["full", "broken"])


# ---- the log alone ----


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few entries begin new ones."""
    monkeypatch.setattr(wal_module, "SEGMENT_BYTES", 220)


def on_disk(folder: Path) -> Recovered:
    """What whoever reads the log next finds."""
    again, state = Wal.open(folder, KEY, "n")
    again.close()
    return state


def write_all(wal: Wal, attempts: int) -> int:
    """Ten syncs, each tried again until it works; returns how many failed."""
    failed = 0
    for index in range(1, 11):
        wal.append(Vote(index, f"n{index}"))
        wal.append(Entry(index, index, b"command %d" % index))
        failed += sync_until_it_works(wal, attempts)
    return failed


def sync_until_it_works(wal: Wal, attempts: int) -> int:
    for attempt in range(attempts):
        try:
            wal.sync()
        except OSError:
            assert wal.dirty
        else:
            return attempt
    raise AssertionError("the log does not recover")


class HealsAfter(FaultyFiles):
    """Fails `times` operations in a row and is well again."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def operate(self, name: str) -> None:
        try:
            super().operate(name)
        except OSError:
            self.times -= 1
            if self.times == 0:
                self.heal()
            raise


def operations_of_a_whole_life(folder: Path) -> int:
    files = FaultyFiles()
    wal, _ = Wal.open(folder, KEY, "n", files)
    assert write_all(wal, 1) == 0
    wal.close()
    assert {"create", "write", "sync_data", "sync", "sync_folder"} == set(files.done)
    assert len(list(folder.glob("*.log"))) > 3
    return len(files.done)


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("times", [1, 2, 5])
def test_log_recovers_from_a_failure_of_any_operation(tmp_path: Path, times: int):
    for position in range(operations_of_a_whole_life(tmp_path / "whole")):
        folder, files = tmp_path / str(position), HealsAfter(times)
        files.fail_at(errno.ENOSPC, position)
        try:
            wal, _ = Wal.open(folder, KEY, "n", files)
        except OSError:
            files.heal()
            wal, _ = Wal.open(folder, KEY, "n", files)
        write_all(wal, attempts=times + 1)
        wal.close()
        state = on_disk(folder)
        assert [(e.index, e.term, e.command) for e in state.entries] == [
            (index, index, b"command %d" % index) for index in range(1, 11)
        ], position
        assert (state.term, state.voted_for) == (10, "n10")


@pytest.mark.usefixtures("small_segments")
def test_log_that_is_given_up_at_a_failure_holds_what_was_promised(tmp_path: Path):
    """The process ends while the disk is failing, after two attempts. Whoever reads it next finds all that was
    synced, perhaps the frame that was not, and never a log that it has to refuse."""
    for position in range(operations_of_a_whole_life(tmp_path / "whole")):
        folder, files = tmp_path / str(position), FaultyFiles()
        files.fail_at(errno.EIO, position)
        promised = 0
        try:
            wal, _ = Wal.open(folder, KEY, "n", files)
            for index in range(1, 11):
                wal.append(Entry(index, 1, b"command %d" % index))
                sync_until_it_works(wal, attempts=2)
                promised = index
        except (OSError, AssertionError):
            pass
        state = on_disk(folder)
        assert state.last[0] in (promised, promised + 1), position
        assert [e.command for e in state.entries] == [b"command %d" % i for i in range(1, state.last[0] + 1)]


@CODES
def test_segment_that_could_not_even_be_removed_is_no_obstacle(tmp_path: Path, code: int):
    """A full disk may refuse to delete as well: the half-made segment is still there when space returns."""
    files = FaultyFiles()
    wal, _ = Wal.open(tmp_path, KEY, "n", files)
    wal.append(Entry(1, 1, b"a"))
    wal.sync()
    files.fail(code, "write", "remove")
    wal.append(Entry(2, 1, b"b"))
    for _ in range(3):
        with pytest.raises(OSError):
            wal.sync()
    files.heal()
    wal.sync()
    wal.close()
    state = on_disk(tmp_path)
    assert [e.command for e in state.entries] == [b"a", b"b"]


@CODES
def test_truncation_and_vote_that_failed_are_written_later(tmp_path: Path, code: int):
    files = FaultyFiles()
    wal, _ = Wal.open(tmp_path, KEY, "n", files)
    for index in (1, 2, 3):
        wal.append(Entry(index, 1, b"old"))
    wal.sync()
    files.fail(code, "sync_data")
    wal.append(Truncate(1, 1))
    wal.append(Vote(2, "n2"))
    with pytest.raises(OSError):
        wal.sync()
    wal.append(Entry(2, 2, b"new"))
    with pytest.raises(OSError):
        wal.sync()
    files.heal()
    wal.sync()
    wal.close()
    state = on_disk(tmp_path)
    assert [e.command for e in state.entries] == [b"old", b"new"]
    assert (state.term, state.voted_for) == (2, "n2")


# ---- snapshots ----


def make(index: int) -> snapshot.Snapshot:
    return snapshot.make(index, 2, Configuration({"n": "n:1"}), b"%08d" % index * 300_000)


@CODES
def test_snapshot_that_fails_at_any_operation_leaves_a_readable_one(tmp_path: Path, code: int):
    whole = FaultyFiles()
    snapshot.save(tmp_path / "whole", KEY, make(5), whole)
    snapshot.save(tmp_path / "whole", KEY, make(9), whole)
    assert {"create", "write", "sync_data", "sync", "rename", "sync_folder", "remove"} == set(whole.done)
    for position in range(len(whole.done) // 2 + 1):
        folder, files = tmp_path / str(position), FaultyFiles()
        snapshot.save(folder, KEY, make(5), files)
        files.fail_at(code, position)
        with pytest.raises(OSError):
            snapshot.save(folder, KEY, make(9), files)
        found = snapshot.load_latest(folder, KEY)
        renamed = "rename" in files.done[-position:] if position else False
        assert found in ([make(5), make(9)] if renamed else [make(5)]), position
        files.heal()
        snapshot.save(folder, KEY, make(9), files)
        assert snapshot.load_latest(folder, KEY) == make(9)
        assert [path.suffix for path in folder.iterdir()] == [".snap"]


# ---- managers ----

# What a sync of the log can end with: in the segment as it is, or when a new one is due.
KINDS = pytest.mark.parametrize("kind", ["write", "sync_data", "create", "sync", "sync_folder"])


def faulty(cluster: Cluster, *ids: str) -> dict[str, FaultyFiles]:
    """Managers whose disks can be made to fail; their next frame begins a new segment."""
    disks = {node: FaultyFiles() for node in ids}
    for node, files in disks.items():
        cluster.manager(node).files = files
    return disks


@KINDS
@CODES
def test_sole_manager_confirms_nothing_while_its_disk_fails(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, kind: str, code: int
):
    disks = faulty(cluster, "a")
    (node,) = cluster.start("a")
    cluster.write(b"before")
    monkeypatch.setattr(wal_module, "SEGMENT_BYTES", 100)
    disks["a"].fail(code, kind)
    waiting = node.propose(b"meanwhile")
    cluster.run(5.0)
    assert waiting == [(None, LEADER_CHANGED)]
    assert node.engine.storage_error().errno == code
    assert not node.engine.is_leader()
    with pytest.raises(Unavailable, match="cannot write its log"):
        node.propose(b"refused")
    disks["a"].heal()
    cluster.until(node.engine.is_leader)
    cluster.write(b"after")
    expected = [b"before", b"meanwhile", b"after"]
    assert node.commands == expected
    node.crash()
    node.start()
    cluster.until(lambda: node.commands == expected)


@KINDS
@CODES
def test_leader_whose_disk_fails_gives_way_and_returns(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, kind: str, code: int
):
    disks = faulty(cluster, "a", "b", "c")
    cluster.start("a", "b", "c")
    cluster.write(b"before")
    old = cluster.leader()
    monkeypatch.setattr(wal_module, "SEGMENT_BYTES", 100)
    disks[old.id].fail(code, kind)
    told = old.propose(b"meanwhile")
    cluster.until(lambda: told)
    assert told == [(None, LEADER_CHANGED)]
    assert cluster.leader() is not old
    cluster.write(b"by another")
    votes_before = old.log.getVotedForNodeId()
    cluster.run(2.0)
    assert old.log.getVotedForNodeId() == votes_before
    disks[old.id].heal()
    cluster.until(lambda: old.commands == cluster.leader().commands)
    assert old.commands[0] == b"before"
    assert old.commands[-1] == b"by another"


@KINDS
@CODES
def test_follower_whose_disk_fails_acknowledges_nothing(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, kind: str, code: int
):
    disks = faulty(cluster, "a", "b", "c")
    cluster.start("a", "b", "c")
    cluster.write(b"before")
    cluster.run(0.3)
    leader, (failing, other) = cluster.leader(), cluster.followers()
    monkeypatch.setattr(wal_module, "SEGMENT_BYTES", 100)
    disks[failing.id].fail(code, kind)
    known, _ = leader.engine.progress(failing.id)
    cluster.write(b"two of three")
    cluster.run(2.0)
    assert leader.engine.progress(failing.id)[0] == known
    # Without the third there is no majority, whatever the failing one has in memory.
    other.crash()
    waiting = leader.propose(b"one of three")
    cluster.until(lambda: waiting)
    assert waiting == [(None, LEADER_CHANGED)]
    disks[failing.id].heal()
    assert cluster.leader() is leader
    cluster.write(b"again two")
    cluster.run(0.3)
    assert [c for c in failing.commands if c != b"one of three"] == [b"before", b"two of three", b"again two"]


def test_manager_whose_disk_fails_helps_nobody_to_lead(cluster: Cluster):
    disks = faulty(cluster, "a", "b", "c")
    cluster.start("a", "b", "c")
    cluster.write(b"before")
    leader, (first, second) = cluster.leader(), cluster.followers()
    disks[first.id].fail(errno.EIO, "write", "sync_data")
    cluster.write(b"seen")
    cluster.run(0.3)
    leader.crash()
    cluster.run(20.0)
    assert not any(is_candidate_with_a_vote(node) for node in (first, second))
    disks[first.id].heal()
    cluster.write(b"after")
    assert second.commands == [b"before", b"seen", b"after"]


def is_candidate_with_a_vote(node: Manager) -> bool:
    return node.engine.is_leader() or node.engine.leader_id() is not None


def test_failure_of_the_disk_is_told_as_it_is(cluster: Cluster):
    disks = faulty(cluster, "a")
    (node,) = cluster.start("a")
    cluster.write(b"x")
    disks["a"].fail(errno.ENOSPC, "write")
    outcome = node.propose(b"y")
    cluster.step()
    assert [reason for _, reason in outcome] != [SUCCESS]
    assert str(node.engine.storage_error()) == "[Errno 28] No space left on device"


@CODES
def test_old_segment_that_cannot_be_removed_stops_nobody(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, code: int
):
    monkeypatch.setattr(wal_module, "SEGMENT_BYTES", 400)
    cluster.snapshot_interval = 20
    disks = faulty(cluster, "a")
    (node,) = cluster.start("a")
    disks["a"].fail(code, "remove")
    for number in range(60):
        cluster.write(b"%d" % number)
    assert node.log.base > 20
    before = len(list(node.folder.glob("*.log")))
    node.crash()
    node.start()
    cluster.leader()
    assert len(node.commands) == 60
    disks["a"].heal()
    for number in range(60):
        cluster.write(b"%d" % number)
    assert len(list(node.folder.glob("*.log"))) < before
