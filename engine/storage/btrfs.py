"""The btrfs driver: every layer and container is a subvolume, made in an instant as a snapshot of the one below.

`--storage-opt size=` of a container is a limit of its subvolume's quota group; quotas of the file system are switched
on by the first container that wants one, because they make every snapshot slower.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.errors import EngineFailure, InvalidParameter
from engine.storage import btrfs_calls
from engine.storage.driver import DriverUnusable
from engine.storage.file_system import file_system_name
from engine.storage.trees import remove_tree
from engine.storage.whole_tree import WholeTrees

MIN_SPACE = "btrfs.min_space"
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?", re.ASCII | re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


class BtrfsDriver(WholeTrees):
    name = "btrfs"

    def status(self) -> list[list[str]]:
        return [["Btrfs", ""], *super().status()]

    def _take_options(self, options: dict[str, str]) -> None:
        self._bytes_min = parse_bytes(MIN_SPACE, options.pop(MIN_SPACE, "0"))
        super()._take_options(options)

    def _check_host(self) -> None:
        if not btrfs_calls.is_btrfs(self._root):
            raise DriverUnusable(
                f"'btrfs' is not supported over {file_system_name(self._root)}: "
                f"{self._root} must be on a btrfs file system, or use --storage-driver overlay"
            )

    def _check_container_options(self, options: Mapping[str, str]) -> None:
        for name, value in options.items():
            if name != "size":
                raise InvalidParameter(f"unknown option {name}: {self.name} knows only size")
            size = parse_bytes("size", value)
            if size == 0:
                raise InvalidParameter(
                    "btrfs: storage size must be more than zero: say size=10G, for example"
                )
            if size < self._bytes_min:
                raise InvalidParameter(
                    f"btrfs: storage size cannot be less than {self._bytes_min} bytes ({MIN_SPACE} of the daemon)"
                )

    def _make_root(self, folder: Path, below: Sequence[Path], options: Mapping[str, str]) -> None:
        super()._make_root(folder, below, options)
        if "size" in options:
            try:
                btrfs_calls.enable_quota(self._root)
                btrfs_calls.limit_subvolume(folder / "root", parse_bytes("size", options["size"]))
            except OSError as error:
                raise EngineFailure(f"btrfs cannot limit the size of {folder}: {error.strerror}") from error

    def _new_tree(self, target: Path, source: Path | None) -> None:
        if source is None:
            btrfs_calls.create_subvolume(target)
            target.chmod(0o755)
        else:
            btrfs_calls.snapshot(source, target)

    def _delete(self, folder: Path) -> None:
        """The subvolumes as a whole; one that has others in it (made by a container) file by file."""
        for name in ("diff", "root"):
            with contextlib.suppress(OSError):
                btrfs_calls.delete_subvolume(folder / name)
        remove_tree(folder, ignore_errors=True)


def parse_bytes(name: str, text: str) -> int:
    """`10G`, `1.5m`, `512k` or bytes. InvalidParameter names the option."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise InvalidParameter(
            f"invalid size '{text}' of {name}: use a number with k, m, g or t, such as 10G"
        )
    return int(float(match[1]) * 1024 ** _POWERS[match[2].lower()])
