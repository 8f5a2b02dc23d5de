"""Which storage driver a daemon uses: the one asked for, else the one of last time, else the first that this host can.

As Docker chooses; vfs is never taken because of what it left, only as the last resort or by name.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from engine.errors import EngineFailure, InvalidParameter
from engine.storage.driver import DriverUnusable, StorageDriver, open_driver

logger = logging.getLogger(__name__)

PREFERENCE = ("overlay", "fuse-overlayfs", "btrfs", "vfs")


def choose_driver(root: Path, asked: str = "", options: Sequence[str] = ()) -> StorageDriver:
    """`asked`: of --storage-driver, "" chooses; `options`: of --storage-opt, NAME=VALUE each.

    InvalidParameter for a setting that is wrong, EngineFailure when the driver cannot serve here.
    """
    given = parse_options(options)
    if asked:
        return open_driver(asked, _folder(root, asked), given)
    prior = [name for name in PREFERENCE[:-1] if _is_used(_folder(root, name))]
    if len(prior) > 1:
        raise InvalidParameter(
            f"{root} contains several valid storage drivers: {', '.join(prior)}; clean up or explicitly choose one "
            "with --storage-driver"
        )
    for name in prior:
        try:
            return open_driver(name, _folder(root, name), given)
        except DriverUnusable as error:
            raise EngineFailure(f"prior storage driver {name} failed: {error}") from error
    for name in PREFERENCE:
        if any(not option.startswith(f"{name}.") for option in given):
            continue  # an option of another driver says which one is meant
        try:
            return open_driver(name, _folder(root, name), given)
        except DriverUnusable as error:
            logger.info("storage driver %s is passed over: %s", name, error)
    raise InvalidParameter(
        f"no storage driver takes {', '.join(options)}: btrfs.min_space is the only option"
    )


def parse_options(options: Sequence[str]) -> dict[str, str]:
    parsed = {}
    for option in options:
        name, separator, value = option.partition("=")
        if not name or not separator:
            raise InvalidParameter(f"--storage-opt {option}: must be NAME=VALUE")
        parsed[name.lower()] = value
    return parsed


def _folder(root: Path, name: str) -> Path:
    """`overlay2` is another name of overlay; an earlier version gave it a folder of its own."""
    if name in ("overlay", "overlay2"):
        return root / ("overlay2" if (root / "overlay2").is_dir() else "overlay")
    return root / name


def _is_used(folder: Path) -> bool:
    return any(
        any((folder / part).iterdir()) for part in ("layers", "containers") if (folder / part).is_dir()
    )
