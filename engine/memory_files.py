"""Secrets and configs as files that exist only in memory: one tmpfs per node, a folder per container."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from engine.config import SecretFile
from engine.errors import EngineFailure
from engine.runtime import syscalls

SIZE_MAX = "64m"


class MemoryFiles:
    """Files are 0400-like as asked, owned as asked; the folder is reachable by root only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._targets: dict[str, list[tuple[str, str]]] = {}

    def write(self, container_id: str, files: Sequence[SecretFile]) -> None:
        self._mounted()
        folder = self._folder / container_id
        folder.mkdir(mode=0o700, exist_ok=True)
        targets = []
        for index, file in enumerate(files):
            path = folder / str(index)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                os.write(descriptor, file.data)
                os.fchown(descriptor, file.uid, file.gid)
                os.fchmod(descriptor, file.mode)
            finally:
                os.close(descriptor)
            targets.append((str(path), file.target))
        self._targets[container_id] = targets

    def paths(self, container_id: str) -> Sequence[tuple[str, str]]:
        """(path on the host, target in the container) of each file; empty when there are none."""
        return self._targets.get(container_id, ())

    def remove(self, container_id: str) -> None:
        if self._targets.pop(container_id, None) is not None or (self._folder / container_id).exists():
            shutil.rmtree(self._folder / container_id, ignore_errors=True)

    def close(self) -> None:
        """Unmount when no container uses it any more."""
        if os.path.ismount(self._folder) and not any(self._folder.iterdir()):
            syscalls.umount(str(self._folder))

    def _mounted(self) -> None:
        if os.path.ismount(self._folder):
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            syscalls.mount("tmpfs", str(self._folder), "tmpfs", 0, f"size={SIZE_MAX},mode=0700")
        except OSError as error:
            raise EngineFailure(f"cannot mount a tmpfs for secrets at {self._folder}: {error}") from error
