"""Hole E: what PySyncObj's journal and dump keep of what was promised, and what our WAL and snapshots keep.

A kill leaves all that was written, a power cut only what was synced; a file that never was may be empty then.
"""

from __future__ import annotations

import mmap
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pysyncobj.journal import FileJournal

from raft import wal as wal_module
from raft.files import OsFiles
from raft.wal import Entry, Wal, WalDamaged
from tests.sim.disk import Disk
from tests.unit.raft.stock.engine import EngineWorld
from tests.unit.raft.stock.library import LibraryWorld, set_private
from tests.unit.raft.stock.world import Write, both_ways

KEY = b"k" * 32


class Killed(BaseException):
    """The process ends here."""


def stored(folder: Path, **more: Any) -> dict[str, Any]:
    """Settings of a stock node that keeps its journal there."""
    folder.mkdir(exist_ok=True)
    return {"journalFile": str(folder / "journal"), **more}


# ---- term and vote ----


def test_e_stock_manager_forgets_its_vote_in_a_power_cut_and_gives_it_again(
    stock: LibraryWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    stock.per_node = {node: stored(tmp_path / node) for node in "abc"}
    stock.start("a", "b", "c")
    stock.cut(*both_ways("c", "ab"))
    syncs = count_syncs(monkeypatch)
    stock.hold(("a", "b"))
    set_private(stock.nodes["a"], "raftElectionDeadline", 0.0)
    stock.tick("a")
    stock.release("a", "b", 1)
    assert stock.leads("a")
    # b's vote has left and made a leader, and nothing was asked of the disk: what is in the file is luck.
    assert syncs == []
    power_cut(stock, "b", tmp_path / "b" / "journal.meta")
    stock.cut(*both_ways("a", "b"))
    stock.start_one("b", ["a", "c"])
    stock.heal()
    stock.cut(*both_ways("a", "bc"))
    set_private(stock.nodes["c"], "raftElectionDeadline", 0.0)
    stock.tick("c")
    stock.deliver()
    assert stock.leaders() == ["a", "c"]
    assert stock.term("a") == stock.term("c") == 1


def test_e_our_manager_keeps_its_vote_through_a_power_cut(ours: EngineWorld):
    disk = Disk(random.Random(1))
    ours.cluster.manager("b").files = disk
    ours.start("a", "b", "c")
    ours.cut(*both_ways("c", "ab"))
    ours.hold(("a", "b"))
    ours.cluster.up["a"].engine._election_deadline = 0.0
    while not ours.leads("a"):
        ours.step()
        ours.release("a", "b", 1)
    term = ours.term("a")
    ours.crash("b")
    disk.crash()
    ours.cut(*both_ways("a", "b"))
    ours.cluster.manager("b").start()
    assert ours.term("b") == term
    ours.heal()
    ours.cut(*both_ways("a", "bc"))
    ours.elect("c")
    assert ours.term("c") > term


def power_cut(world: LibraryWorld, node: str, never_synced: Path) -> None:
    world.crash(node)
    never_synced.write_bytes(b"")


def count_syncs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Everything by which a program can ask for its bytes to be on the disk."""
    asked: list[str] = []

    class Map(mmap.mmap):
        def flush(self, *args: Any) -> None:
            asked.append("msync")

    def noted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: (asked.append(name), real(*args))[1]

    monkeypatch.setattr(mmap, "mmap", Map)
    for name in ("fsync", "fdatasync", "sync"):
        monkeypatch.setattr(os, name, noted(name, getattr(os, name)))
    return asked


def test_e_stock_manager_confirms_without_ever_asking_the_disk(
    stock: LibraryWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    syncs = count_syncs(monkeypatch)
    stock.per_node = {node: stored(tmp_path / node) for node in "abc"}
    stock.start("a", "b", "c")
    stock.elect("a")
    writes = [stock.propose("a") for _ in range(20)]
    stock.run(5.0)
    assert all(write.acknowledged for write in writes)
    assert syncs == []


def test_e_our_majority_has_synced_before_the_client_hears(
    ours: EngineWorld, monkeypatch: pytest.MonkeyPatch
):
    ours.start("a", "b", "c")
    ours.elect("a")
    ours.run(0.3)
    durable: dict[str, int] = {}
    for node, manager in ours.cluster.up.items():
        monkeypatch.setattr(manager.log._wal, "sync", synced(manager.log._wal, node, durable))
    at_answer: list[list[int]] = []
    for _ in range(20):
        index = ours.cluster.up["a"].log.last + 1
        done = ours.cluster.up["a"].propose(b"1")
        ours.until(lambda done=done: done)
        at_answer.append([index, *sorted(durable.values())])
    assert all(second >= index for index, _, second, _ in at_answer)


def synced(wal: Wal, node: str, durable: dict[str, int]) -> Callable[[], None]:
    real = wal.sync

    def sync() -> None:
        real()
        durable[node] = wal._durable.last

    return sync


# ---- compaction ----


def test_e_stock_compaction_that_is_killed_loses_the_tail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It empties the journal and writes it again, in place: 50 of 100 entries are to stay."""
    left = []
    for killed_at in range(0, 51, 10):
        journal = FileJournal(str(tmp_path / f"journal{killed_at}"))
        for index in range(1, 101):
            journal.add(b"command", index, 1)
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(journal, "add", killed_after(killed_at, journal.add))
            journal.deleteEntriesTo(50)
            raise Killed
        left.append(len(FileJournal(str(tmp_path / f"journal{killed_at}"))))
    assert left == [0, 10, 20, 30, 40, 50]


def killed_after(count: int, real: Callable[..., None]) -> Callable[..., None]:
    calls = iter(range(count))

    def call(*args: Any) -> None:
        if next(calls, None) is None:
            raise Killed
        real(*args)

    return call


class KilledFiles(OsFiles):
    """Ends at its n-th change of the folder."""

    def __init__(self, changes: int) -> None:
        self.remaining = changes

    def remove(self, path: Path) -> None:
        if self.remaining == 0:
            raise Killed
        self.remaining -= 1
        super().remove(path)


def test_e_our_compaction_may_be_killed_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wal_module, "SEGMENT_BYTES", 500)
    removed = 0
    for killed_at in range(100):
        folder = tmp_path / str(killed_at)
        files = KilledFiles(killed_at)
        wal, _ = Wal.open(folder, KEY, "n", files)
        for index in range(1, 101):
            wal.append(Entry(index, 1, b"command"))
            wal.sync()
        try:
            wal.drop_until(50)
        except Killed:
            removed = killed_at
        wal.close()
        recovered, state = Wal.open(folder, KEY, "n")
        recovered.close()
        assert state.last == (100, 1)
        assert [e.index for e in state.entries if e.index > 50] == list(range(51, 101))
        if files.remaining:
            break
    assert removed > 3


