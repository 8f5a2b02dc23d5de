"""Drivers without a union: every layer and every container is a whole tree, made from the one below.

How a tree is copied is the driver's part (vfs: file by file, btrfs: a snapshot). A container's folder holds
{chain,root}; its changes are found by comparing it with its top layer.
"""

from __future__ import annotations

import abc
import contextlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from engine.storage.driver import ADDED, DELETED, MODIFIED, Rootfs
from engine.storage.layer_folders import LayerFolders
from engine.storage.layer_tree import LayerUnpacker
from engine.storage.trees import PATH_MAX, walk


class WholeTrees(LayerFolders):
    @abc.abstractmethod
    def _new_tree(self, target: Path, source: Path | None) -> None:
        """Make `target`, a copy of `source`, empty without one."""

    def _unpacker(self, diff: Path, below: Sequence[Path]) -> LayerUnpacker:
        self._new_tree(diff, below[0] if below else None)
        return LayerUnpacker(diff, "apply")

    def _make_root(self, folder: Path, below: Sequence[Path], options: Mapping[str, str]) -> None:
        self._new_tree(folder / "root", below[0] if below else None)

    def _rootfs(self, folder: Path, below: Sequence[Path]) -> Rootfs:
        return Rootfs(upper=str(folder / "root"))

    @contextlib.contextmanager
    def mounted(self, container_id: str) -> Iterator[Path]:
        yield Path(self.rootfs(container_id).upper)

    def changes(self, container_id: str) -> list[tuple[str, int]]:
        root = Path(self.rootfs(container_id).upper)
        chain = (root.parent / "chain").read_text().split()
        before = _entries(self._trees(chain)[0]) if chain else {}
        after = _entries(root)
        found = dict.fromkeys(before.keys() - after.keys(), DELETED)
        found |= dict.fromkeys(after.keys() - before.keys(), ADDED)
        both = after.keys() & before.keys()
        found |= {path: MODIFIED for path in both if after[path] != before[path]}
        # A folder in which something changed counts as changed, as where a union file system copies it up.
        above: set[str] = set()
        for path in found:
            while (path := path.rpartition("/")[0]) and path not in above:
                above.add(path)
        found |= dict.fromkeys((above & both) - found.keys(), MODIFIED)
        return sorted(found.items())

    def usage(self, container_id: str) -> int:
        folder = self._containers / container_id
        if not folder.is_dir():
            return 0
        sizes: dict[int, int] = {}
        for path, kind in self.changes(container_id):
            with contextlib.suppress(OSError):  # gone meanwhile, or too deep for a path to name
                status = None if kind == DELETED else os.lstat(f"{folder}/root{path}")
                if status is not None and stat.S_ISREG(status.st_mode):
                    sizes[status.st_ino] = status.st_size
        return sum(sizes.values())


def _entries(root: Path) -> dict[str, tuple[int, ...]]:
    """Path -> what a change would alter: type and mode, owner, and size and time of files."""
    entries: dict[str, tuple[int, ...]] = {}
    for folder in walk(root, longest=PATH_MAX):
        above = folder.path
        for name in (*folder.folders, *folder.others):
            status = folder.status(name)
            if status is None:
                continue
            content = () if stat.S_ISDIR(status.st_mode) else (status.st_size, status.st_mtime_ns)
            entries[f"{above}/{name}"] = (status.st_mode, status.st_uid, status.st_gid, *content)
    return entries
