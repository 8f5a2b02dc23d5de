"""Terminals of containers: a pair whose slave side lives in the container's own devpts.

Blocking but short; called in the supervisor's spawn threads.
"""

from __future__ import annotations

import fcntl
import os
import struct
import termios

import msgspec

from engine.runtime import syscalls
from engine.runtime.syscalls import (
    DEVPTS_SUPER_MAGIC,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    RESOLVE_IN_ROOT,
    TIOCGPTPEER,
    TIOCSPTLCK,
)

_DEVPTS_OPTIONS: dict[str, str | None] = {"newinstance": None, "ptmxmode": "0666", "mode": "0620", "gid": "5"}


class Terminal(msgspec.Struct, frozen=True):
    """`mount` is the detached devpts for a new container, -1 when the container has one already."""

    master: int
    slave: int
    mount: int


def new_terminal(size: tuple[int, int] | None) -> Terminal:
    """A terminal in a devpts of its own, which the container's program mounts at /dev/pts."""
    mount = syscalls.new_mount("devpts", _DEVPTS_OPTIONS, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)
    try:
        ptmx = os.open("ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=mount)
        return _pair(ptmx, size, mount)
    except BaseException:
        os.close(mount)
        raise


def terminal_in(pid: int, size: tuple[int, int] | None) -> Terminal:
    """A further terminal in the devpts of the running container whose first process is `pid`.

    The container may have put anything at /dev/pts: only a real devpts is accepted.
    """
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        folder = syscalls.openat2(root, "dev/pts", os.O_RDONLY | os.O_DIRECTORY, RESOLVE_IN_ROOT)
    finally:
        os.close(root)
    try:
        if syscalls.filesystem_magic(folder) != DEVPTS_SUPER_MAGIC:
            raise OSError(25, "the container has no devpts at /dev/pts: run without a terminal")
        ptmx = os.open("ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=folder)
    finally:
        os.close(folder)
    return _pair(ptmx, size, -1)


def set_size(master: int, rows: int, columns: int) -> None:
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _pair(ptmx: int, size: tuple[int, int] | None, mount: int) -> Terminal:
    try:
        fcntl.ioctl(ptmx, TIOCSPTLCK & 0xFFFFFFFF, struct.pack("i", 0))
        if size is not None:
            set_size(ptmx, *size)
        slave = fcntl.ioctl(ptmx, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except BaseException:
        os.close(ptmx)
        raise
    return Terminal(ptmx, slave, mount)