# ---- a dump that is ahead of the journal ----


class KillsOnAnswer(Write):
    """The client has its answer, and then the process is gone."""

    def __call__(self, result: Any, reason: int) -> None:
        super().__call__(result, reason)
        raise Killed


def test_e_stock_manager_clears_its_journal_when_the_dump_is_newer(stock: LibraryWorld, tmp_path: Path):
    """Killed after the dump was renamed into place and before the journal was compacted."""
    stock.per_node = {"a": stored(tmp_path, fullDumpFile=str(tmp_path / "dump"), useFork=False)}
    stock.start("a")
    stock.elect("a")
    for _ in range(10):
        stock.propose("a")
    stock.run(0.1)
    stock.nodes["a"].forceLogCompaction()
    for _ in range(5):
        stock.propose("a")
    last = KillsOnAnswer(16)
    stock.nodes["a"].put(16, callback=last)
    with pytest.raises(Killed):
        stock.run(1.0)
    assert (tmp_path / "dump").exists()
    assert stock.acknowledged() == set(range(1, 16))
    assert last.acknowledged
    stock.crash("a")
    stock.start("a")
    stock.elect("a")
    stock.run(1.0)
    assert stock.applied("a") == list(range(1, 11))


def test_e_our_manager_goes_on_from_a_snapshot_that_is_newer_than_its_log(ours: EngineWorld):
    ours.compact_at(10)
    ours.start("a")
    manager = ours.cluster.up["a"]
    manager.engine.turn()
    for _ in range(10):
        ours.propose("a")
    manager.engine.turn()
    assert manager.stored is not None
    assert manager.log.base == 0
    for _ in range(5):
        ours.propose("a")
    manager.engine.turn()
    assert ours.acknowledged() == set(range(1, 16))
    ours.crash("a")
    ours.cluster.later.clear()
    manager.start()
    ours.elect("a")
    assert ours.applied("a") == list(range(1, 16))


# ---- damage ----


def test_e_stock_manager_applies_what_a_flipped_bit_has_made(stock: LibraryWorld, tmp_path: Path):
    stock.per_node = {"a": stored(tmp_path)}
    stock.start("a")
    stock.elect("a")
    for _ in range(6):
        stock.propose("a")
    stock.run(0.5)
    assert stock.applied("a") == [1, 2, 3, 4, 5, 6]
    stock.crash("a")
    flip(tmp_path / "journal", b"K\x05")
    stock.start("a")
    stock.elect("a")
    stock.run(0.5)
    assert stock.applied("a") == [1, 2, 3, 4, 7, 6]
    assert stock.raised == []


def flip(path: Path, place: bytes) -> None:
    """One bit of the second byte of the only such place."""
    data = path.read_bytes()
    assert data.count(place) == 1
    path.write_bytes(data.replace(place, bytes([place[0], place[1] ^ 2])))


def test_e_our_manager_refuses_a_log_with_any_flipped_bit(tmp_path: Path):
    folder = tmp_path / "wal"
    wal, _ = Wal.open(folder, KEY, "n")
    for index in range(1, 7):
        wal.append(Entry(index, 1, b"%d" % index))
        wal.sync()
    wal.close()
    (path,) = folder.glob("*.log")
    data = path.read_bytes()
    second = data.index(b"\xf5swF", data.index(b"\xf5swF") + 1)
    last = data.rindex(b"\xf5swF")
    for position in range(second, last):
        for bit in (1, 2, 128):
            path.write_bytes(data[:position] + bytes([data[position] ^ bit]) + data[position + 1 :])
            with pytest.raises(WalDamaged):
                Wal.open(folder, KEY, "n")


def test_e_stock_manager_takes_a_damaged_meta_file_for_a_new_beginning(tmp_path: Path):
    journal = FileJournal(str(tmp_path / "journal"))
    journal.setCurrentTerm(7, "b")
    (tmp_path / "journal.meta").write_bytes(b"rubbish")
    again = FileJournal(str(tmp_path / "journal"))
    assert (again.getCurrentTerm(), again.getVotedForNodeId()) == (0, None)
