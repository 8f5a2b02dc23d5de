"""The operating system's files, with a disk that fails when it is told to."""

from __future__ import annotations

import os
from pathlib import Path

from raft.files import File, OsFiles

CHANGES = ("create", "write", "sync_data", "sync", "truncate", "rename", "remove", "sync_folder")


class FaultyFiles(OsFiles):
    """`fail` makes operations fail by name, `fail_at` from the n-th on, whatever it is; `heal` ends both."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self._code = 0
        self._failing: set[str] = set()
        self._remaining: int | None = None

    def fail(self, code: int, *operations: str) -> None:
        assert set(operations) <= set(CHANGES)
        self._code, self._failing = code, set(operations)

    def fail_at(self, code: int, count: int) -> None:
        """`count` more operations succeed."""
        self._code, self._remaining = code, count

    def heal(self) -> None:
        self._failing, self._remaining = set(), None

    def operate(self, name: str) -> None:
        if self._remaining is not None:
            self._remaining -= 1
        if name in self._failing or (self._remaining is not None and self._remaining < 0):
            raise OSError(self._code, os.strerror(self._code))
        self.done.append(name)

    def create(self, path: Path) -> File:
        self.operate("create")
        return _FaultyFile(self, super().create(path))

    def open(self, path: Path) -> File:
        return _FaultyFile(self, super().open(path))

    def rename(self, old: Path, new: Path) -> None:
        self.operate("rename")
        super().rename(old, new)

    def remove(self, path: Path) -> None:
        self.operate("remove")
        super().remove(path)

    def sync_folder(self, folder: Path) -> None:
        self.operate("sync_folder")
        super().sync_folder(folder)


class _FaultyFile:
    def __init__(self, files: FaultyFiles, real: File) -> None:
        self._files = files
        self._real = real

    def write(self, data: bytes) -> None:
        try:
            self._files.operate("write")
        except OSError:
            self._real.write(data[: len(data) // 2])  # as far as there was space
            raise
        self._real.write(data)

    def sync_data(self) -> None:
        self._files.operate("sync_data")
        self._real.sync_data()

    def sync(self) -> None:
        self._files.operate("sync")
        self._real.sync()

    def truncate(self, size: int) -> None:
        self._files.operate("truncate")
        self._real.truncate(size)

    def close(self) -> None:
        self._real.close()
