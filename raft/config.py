"""How one manager's part in the agreement is set up, and where it keeps what."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from raft.files import OS_FILES, Files
from raft.stock import Timings


@dataclass(frozen=True)
class ConsensusConfig:
    """`address` is this node's own host:port for the other managers; `key` the 32-byte data key of WAL and
    snapshots; `state_dir`, in `files`, belongs to this object alone."""

    node_id: str
    address: str
    cluster_id: str
    state_dir: Path
    key: bytes
    timings: Timings = field(default_factory=Timings)
    snapshot_interval: int = 10_000
    keep_entries: int = 500
    keep_snapshots: int = 0
    files: Files = OS_FILES


def snapshot_dir(config: ConsensusConfig) -> Path:
    """Where the snapshots of that manager are."""
    return config.state_dir / "snapshots"


def wal_dir(config: ConsensusConfig) -> Path:
    return config.state_dir / "wal"


def log_owner(config: ConsensusConfig) -> str:
    """What every segment of that manager's log says."""
    return f"{config.cluster_id}/{config.node_id}"
