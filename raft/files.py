"""The few file operations that WAL and snapshots are made of: the seam where a simulation puts its own disk.

Every function blocks and raises OSError. Nothing is durable before it was synced: bytes by the file's own
sync, the creation, renaming and removal of names by `sync_folder`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol


class File(Protocol):
    """A file open for appending."""

    def write(self, data: bytes) -> None:
        """All of it, or an error after a part of it."""

    def sync_data(self) -> None:
        """The bytes and the length survive a crash after this."""

    def sync(self) -> None:
        """As `sync_data`, and the rest of the file's description."""

    def truncate(self, size: int) -> None: ...

    def close(self) -> None: ...


class Files(Protocol):
    def make_folder(self, folder: Path) -> None:
        """With its parents, for the owner alone; no error when it is there."""

    def paths(self, folder: Path, pattern: str) -> list[Path]:
        """Sorted; empty when there is no such folder."""

    def read(self, path: Path) -> bytes: ...

    def create(self, path: Path) -> File:
        """Raises FileExistsError."""

    def open(self, path: Path) -> File: ...

    def rename(self, old: Path, new: Path) -> None:
        """Replaces what is there."""

    def remove(self, path: Path) -> None:
        """No error when it is gone already."""

    def sync_folder(self, folder: Path) -> None:
        """Make creations, renames and removals in a folder durable."""


class OsFile:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def sync_data(self) -> None:
        os.fdatasync(self._descriptor)

    def sync(self) -> None:
        os.fsync(self._descriptor)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)

    def close(self) -> None:
        os.close(self._descriptor)


class OsFiles:
    """The operating system's."""

    def make_folder(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def paths(self, folder: Path, pattern: str) -> list[Path]:
        return sorted(folder.glob(pattern))

    def read(self, path: Path) -> bytes:
        return path.read_bytes()

    def create(self, path: Path) -> File:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        return OsFile(os.open(path, flags, 0o600))

    def open(self, path: Path) -> File:
        return OsFile(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC))

    def rename(self, old: Path, new: Path) -> None:
        old.rename(new)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def sync_folder(self, folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


OS_FILES = OsFiles()
