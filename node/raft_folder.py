"""Replacing this manager's raft folder as a whole, and keeping the old one: all or nothing at every moment.

The new folder is built beside, made durable and renamed to `raft.next-<why>`: from then on it is decided, and a
start that finds it finishes the exchange. The old one stays as `raft.<why>-<time>`, the latest few of them.
Blocks.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from pathlib import Path

from node.identity import SwarmFolder

logger = logging.getLogger(__name__)

KEPT_MAX = 3
DAMAGED, REPLACED = "damaged", "replaced"


def begin(folder: SwarmFolder) -> Path:
    """An empty path to build the new raft folder at; it counts for nothing until `put_in_place`."""
    path = folder.path / "raft.building"
    shutil.rmtree(path, ignore_errors=True)
    return path


def put_in_place(folder: SwarmFolder, why: str, now: float) -> None:
    """`why`: DAMAGED or REPLACED, what to call the old one. Raises OSError; then the old one is still there."""
    assert why in (DAMAGED, REPLACED)
    building = folder.path / "raft.building"
    _sync(building)
    building.rename(folder.path / f"raft.next-{why}")
    _sync(folder.path)
    finish(folder, now)


def finish(folder: SwarmFolder, now: float | None = None) -> None:
    """Complete what a crash interrupted; nothing to do otherwise."""
    for decided in sorted(folder.path.glob("raft.next-*")):
        why = decided.name.removeprefix("raft.next-")
        if folder.raft.exists():
            aside = _free_name(folder, why, time.time() if now is None else now)
            folder.raft.rename(aside)
            logger.warning("the former raft folder is kept as %s", aside)
        decided.rename(folder.raft)
        _sync(folder.path)
    shutil.rmtree(folder.path / "raft.building", ignore_errors=True)
    for path in kept(folder)[:-KEPT_MAX]:
        shutil.rmtree(path, ignore_errors=True)


def kept(folder: SwarmFolder) -> list[Path]:
    """The former raft folders, the oldest first."""
    found = [path for why in (DAMAGED, REPLACED) for path in folder.path.glob(f"raft.{why}-*")]
    return sorted(found, key=lambda path: path.name.partition("-")[2])


def remove_all(folder: SwarmFolder) -> None:
    """This node is a manager no longer: it keeps nothing of the cluster's state."""
    folder.remove_raft()
    for path in [*folder.path.glob("raft.next-*"), *kept(folder)]:
        shutil.rmtree(path, ignore_errors=True)


def _free_name(folder: SwarmFolder, why: str, now: float) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    path, count = folder.path / f"raft.{why}-{stamp}", 1
    while path.exists():
        count += 1
        path = folder.path / f"raft.{why}-{stamp}.{count}"
    return path


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
