"""The vfs driver: no union, every layer and container is a whole copy. Works on any file system, slowly."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from engine.errors import EngineFailure, NotFound
from engine.storage.driver import ADDED, DELETED, MODIFIED, Rootfs
from engine.storage.layer_tree import LayerUnpacker, sync_tree, tree_bytes
from engine.storage.tree_copy import copy_tree


class VfsDriver:
    name = "vfs"

    def __init__(self, root: Path) -> None:
        self._layers = root / "layers"
        self._containers = root / "containers"
        self._tmp = root / "tmp"
        for folder in (self._layers, self._containers, self._tmp):
            folder.mkdir(mode=0o710, parents=True, exist_ok=True)

    def has_layer(self, chain_id: str) -> bool:
        return self._layer(chain_id).is_dir()

    def add_layer(self, chain_id: str, parent: str | None, tar: BinaryIO) -> int:
        if self.has_layer(chain_id):
            return 0
        if parent is not None and not self.has_layer(parent):
            raise EngineFailure(f"layer {chain_id} stands on {parent}, which is not here")
        building = self._tmp / secrets.token_hex(8)
        building.mkdir(mode=0o755)
        try:
            if parent is not None:
                copy_tree(self._layer(parent), building)
            size = LayerUnpacker(building, "apply").unpack(tar)
            sync_tree(building)
            with contextlib.suppress(FileExistsError):
                building.rename(self._layer(chain_id))
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return size

    def remove_layer(self, chain_id: str) -> bool:
        """Copies stand on their own: a layer can always go."""
        self._discard(self._layer(chain_id))
        return True

    def create_rootfs(self, container_id: str, top_layer: str | None) -> Rootfs:
        folder = self._containers / container_id
        root = folder / "root"
        root.mkdir(mode=0o755, parents=True)
        (folder / "base").write_text(top_layer or "")
        if top_layer is not None:
            copy_tree(self._layer(top_layer), root)
        return Rootfs(upper=str(root))

    def rootfs(self, container_id: str) -> Rootfs:
        root = self._containers / container_id / "root"
        if not root.is_dir():
            raise NotFound(f"container {container_id} has no root file system")
        return Rootfs(upper=str(root))

    def remove_rootfs(self, container_id: str) -> None:
        self._discard(self._containers / container_id)

    @contextlib.contextmanager
    def mounted(self, container_id: str) -> Iterator[Path]:
        yield Path(self.rootfs(container_id).upper)

    def changes(self, container_id: str) -> list[tuple[str, int]]:
        root = Path(self.rootfs(container_id).upper)
        base = (self._containers / container_id / "base").read_text()
        before = _entries(self._layer(base)) if base else {}
        after = _entries(root)
        found = dict.fromkeys(before.keys() - after.keys(), DELETED)
        found |= dict.fromkeys(after.keys() - before.keys(), ADDED)
        both = after.keys() & before.keys()
        found |= {path: MODIFIED for path in both if after[path] != before[path]}
        # A folder in which something changed counts as changed, as where a union file system copies it up.
        above = {str(parent) for path in found for parent in PurePosixPath(path).parents}
        found |= dict.fromkeys((above & both) - found.keys(), MODIFIED)
        return sorted(found.items())

    def usage(self, container_id: str) -> int:
        root = self._containers / container_id / "root"
        return tree_bytes(root) if root.is_dir() else 0

    def recover(self, known_layers: set[str], known_containers: set[str]) -> list[str]:
        removed = [f"half-made {leftover.name}" for leftover in self._tmp.iterdir()]
        for leftover in self._tmp.iterdir():
            shutil.rmtree(leftover, ignore_errors=True)
        for folder in self._containers.iterdir():
            if folder.name not in known_containers:
                self._discard(folder)
                removed.append(f"root file system of {folder.name}")
        for folder in self._layers.iterdir():
            if f"sha256:{folder.name}" not in known_layers:
                self._discard(folder)
                removed.append(f"layer sha256:{folder.name}")
        return removed

    def _layer(self, chain_id: str) -> Path:
        return self._layers / chain_id.removeprefix("sha256:")

    def _discard(self, folder: Path) -> None:
        doomed = self._tmp / secrets.token_hex(8)
        try:
            folder.rename(doomed)
        except FileNotFoundError:
            return
        shutil.rmtree(doomed, ignore_errors=True)


def _entries(root: Path) -> dict[str, tuple[int, ...]]:
    """Path -> what a change would alter: type and mode, owner, and size and time of files."""
    entries: dict[str, tuple[int, ...]] = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = f"{folder}/{name}"
            status = os.lstat(path)
            content = () if stat.S_ISDIR(status.st_mode) else (status.st_size, status.st_mtime_ns)
            entries[path.removeprefix(str(root))] = (status.st_mode, status.st_uid, status.st_gid, *content)
    return entries
