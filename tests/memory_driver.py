"""A storage driver that keeps nothing but names, for tests of whatever stands above drivers."""

from __future__ import annotations

import contextlib
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from engine.storage.driver import Rootfs


class MemoryDriver:
    """Keeps the names of each layer's files. `before_unpack` may fail or wait, `held` are used by containers."""

    name = "memory"

    def __init__(self) -> None:
        self.layers: dict[str, list[str]] = {}
        self.held: set[str] = set()
        self.before_unpack: Callable[[], None] = lambda: None

    def has_layer(self, chain_id: str) -> bool:
        return chain_id in self.layers

    def add_layer(self, chain_id: str, parent: str | None, tar: BinaryIO) -> int:
        assert parent is None or parent in self.layers, "a layer stands on one that is here"
        self.before_unpack()
        with tarfile.open(fileobj=tar, mode="r|") as archive:
            members = list(archive)
        self.layers[chain_id] = [member.name for member in members]
        return sum(member.size for member in members)

    def remove_layer(self, chain_id: str) -> bool:
        if chain_id in self.held:
            return False
        del self.layers[chain_id]
        return True

    def create_rootfs(self, container_id: str, top_layer: str | None) -> Rootfs:
        raise NotImplementedError

    def rootfs(self, container_id: str) -> Rootfs:
        raise NotImplementedError

    def remove_rootfs(self, container_id: str) -> None:
        raise NotImplementedError

    def mounted(self, container_id: str) -> contextlib.AbstractContextManager[Path]:
        raise NotImplementedError

    def changes(self, container_id: str) -> list[tuple[str, int]]:
        raise NotImplementedError

    def usage(self, container_id: str) -> int:
        raise NotImplementedError

    def recover(self, known_layers: set[str], known_containers: set[str]) -> list[str]:
        raise NotImplementedError
