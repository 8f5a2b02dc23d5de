"""A disk in memory that forgets at a crash what was not synced, and fails or stops when it is told to.

A file is its page cache and its durable bytes; a folder's names become durable in the order in which they
were changed, as on a journalling file system. At a crash a part of what was not synced survives: any prefix
of the folder's changes, any prefix of a file's new bytes, perhaps with rubbish behind it.
"""

from __future__ import annotations

import errno
import fnmatch
import random
from pathlib import Path

SYNC_S = 0.0002


class PowerCut(BaseException):
    """The node ends in the middle of a file operation. Not an Exception: nothing may handle it."""


class _Inode:
    def __init__(self) -> None:
        self.cached = bytearray()
        self.durable = b""


class Disk:
    """Implements raft.files.Files. Flat: folders only exist as parts of paths."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.failing = False
        self.cut_after: int | None = None  # operations until the power is cut
        self.is_off = False
        self.sync_s = SYNC_S
        self.waited_s = 0.0  # time the operations have taken since somebody reset it
        self._names: dict[Path, _Inode] = {}
        self._durable_names: dict[Path, _Inode] = {}
        self._changes: list[dict[Path, _Inode | None]] = []  # each happens as a whole or not at all

    # ---- raft.files.Files ----

    def make_folder(self, folder: Path) -> None:
        """There are none to make."""

    def paths(self, folder: Path, pattern: str) -> list[Path]:
        return sorted(p for p in self._names if p.parent == folder and fnmatch.fnmatch(p.name, pattern))

    def read(self, path: Path) -> bytes:
        return bytes(self._names[path].cached)

    def create(self, path: Path) -> DiskFile:
        self.operate()
        if path in self._names:
            raise FileExistsError(path)
        self._change({path: _Inode()})
        return self.open(path)

    def open(self, path: Path) -> DiskFile:
        return DiskFile(self, self._names[path])

    def rename(self, old: Path, new: Path) -> None:
        self.operate()
        self._change({new: self._names[old]})
        self._change({old: None})

    def remove(self, path: Path) -> None:
        self.operate(may_fail=False)
        if path in self._names:
            self._change({path: None})

    def sync_folder(self, folder: Path) -> None:
        self.operate(syncs=True)
        self._durable_names = dict(self._names)
        self._changes.clear()

    # ---- whole folders, as node.raft_folder exchanges them ----

    def erase(self, folder: Path) -> None:
        """Remove everything below it."""
        self.operate(may_fail=False)
        self._change(dict.fromkeys(self._below(folder)))

    def replace_folder(self, old: Path, new: Path) -> None:
        """`new` takes the place of `old`, all or nothing at every moment; durable when this returns."""
        self.operate()
        moved = {old / path.relative_to(new): self._names[path] for path in self._below(new)}
        gone = [*self._below(old), *self._below(new)]
        self._change({**dict.fromkeys(gone), **moved})
        self.sync_folder(old.parent)

    def _below(self, folder: Path) -> list[Path]:
        return [path for path in self._names if folder in path.parents]

    # ---- faults ----

    def lose_everything(self) -> None:
        self._names, self._durable_names, self._changes = {}, {}, []

    def operate(self, syncs: bool = False, may_fail: bool = True) -> None:
        """One step of the disk. Raises PowerCut or OSError when it is time for that."""
        if self.cut_after is not None:
            self.cut_after -= 1
            self.is_off = self.is_off or self.cut_after < 0
        if self.is_off:
            # Whoever called may swallow it, as a task does: the node ends when its callback is over.
            raise PowerCut
        if syncs:
            self.waited_s += self.sync_s
        if self.failing and may_fail:
            raise OSError(errno.EIO, "simulated")

    def turn_byte(self, path: Path, offset: int) -> None:
        """One bit of what is durable is not what was written."""
        inode = self._names[path]
        for data in (inode.cached, rotten := bytearray(inode.durable)):
            data[offset] ^= 1 << self.dice.randrange(8)
        inode.durable = bytes(rotten)

    def spare(self) -> None:
        """The power is not cut after all."""
        self.cut_after = None

    def quicken(self) -> None:
        self.sync_s = SYNC_S

    def heal(self) -> None:
        self.failing = False
        self.spare()
        self.quicken()

    def crash(self) -> None:
        """Only what was synced is left, and by chance more."""
        dice = self.dice
        for change in self._changes[: dice.randint(0, len(self._changes))]:
            _put(self._durable_names, change)
        self._changes.clear()
        self._names = dict(self._durable_names)
        for path in sorted(self._names):
            _forget(self._names[path], dice)
        self.cut_after = None
        self.is_off = False

    def _change(self, change: dict[Path, _Inode | None]) -> None:
        _put(self._names, change)
        self._changes.append(change)


class DiskFile:
    def __init__(self, disk: Disk, inode: _Inode) -> None:
        self._disk = disk
        self._inode = inode

    def write(self, data: bytes) -> None:
        try:
            self._disk.operate()
        except (PowerCut, OSError):
            self._inode.cached += data[: self._disk.dice.randint(0, len(data))]
            raise
        self._inode.cached += data

    def sync_data(self) -> None:
        self.sync()

    def sync(self) -> None:
        self._disk.operate(syncs=True)
        self._inode.durable = bytes(self._inode.cached)

    def truncate(self, size: int) -> None:
        self._disk.operate()
        del self._inode.cached[size:]

    def close(self) -> None:
        """Closing makes nothing durable."""


def _put(names: dict[Path, _Inode], change: dict[Path, _Inode | None]) -> None:
    for path, inode in change.items():
        if inode is None:
            names.pop(path, None)
        else:
            names[path] = inode


def _forget(inode: _Inode, dice: random.Random) -> None:
    durable, cached = inode.durable, bytes(inode.cached)
    if not cached.startswith(durable):
        # A truncation that was not synced: it has reached the disk or not.
        survived = dice.choice([durable, cached])
    else:
        kept = dice.randint(len(durable), len(cached)) if dice.random() < 0.7 else len(durable)
        rubbish = dice.randint(0, len(cached) - kept) if dice.random() < 0.3 else 0
        survived = cached[:kept] + bytes(rubbish)
    inode.cached, inode.durable = bytearray(survived), survived
