"""State files of the data plane."""

from __future__ import annotations

from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """A reader finds the old content or the new one, whenever the daemon is killed."""
    temporary = path.with_suffix(".new")
    temporary.write_bytes(data)
    temporary.rename(path)
