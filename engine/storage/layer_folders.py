"""What all drivers share: layers and containers as folders that appear whole and vanish at once.

Layout below the root: layers/<chain id>/{diff,parent}, containers/<id>/{chain,...}, tmp/. Drivers say how a tree is
made, how a container's root stands on its layers, and how a tree is deleted; they never rename or list by themselves.
Invariants: nothing is built or deleted under its final name, so whatever a crash leaves in the middle lies in `tmp`
(or is a container that the engine does not know); a container's `chain` is written before anything of its root, and
a layer in a chain is not removed.
"""

from __future__ import annotations

import abc
import contextlib
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from engine.errors import EngineFailure, InvalidParameter, NotFound
from engine.runtime import syscalls
from engine.storage.driver import NO_OPTIONS, Rootfs
from engine.storage.file_system import file_system_name, is_mount_point
from engine.storage.layer_tree import LayerUnpacker, sync_tree
from engine.storage.trees import remove_tree


class LayerFolders(abc.ABC):
    name = ""
    mounts_on_host = False

    def __init__(self, root: Path, options: Mapping[str, str] = NO_OPTIONS) -> None:
        root = root.resolve()  # as the kernel names what is mounted there
        self._root = root
        self._layers = root / "layers"
        self._containers = root / "containers"
        self._tmp = root / "tmp"
        self._lock = threading.Lock()  # a layer's removal against a container that is about to stand on it
        self._take_options(dict(options))
        for folder in (self._layers, self._containers, self._tmp):
            folder.mkdir(mode=0o710, parents=True, exist_ok=True)
        self._check_host()

    def status(self) -> list[list[str]]:
        return [["Backing Filesystem", file_system_name(self._root)]]

    # ---- what a driver decides ----------------------------------------------------------------------------

    def _take_options(self, options: dict[str, str]) -> None:
        for name in options:
            raise InvalidParameter(
                f"{self.name}: unknown option {name}: this storage driver has no such option"
            )

    @abc.abstractmethod
    def _check_host(self) -> None:
        """DriverUnusable when this host, or the file system of the root, cannot serve the driver."""

    @abc.abstractmethod
    def _unpacker(self, diff: Path, below: Sequence[Path]) -> LayerUnpacker:
        """Make the tree `diff` of a layer on those `below` (topmost first), ready to be unpacked into."""

    @abc.abstractmethod
    def _check_container_options(self, options: Mapping[str, str]) -> None:
        """InvalidParameter for an option of a container that cannot be served."""

    @abc.abstractmethod
    def _make_root(self, folder: Path, below: Sequence[Path], options: Mapping[str, str]) -> None: ...

    @abc.abstractmethod
    def _rootfs(self, folder: Path, below: Sequence[Path]) -> Rootfs: ...

    def _delete(self, folder: Path) -> None:
        remove_tree(folder, ignore_errors=True)

    # ---- layers -------------------------------------------------------------------------------------------

    def has_layer(self, chain_id: str) -> bool:
        return (self._layer(chain_id) / "parent").exists()

    def add_layer(self, chain_id: str, parent: str | None, tar: BinaryIO) -> int:
        if self.has_layer(chain_id):
            return 0
        if parent is not None and not self.has_layer(parent):
            raise EngineFailure(f"layer {chain_id} stands on {parent}, which is not here")
        building = self._new_name()
        building.mkdir(mode=0o755)
        try:
            size = self._unpacker(building / "diff", self._trees(self.chain(parent))).unpack(tar)
            (building / "parent").write_text(parent or "")
            sync_tree(building)
            with self._lock:
                if not self.has_layer(chain_id):
                    self._discard(self._layer(chain_id))  # of an earlier layout, or damaged
                    building.rename(self._layer(chain_id))
        finally:
            self._delete(building)
        return size

    def remove_layer(self, chain_id: str) -> bool:
        with self._lock:
            if any(chain_id in _lines(folder / "chain") for folder in self._containers.iterdir()):
                return False
            doomed = self._hide(self._layer(chain_id))
        self._delete(doomed)
        return True

    def chain(self, chain_id: str | None) -> list[str]:
        """The layer and all below it, topmost first."""
        chain = []
        while chain_id:
            chain.append(chain_id)
            chain_id = (self._layer(chain_id) / "parent").read_text()
        return chain

    # ---- containers ---------------------------------------------------------------------------------------

    def create_rootfs(
        self, container_id: str, top_layer: str | None, options: Mapping[str, str] = NO_OPTIONS
    ) -> Rootfs:
        self._check_container_options(options)
        folder = self._containers / container_id
        with self._lock:
            if top_layer is not None and not self.has_layer(top_layer):
                raise NotFound(f"layer {top_layer} of the image is not here: its image was just removed")
            chain = self.chain(top_layer)
            folder.mkdir(mode=0o710)
            (folder / "chain").write_text("\n".join(chain))
        try:
            self._make_root(folder, self._trees(chain), options)
        except BaseException:
            self._discard(folder)
            raise
        return self._rootfs(folder, self._trees(chain))

    def rootfs(self, container_id: str) -> Rootfs:
        folder = self._containers / container_id
        if not folder.is_dir():
            raise NotFound(
                f"container {container_id} has no root file system in the storage driver {self.name}"
            )
        return self._rootfs(folder, self._trees(_lines(folder / "chain")))

    def places(self, container_id: str) -> dict[str, str]:
        """A driver whose root is one plain folder tells nothing, as in Docker."""
        return {}

    def release_rootfs(self, container_id: str) -> None:  # noqa: B027
        """Most drivers mount nothing on the host."""

    def remove_rootfs(self, container_id: str) -> list[str]:
        folder = self._containers / container_id
        chain = _lines(folder / "chain")
        self.release_rootfs(container_id)
        self._discard(folder)
        return chain[::-1]

    def recover(self, known_layers: set[str], known_containers: set[str]) -> list[str]:
        removed = []
        for leftover in self._tmp.iterdir():
            if is_mount_point(leftover):
                syscalls.umount(str(leftover), syscalls.MNT_DETACH)
            self._delete(leftover)
            removed.append(f"half-made {leftover.name}")
        for folder in self._containers.iterdir():
            if folder.name not in known_containers:
                self.remove_rootfs(folder.name)
                removed.append(f"root file system of {folder.name}")
        for folder in self._layers.iterdir():
            chain_id = f"sha256:{folder.name}"
            if chain_id not in known_layers and self.remove_layer(chain_id):
                removed.append(f"layer {chain_id}")
        return removed

    # ---- for the drivers ----------------------------------------------------------------------------------

    def _layer(self, chain_id: str) -> Path:
        return self._layers / chain_id.removeprefix("sha256:")

    def _trees(self, chain: Sequence[str]) -> list[Path]:
        return [self._layer(chain_id) / "diff" for chain_id in chain]

    def _new_name(self) -> Path:
        return self._tmp / secrets.token_hex(8)

    @contextlib.contextmanager
    def _mount_point(self) -> Iterator[Path]:
        """A folder in `tmp`; whatever is mounted there at the end goes with it."""
        target = self._tmp / f"mount-{secrets.token_hex(8)}"
        target.mkdir(mode=0o700)
        try:
            yield target
        finally:
            if is_mount_point(target):
                syscalls.umount(str(target), syscalls.MNT_DETACH)
            target.rmdir()

    def _hide(self, folder: Path) -> Path:
        """Out of sight at once: what a crash leaves of it from now on lies in `tmp`."""
        doomed = self._new_name()
        with contextlib.suppress(FileNotFoundError):
            folder.rename(doomed)
        return doomed

    def _discard(self, folder: Path) -> None:
        self._delete(self._hide(folder))


def _lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []
