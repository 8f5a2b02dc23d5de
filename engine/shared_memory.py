"""/dev/shm of containers whose IPC namespace others may join (`--ipc shareable`): a tmpfs on the host for each.

A container's own /dev/shm is made inside of it and cannot be handed on; these are mounted here while the container
runs. Invariant: a folder below ours exists only while its container may run; `recover` takes what a crash left.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from engine.errors import EngineFailure
from engine.runtime import syscalls

_FLAGS = 0x2 | 0x4 | 0x8  # MS_NOSUID, MS_NODEV, MS_NOEXEC


class SharedMemory:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, container_id: str) -> str:
        """Where it is, "" when it is not."""
        folder = self._folder / container_id
        return str(folder) if os.path.ismount(folder) else ""

    def make(self, container_id: str, size: int, uid: int = 0, gid: int = 0) -> str:
        """A new, empty one. EngineFailure when it cannot be mounted."""
        self.remove(container_id)
        folder = self._folder / container_id
        folder.mkdir(mode=0o700, parents=True)
        try:
            options = f"mode=1777,size={size},uid={uid},gid={gid}"
            syscalls.mount("shm", str(folder), "tmpfs", _FLAGS, options)
        except OSError as error:
            folder.rmdir()
            raise EngineFailure(f"cannot mount a tmpfs for /dev/shm at {folder}: {error.strerror}") from error
        return str(folder)

    def remove(self, container_id: str) -> None:
        """Who has joined keeps it until it ends."""
        folder = self._folder / container_id
        if os.path.ismount(folder):
            syscalls.umount(str(folder), syscalls.MNT_DETACH)
        if folder.is_dir():
            folder.rmdir()

    def recover(self, known: Collection[str]) -> None:
        """After a crash: those of containers that are not known."""
        if self._folder.is_dir():
            for folder in tuple(self._folder.iterdir()):
                if folder.name not in known:
                    self.remove(folder.name)
