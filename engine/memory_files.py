"""Secrets and configs as files that exist only in memory: one tmpfs per node, a folder per container."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Sequence
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
        """EngineFailure when they do not fit; `remove` takes away what was written by then."""
        self._mounted()
        folder = self._folder / container_id
        folder.mkdir(mode=0o700, exist_ok=True)
        targets = []
        for index, file in enumerate(files):
            path = folder / str(index)
            try:
                _write_owned(path, file)
            except OSError as error:
                raise EngineFailure(
                    f"cannot keep {file.target} of container {container_id[:12]} in memory: {error.strerror} "
                    f"(all secrets and configs of a node share {SIZE_MAX})"
                ) from error
            targets.append((str(path), file.target))
        self._targets[container_id] = targets

    def recover(self, known: Collection[str]) -> None:
        """After a crash: remove the files of containers that are not known."""
        if os.path.ismount(self._folder):
            for folder in self._folder.iterdir():
                if folder.name not in known:
                    self.remove(folder.name)

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


def _write_owned(path: Path, file: SecretFile) -> None:
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as stream:
        stream.write(file.data)
        os.fchown(stream.fileno(), file.uid, file.gid)
        os.fchmod(stream.fileno(), file.mode)
