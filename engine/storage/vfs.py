"""The vfs driver: every layer and container is a whole copy. Works on any file system, slowly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from engine.errors import InvalidParameter
from engine.storage.tree_copy import copy_tree
from engine.storage.whole_tree import WholeTrees


class VfsDriver(WholeTrees):
    name = "vfs"

    def _check_host(self) -> None:
        """Every host can."""

    def _check_container_options(self, options: Mapping[str, str]) -> None:
        for name in options:
            raise InvalidParameter(
                f"--storage-opt {name} is not supported by {self.name}: leave it out, or use --storage-driver btrfs"
            )

    def _new_tree(self, target: Path, source: Path | None) -> None:
        target.mkdir(mode=0o755)
        if source is not None:
            copy_tree(source, target)
