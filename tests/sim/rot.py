"""Bit rot: where on a node's disk a bit may turn so that the node must notice.

Not in the last frame of the log: damage there cannot be told from the torn end of a write that was never
acknowledged. A turned bit of a snapshot need not be noticed while an older snapshot and the log suffice.
"""

from __future__ import annotations

import enum

from raft.consensus import ConsensusConfig, snapshot_dir
from raft.framing import Damaged, read_frames
from tests.sim.disk import Disk

_PURPOSE = b"wal"


class Rot(enum.Enum):
    NONE = "none"
    LOG = "log"
    SNAPSHOT = "snapshot"
    ALL = "all"
    REPLACED = "replaced"  # perhaps: a fresh log is there, or a crash has brought the damage back


def rot(config: ConsensusConfig, disk: Disk, where: float) -> Rot:
    """Turn a bit of the log (below 0.5) or of the newest snapshot; returns what was hit, if anything."""
    snapshots = disk.paths(snapshot_dir(config), "snapshot-*.snap")
    if where >= 0.5 and snapshots:
        size = len(disk.read(snapshots[-1]))
        disk.turn_byte(snapshots[-1], int((2 * where - 1) * size))
        return Rot.SNAPSHOT
    *older, newest = disk.paths(config.state_dir / "wal", "wal-*.log")
    sizes = {path: len(disk.read(path)) for path in older}
    sizes[newest] = _last_frame_at(disk.read(newest), config.key)
    place = int(2 * where % 1 * sum(sizes.values()))
    for path, size in sizes.items():
        if place < size:
            disk.turn_byte(path, place)
            return Rot.LOG
        place -= size
    return Rot.NONE


def _last_frame_at(data: bytes, key: bytes) -> int:
    """The offset of the last whole frame; 0 when there are not two of them."""
    ends: list[int] = []
    try:
        for offset, _ in read_frames(data, key, _PURPOSE):
            ends.append(offset)
    except Damaged:
        """The torn end of the log."""
    return ends[-2] if len(ends) > 1 else 0
