"""Verifies the files of a running manager: every frame of its log and snapshots, read-only, in a thread.

`take` notes on the event loop, between two writes, which files there are and how long they are; `verify`
reads exactly that much. So the end of the segment that is being written needs no tolerance: all that was
written by then must be good. Files that are deleted meanwhile, or a write that was caught half way, raise
Moved: take again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from raft import snapshot as snapshots
from raft.errors import RaftError
from raft.files import File
from raft.framing import Damaged, WrongKey
from raft.wal import WalDamaged, check_segment, replay


class Moved(Exception):
    """The files changed while they were read."""


class FileReport(msgspec.Struct, frozen=True):
    """`problem` is "" for a file that is as it was written."""

    name: str
    size: int
    problem: str = ""


class Inventory(msgspec.Struct, frozen=True):
    """Paths and their lengths in bytes at one moment."""

    segments: dict[Path, int]
    snapshots: dict[Path, int]


def take(state_dir: Path) -> Inventory:
    """Cheap; call it where the log is written, so that no write is under way. Raises Moved."""
    return Inventory(
        _sizes(state_dir / "wal", "wal-*.log"), _sizes(state_dir / "snapshots", "snapshot-*.snap")
    )


def verify(
    inventory: Inventory, key: bytes, owner: str, check_state: Callable[[bytes], object]
) -> list[FileReport]:
    """Blocks. `owner`: as the log was opened with; `check_state`: raises RaftError for a state that cannot be
    read. Raises Moved, OSError."""
    frozen = _Frozen(inventory)
    reports = [
        FileReport(path.name, size, _segment_problem(frozen, path, key))
        for path, size in inventory.segments.items()
    ]
    snapshot_index = 0
    for path, size in inventory.snapshots.items():
        problem = ""
        try:
            snapshot = snapshots.load(path, key, frozen)
            check_state(snapshot.data)
            snapshot_index = max(snapshot_index, snapshot.meta.index)
        except (Damaged, WrongKey, RaftError) as error:
            problem = str(error)
        reports.append(FileReport(path.name, size, problem))
    if not any(report.problem for report in reports):
        problem = _log_problem(frozen, inventory, key, owner, snapshot_index)
        if problem:
            reports.append(FileReport("log", sum(inventory.segments.values()), problem))
    return reports


def _segment_problem(frozen: _Frozen, path: Path, key: bytes) -> str:
    """Every frame by itself."""
    try:
        check_segment(frozen.read(path), key)
    except (Damaged, WrongKey) as error:
        return str(error)
    return ""


def _log_problem(frozen: _Frozen, inventory: Inventory, key: bytes, owner: str, snapshot_index: int) -> str:
    """The segments as one log, and whether it goes on where the newest snapshot ends."""
    if not inventory.segments:
        return "there is no log"
    folder = next(iter(inventory.segments)).parent
    try:
        log = replay(folder, key, owner, frozen)
    except (WalDamaged, WrongKey) as error:
        return str(error)
    if log.base > snapshot_index:
        return f"the log begins after entry {log.base}, the newest snapshot ends at {snapshot_index}"
    return ""


def _sizes(folder: Path, pattern: str) -> dict[Path, int]:
    try:
        return {path: path.stat().st_size for path in sorted(folder.glob(pattern))}
    except FileNotFoundError as error:
        raise Moved(str(error)) from error


class _Frozen:
    """raft.files.Files as they were at one moment; nothing can be changed through it."""

    def __init__(self, inventory: Inventory) -> None:
        self._sizes = {**inventory.segments, **inventory.snapshots}
        self._segments: dict[Path, bytes] = {}
        self._inventory = inventory

    def paths(self, folder: Path, pattern: str) -> list[Path]:
        return sorted(path for path in self._sizes if path.parent == folder and path.match(pattern))

    def read(self, path: Path) -> bytes:
        if path in self._segments:
            return self._segments[path]
        try:
            with path.open("rb") as file:
                data = file.read(self._sizes[path])
        except FileNotFoundError as error:
            raise Moved(f"{path.name} was removed") from error
        if path in self._inventory.segments:
            self._segments[path] = data
        return data

    def make_folder(self, folder: Path) -> None:
        raise AssertionError("verifying changes nothing")

    def create(self, path: Path) -> File:
        raise AssertionError("verifying changes nothing")

    def rename(self, old: Path, new: Path) -> None:
        raise AssertionError("verifying changes nothing")

    def sync_folder(self, folder: Path) -> None:
        raise AssertionError("verifying changes nothing")

    def open(self, path: Path) -> File:
        raise AssertionError("a torn end was found before the segments are read as one log")

    def remove(self, path: Path) -> None:
        """What is done at start with a segment that a crash kept from being begun; a running log has none."""
        raise WalDamaged(f"{path.name} was never begun")
