"""What a union file system driver offers to images and containers. Synchronous: callers use threads.

A layer is named by its chain id (sha256 over the diff ids up to it). Invariant: a layer directory exists
under its final name only when it is complete; everything half made lives in the driver's `tmp` folder and
is removed by `recover`.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec

from engine.errors import InvalidParameter

MODIFIED, ADDED, DELETED = 0, 1, 2


class Rootfs(msgspec.Struct, frozen=True, kw_only=True):
    """How to mount a container's root: `lower` topmost first; no lowers: `upper` is a plain directory."""

    lower: tuple[str, ...] = ()
    upper: str = ""
    work: str = ""


class StorageDriver(Protocol):
    name: str

    def has_layer(self, chain_id: str) -> bool: ...

    def add_layer(self, chain_id: str, parent: str | None, tar: BinaryIO) -> int:
        """Unpack an uncompressed layer over its parent; returns the bytes it takes on disk."""

    def remove_layer(self, chain_id: str) -> bool:
        """False, and nothing happens, while a container still stands on it."""

    def create_rootfs(self, container_id: str, top_layer: str | None) -> Rootfs: ...

    def rootfs(self, container_id: str) -> Rootfs: ...

    def remove_rootfs(self, container_id: str) -> None: ...

    def mounted(self, container_id: str) -> contextlib.AbstractContextManager[Path]:
        """The whole root of a container, readable and writable, while the context lasts."""

    def changes(self, container_id: str) -> list[tuple[str, int]]:
        """(path, MODIFIED | ADDED | DELETED) against the image, sorted by path."""

    def usage(self, container_id: str) -> int:
        """Bytes that the container itself wrote."""

    def recover(self, known_layers: set[str], known_containers: set[str]) -> list[str]:
        """After a crash: remove what is half made or belongs to nobody; says what."""


def open_driver(name: str, root: Path) -> StorageDriver:
    """The driver of that name. InvalidParameter for an unknown one, or one that no kernel has any more."""
    from engine.storage.overlay import OverlayDriver
    from engine.storage.vfs import VfsDriver

    if name in ("overlay", "overlay2"):
        return OverlayDriver(root)
    if name == "vfs":
        return VfsDriver(root)
    if name in ("aufs", "devicemapper"):
        raise InvalidParameter(
            f"storage driver {name} no longer exists in kernels: use overlay (the default), or vfs where overlay is missing"
        )
    raise InvalidParameter(f'unknown storage driver "{name}": use overlay or vfs')
