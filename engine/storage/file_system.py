"""What the kernel's table of mounts says about a folder: its file system, and whether something is mounted on it."""

from __future__ import annotations

import os
from pathlib import Path

_DOCKERS_NAMES = {"ext2": "extfs", "ext3": "extfs", "ext4": "extfs", "overlay": "overlayfs"}


def mount_of(folder: Path) -> tuple[str, str]:
    """(type, options of the super block) of the mount that holds the folder; ("unknown", "") when none is found.

    By device number, and where that is not in the table (a btrfs subvolume has its own) by the longest path.
    """
    device = folder.stat().st_dev
    wanted, path = f"{os.major(device)}:{os.minor(device)}", str(folder.resolve())
    best = (-1, "unknown", "")
    for fields in _mounts():
        after = fields.index("-")
        point = _plain(fields[4])
        if path != point and not path.startswith(point.rstrip("/") + "/"):
            continue
        rank = len(point) + (10_000 if fields[2] == wanted else 0)
        if rank >= best[0]:
            best = (rank, fields[after + 1], fields[after + 3])
    return best[1], best[2]


def file_system_name(folder: Path) -> str:
    """As `docker info` names it."""
    kind, _ = mount_of(folder)
    return _DOCKERS_NAMES.get(kind, kind)


def is_mount_point(path: Path) -> bool:
    """Also of a file system that does not answer any more, as FUSE's when its process has died."""
    return any(_plain(fields[4]) == str(path) for fields in _mounts())


def _mounts() -> list[list[str]]:
    """Of the calling thread: copies of files happen in threads with a mount namespace of their own."""
    return [line.split() for line in Path("/proc/thread-self/mountinfo").read_text().splitlines()]


def _plain(point: str) -> str:
    return point.replace("\\040", " ")
