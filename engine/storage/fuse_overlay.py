"""The fuse-overlayfs driver: overlay's folders, stacked by a program in user space where the kernel cannot.

The runtime gets one plain folder, `merged`, that is mounted from a container's start until its end. The process of
fuse-overlayfs lives exactly as long as its mount (the container's own view of it included).
Invariant: a container's upper directory is never mounted twice.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from engine.errors import EngineFailure, InvalidParameter
from engine.runtime import syscalls
from engine.storage.driver import DriverUnusable, Rootfs
from engine.storage.file_system import is_mount_point
from engine.storage.layer_folders import LayerFolders
from engine.storage.layer_tree import WHITEOUT_PREFIX, LayerUnpacker
from engine.storage.overlay import changes_of, places_of
from engine.storage.trees import tree_bytes

PROGRAM = "fuse-overlayfs"
MOUNT_WITHIN_S = 30


class FuseOverlayDriver(LayerFolders):
    name = "fuse-overlayfs"
    mounts_on_host = True

    def _check_host(self) -> None:
        if shutil.which(PROGRAM) is None:
            raise DriverUnusable(f"{PROGRAM} is not installed: install it, or use --storage-driver vfs")
        if not Path("/dev/fuse").exists():
            raise DriverUnusable(f"{PROGRAM} needs /dev/fuse, which this host does not have: use vfs")
        if ":" in str(self._root):
            raise DriverUnusable(
                f"{PROGRAM} misreads paths with a colon, as {self._root}: use another --root"
            )
        self._mounting = threading.Lock()

    def _unpacker(self, diff: Path, below: Sequence[Path]) -> LayerUnpacker:
        diff.mkdir(mode=0o755)
        return LayerUnpacker(diff, "overlay", below)

    def _check_container_options(self, options: Mapping[str, str]) -> None:
        for name in options:
            raise InvalidParameter(f"--storage-opt {name} is not supported by {self.name}: leave it out")

    def _make_root(self, folder: Path, below: Sequence[Path], options: Mapping[str, str]) -> None:
        (folder / "work").mkdir(mode=0o700)
        (folder / "merged").mkdir(mode=0o700)
        (folder / "upper").mkdir(mode=0o755)

    def _rootfs(self, folder: Path, below: Sequence[Path]) -> Rootfs:
        """Not mounted yet; an image without layers needs no mount."""
        return Rootfs(upper=str(folder / ("merged" if below else "upper")))

    def rootfs(self, container_id: str) -> Rootfs:
        rootfs = super().rootfs(container_id)
        merged = Path(rootfs.upper)
        with self._mounting:
            if merged.name == "merged" and not _answers(merged):
                if is_mount_point(merged):  # its process was killed
                    syscalls.umount(str(merged), syscalls.MNT_DETACH)
                self._mount(container_id, merged)
        return rootfs

    def places(self, container_id: str) -> dict[str, str]:
        merged = self._containers / container_id / "merged"
        return {**places_of(self._stack(container_id)), "MergedDir": str(merged)}

    def release_rootfs(self, container_id: str) -> None:
        merged = self._containers / container_id / "merged"
        with self._mounting:
            if is_mount_point(merged):
                syscalls.umount(str(merged), syscalls.MNT_DETACH)

    @contextlib.contextmanager
    def mounted(self, container_id: str) -> Iterator[Path]:
        merged = Path(self._containers / container_id / "merged")
        was_mounted = is_mount_point(merged)
        root = Path(self.rootfs(container_id).upper)
        try:
            yield root
        finally:
            if not was_mounted:
                self.release_rootfs(container_id)

    def changes(self, container_id: str) -> list[tuple[str, int]]:
        found = changes_of(self._stack(container_id))
        return [
            (path, kind) for path, kind in found if not path.rpartition("/")[2].startswith(WHITEOUT_PREFIX)
        ]

    def usage(self, container_id: str) -> int:
        folder = self._containers / container_id
        return tree_bytes(folder / "upper") if folder.is_dir() else 0

    def _stack(self, container_id: str) -> Rootfs:
        folder = self._containers / container_id
        super().rootfs(container_id)
        lower = self._trees((folder / "chain").read_text().split())
        return Rootfs(lower=tuple(map(str, lower)), upper=str(folder / "upper"), work=str(folder / "work"))

    def _mount(self, container_id: str, merged: Path) -> None:
        """With paths relative to the root: short, and without the commas that may be in its name."""
        stack = self._stack(container_id)
        lower = ":".join(os.path.relpath(path, self._root) for path in stack.lower)
        upper, work = (os.path.relpath(path, self._root) for path in (stack.upper, stack.work))
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        try:
            subprocess.run(
                [PROGRAM, "-o", options, os.path.relpath(merged, self._root)],
                cwd=self._root,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                check=True,
                timeout=MOUNT_WITHIN_S,
            )
        except (OSError, subprocess.SubprocessError) as error:
            said = (getattr(error, "stderr", None) or str(error)).strip()
            raise EngineFailure(
                f"{PROGRAM} cannot mount the root of container {container_id}: {said}"
            ) from error


def _answers(merged: Path) -> bool:
    try:
        return merged.stat().st_dev != merged.parent.stat().st_dev
    except OSError:
        return False
