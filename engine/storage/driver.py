"""What a storage driver offers to images and containers. Synchronous: callers use threads.

A layer is named by its chain id (sha256 over the diff ids up to it). Invariant: a layer directory exists
under its final name only when it is complete; everything half made lives in the driver's `tmp` folder and
is removed by `recover`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec

from engine.errors import EngineFailure, InvalidParameter

MODIFIED, ADDED, DELETED = 0, 1, 2
NO_OPTIONS: Mapping[str, str] = {}


class DriverUnusable(EngineFailure):
    """This host, or the file system of that folder, cannot serve the driver."""


class Rootfs(msgspec.Struct, frozen=True, kw_only=True):
    """How to mount a container's root: `lower` topmost first; no lowers: `upper` is a plain directory."""

    lower: tuple[str, ...] = ()
    upper: str = ""
    work: str = ""


class StorageDriver(Protocol):
    name: str
    mounts_on_host: bool  # `rootfs` mounts, which takes a moment, until `release_rootfs`

    def status(self) -> list[list[str]]:
        """(name, value) rows of `docker info`."""

    def has_layer(self, chain_id: str) -> bool: ...

    def add_layer(self, chain_id: str, parent: str | None, tar: BinaryIO) -> int:
        """Unpack an uncompressed layer over its parent; returns the bytes of its files."""

    def remove_layer(self, chain_id: str) -> bool:
        """False, and nothing happens, while a container still stands on it."""

    def create_rootfs(
        self, container_id: str, top_layer: str | None, options: Mapping[str, str] = NO_OPTIONS
    ) -> Rootfs:
        """`options`: of `--storage-opt`; InvalidParameter names one that cannot be served."""

    def rootfs(self, container_id: str) -> Rootfs: ...

    def places(self, container_id: str) -> dict[str, str]:
        """GraphDriver.Data of `inspect`: where on this host its files are. Mounts nothing. NotFound when it is gone."""

    def release_rootfs(self, container_id: str) -> None:
        """The container has ended: what was mounted on the host for it goes."""

    def remove_rootfs(self, container_id: str) -> list[str]:
        """Returns the layers that it stood on, lowest first; empty when there was none."""

    def mounted(self, container_id: str) -> contextlib.AbstractContextManager[Path]:
        """The whole root of a container, readable and writable, while the context lasts."""

    def changes(self, container_id: str) -> list[tuple[str, int]]:
        """(path, MODIFIED | ADDED | DELETED) against the image, sorted by path."""

    def usage(self, container_id: str) -> int:
        """Bytes that the container itself wrote."""

    def recover(self, known_layers: set[str], known_containers: set[str]) -> list[str]:
        """After a crash: remove what is half made or belongs to nobody; says what."""


def open_driver(name: str, root: Path, options: Mapping[str, str] = NO_OPTIONS) -> StorageDriver:
    """The driver of that name. InvalidParameter for one that is unknown or no kernel has any more, or for an option
    that it does not have; DriverUnusable where the host cannot serve it."""
    from engine.storage.btrfs import BtrfsDriver
    from engine.storage.fuse_overlay import FuseOverlayDriver
    from engine.storage.overlay import OverlayDriver
    from engine.storage.vfs import VfsDriver

    if name in ("overlay", "overlay2"):
        return OverlayDriver(root, options)
    if name == "fuse-overlayfs":
        return FuseOverlayDriver(root, options)
    if name == "btrfs":
        return BtrfsDriver(root, options)
    if name == "vfs":
        return VfsDriver(root, options)
    if name in ("aufs", "devicemapper"):
        raise InvalidParameter(
            f"storage driver {name} no longer exists in kernels nor in Docker: overlay (the default) replaces it; "
            "use fuse-overlayfs or vfs where overlay is missing. Images have to be loaded again"
        )
    raise InvalidParameter(f'unknown storage driver "{name}": use overlay, fuse-overlayfs, btrfs or vfs')
