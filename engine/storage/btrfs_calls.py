"""The ioctls of btrfs that the driver needs: subvolumes, snapshots, quota groups. Source: linux/btrfs.h.

OSError as the kernel says it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from engine.runtime.syscalls import filesystem_magic

BTRFS_SUPER_MAGIC = 0x9123683E
_SUBVOL_CREATE, _SNAP_DESTROY, _SNAP_CREATE_V2 = 0x5000940E, 0x5000940F, 0x50009417
_QUOTA_CTL, _QGROUP_LIMIT, _QUOTA_RESCAN_WAIT = 0xC0109428, 0x8030942B, 0x942E
_QUOTA_ENABLE, _LIMIT_MAX_REFERENCED = 1, 1


def is_btrfs(folder: Path) -> bool:
    with _opened(folder) as descriptor:
        return filesystem_magic(descriptor) == BTRFS_SUPER_MAGIC


def create_subvolume(path: Path) -> None:
    with _opened(path.parent) as parent:
        _call(parent, _SUBVOL_CREATE, struct.pack("q4088s", 0, os.fsencode(path.name)))


def snapshot(source: Path, target: Path) -> None:
    """Writable, and as the source was at one moment."""
    with _opened(target.parent) as parent, _opened(source) as origin:
        _call(parent, _SNAP_CREATE_V2, struct.pack("qQQ32x4040s", origin, 0, 0, os.fsencode(target.name)))


def delete_subvolume(path: Path) -> None:
    """Fails when there are subvolumes in it."""
    with _opened(path.parent) as parent:
        _call(parent, _SNAP_DESTROY, struct.pack("q4088s", 0, os.fsencode(path.name)))


def enable_quota(folder: Path) -> None:
    """On the whole file system; does nothing when they are on."""
    with _opened(folder) as descriptor:
        _call(descriptor, _QUOTA_CTL, struct.pack("QQ", _QUOTA_ENABLE, 0))
        fcntl.ioctl(descriptor, _QUOTA_RESCAN_WAIT)


def limit_subvolume(path: Path, size: int) -> None:
    """The bytes that it refers to, shared ones included."""
    with _opened(path) as descriptor:
        _call(descriptor, _QGROUP_LIMIT, struct.pack("QQQQQQ", 0, _LIMIT_MAX_REFERENCED, size, 0, 0, 0))


def _call(descriptor: int, request: int, arguments: bytes) -> None:
    fcntl.ioctl(descriptor, request, bytearray(arguments))


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
