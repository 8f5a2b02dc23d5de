"""The overlay driver: one directory per layer, stacked by the kernel; each container has its own upper one.

Layout below the root: layers/<chain id>/{diff,parent}, containers/<id>/{upper,work,chain}, tmp/. Mounting
a running container is the runtime's part (inside the container's mount namespace); `mounted` is for the
host's own reading and writing of a container's files.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from engine.errors import EngineFailure, NotFound
from engine.runtime import syscalls
from engine.storage.driver import ADDED, DELETED, MODIFIED, Rootfs
from engine.storage.layer_tree import OPAQUE_XATTR, LayerUnpacker, is_whiteout, sync_tree, tree_bytes

MNT_DETACH = 2


class OverlayDriver:
    name = "overlay2"

    def __init__(self, root: Path) -> None:
        self._layers = root / "layers"
        self._containers = root / "containers"
        self._tmp = root / "tmp"
        for folder in (self._layers, self._containers, self._tmp):
            folder.mkdir(mode=0o710, parents=True, exist_ok=True)

    # ---- layers -------------------------------------------------------------------------------------------

    def has_layer(self, chain_id: str) -> bool:
        return self._layer(chain_id).is_dir()

    def add_layer(self, chain_id: str, parent: str | None, tar: BinaryIO) -> int:
        if self.has_layer(chain_id):
            return 0
        if parent is not None and not self.has_layer(parent):
            raise EngineFailure(f"layer {chain_id} stands on {parent}, which is not here")
        building = self._tmp / secrets.token_hex(8)
        diff = building / "diff"
        diff.mkdir(mode=0o755, parents=True)
        try:
            lowers = [self._layer(below) / "diff" for below in self.chain(parent)]
            size = LayerUnpacker(diff, "overlay", lowers).unpack(tar)
            (building / "parent").write_text(parent or "")
            sync_tree(building)
            with contextlib.suppress(FileExistsError):
                building.rename(self._layer(chain_id))
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return size

    def remove_layer(self, chain_id: str) -> bool:
        if any(chain_id in _lines(folder / "chain") for folder in self._containers.iterdir()):
            return False
        self._discard(self._layer(chain_id))
        return True

    def chain(self, chain_id: str | None) -> list[str]:
        """The layer and all below it, topmost first."""
        chain = []
        while chain_id:
            chain.append(chain_id)
            chain_id = (self._layer(chain_id) / "parent").read_text()
        return chain

    # ---- containers ---------------------------------------------------------------------------------------

    def create_rootfs(self, container_id: str, top_layer: str | None) -> Rootfs:
        chain = self.chain(top_layer)
        folder = self._containers / container_id
        (folder / "upper").mkdir(mode=0o755, parents=True)
        (folder / "work").mkdir(mode=0o700)
        (folder / "chain").write_text("\n".join(chain))
        return self._rootfs(folder, chain)

    def rootfs(self, container_id: str) -> Rootfs:
        folder = self._containers / container_id
        if not folder.is_dir():
            raise NotFound(f"container {container_id} has no root file system")
        return self._rootfs(folder, _lines(folder / "chain"))

    def remove_rootfs(self, container_id: str) -> None:
        folder = self._containers / container_id
        if folder.is_dir():
            self._discard(folder)

    @contextlib.contextmanager
    def mounted(self, container_id: str) -> Iterator[Path]:
        """Not for a container that runs: its upper directory must be mounted once only."""
        rootfs = self.rootfs(container_id)
        if not rootfs.lower:
            yield Path(rootfs.upper)
            return
        target = self._tmp / f"mount-{secrets.token_hex(8)}"
        target.mkdir(mode=0o700)
        try:
            with _short_names(rootfs) as options:
                syscalls.mount("overlay", str(target), "overlay", 0, options)
            try:
                yield target
            finally:
                syscalls.umount(str(target), MNT_DETACH)
        finally:
            target.rmdir()

    def changes(self, container_id: str) -> list[tuple[str, int]]:
        rootfs = self.rootfs(container_id)
        upper = Path(rootfs.upper)
        found: list[tuple[str, int]] = []
        for folder, folders, files in os.walk(upper):
            relative = Path(folder).relative_to(upper)
            for name in (*folders, *files):
                inside = relative / name
                status = os.lstat(upper / inside)
                present = MODIFIED if _is_below(rootfs.lower, inside) else ADDED
                found.append((f"/{inside}", DELETED if is_whiteout(status) else present))
            if _is_opaque(Path(folder)):
                hidden = _names_below(rootfs.lower, relative) - {*folders, *files}
                found += [(f"/{relative / name}", DELETED) for name in hidden]
        return sorted(found)

    def usage(self, container_id: str) -> int:
        folder = self._containers / container_id
        return tree_bytes(folder / "upper") if folder.is_dir() else 0

    def recover(self, known_layers: set[str], known_containers: set[str]) -> list[str]:
        removed = []
        for leftover in self._tmp.iterdir():
            if os.path.ismount(leftover):
                syscalls.umount(str(leftover), MNT_DETACH)
            shutil.rmtree(leftover, ignore_errors=True)
            removed.append(f"half-made {leftover.name}")
        for folder in self._containers.iterdir():
            if folder.name not in known_containers:
                self._discard(folder)
                removed.append(f"root file system of {folder.name}")
        for folder in self._layers.iterdir():
            chain_id = f"sha256:{folder.name}"
            if chain_id not in known_layers and self.remove_layer(chain_id):
                removed.append(f"layer {chain_id}")
        return removed

    # ---- inside -------------------------------------------------------------------------------------------

    def _layer(self, chain_id: str) -> Path:
        return self._layers / chain_id.removeprefix("sha256:")

    def _rootfs(self, folder: Path, chain: list[str]) -> Rootfs:
        lower = tuple(str(self._layer(chain_id) / "diff") for chain_id in chain)
        return Rootfs(lower=lower, upper=str(folder / "upper"), work=str(folder / "work"))

    def _discard(self, folder: Path) -> None:
        """Out of sight at once, then deleted: a crash in between leaves only something in tmp."""
        doomed = self._tmp / secrets.token_hex(8)
        try:
            folder.rename(doomed)
        except FileNotFoundError:
            return
        shutil.rmtree(doomed, ignore_errors=True)


@contextlib.contextmanager
def _short_names(rootfs: Rootfs) -> Iterator[str]:
    """The mount options by open descriptors: a page of options takes 200 of them, but only 40 long paths."""
    with contextlib.ExitStack() as opened:

        def short(path: str) -> str:
            descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, descriptor)
            return f"/proc/self/fd/{descriptor}"

        lower = ":".join(map(short, rootfs.lower))
        yield f"lowerdir={lower},upperdir={short(rootfs.upper)},workdir={short(rootfs.work)}"


def _is_below(lowers: Sequence[str], inside: Path) -> bool:
    """Whether the layers show something at that path: the topmost that knows of it decides."""
    steps = [*reversed(inside.parents[:-1]), inside]
    for lower in lowers:
        for step in steps:
            path = Path(lower, step)
            try:
                status = path.lstat()
            except FileNotFoundError:
                break
            if step == inside:
                return not is_whiteout(status)
            if not stat.S_ISDIR(status.st_mode):
                return False
        if any(_is_opaque(Path(lower, above)) for above in inside.parents):
            return False
    return False


def _names_below(lowers: Sequence[str], folder: Path) -> set[str]:
    """What the layers show in a folder."""
    names: set[str] = set()
    for lower in lowers:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            names.update(entry.name for entry in Path(lower, folder).iterdir())
    return {name for name in names if _is_below(lowers, folder / name)}


def _is_opaque(path: Path) -> bool:
    try:
        return os.getxattr(path, OPAQUE_XATTR, follow_symlinks=False) == b"y"
    except OSError:
        return False


def _lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []
