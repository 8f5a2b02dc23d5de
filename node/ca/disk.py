"""Small files that are replaced as a whole: what a node must find again after a crash at any point.

A new content is written beside the old one, made durable, and renamed over it. `Disk` is the seam at which
tests cut the power between any two operations.
"""

from __future__ import annotations

import os
from pathlib import Path


class Disk:
    """The operations, each of them durable or ordered by a later `sync` of the folder. Raise OSError."""

    def write(self, path: Path, data: bytes, mode: int) -> None:
        """A new file with the content on the disk; what was there under that name goes first."""
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        source.rename(target)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def sync(self, folder: Path) -> None:
        """Renames and removals in it survive a crash from here on."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def replace(self, path: Path, data: bytes, mode: int) -> None:
        """The old content or the new one, at every moment; the new one for good when it returns."""
        self.write(beside(path), data, mode)
        self.rename(beside(path), path)
        self.sync(path.parent)


def beside(path: Path) -> Path:
    """Where the next content of a file waits."""
    return path.with_name(path.name + ".new")


DISK = Disk()
