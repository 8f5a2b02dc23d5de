"""Who this node is in its cluster, on disk: one folder that is there exactly while it belongs to one.

Layout of <root>/swarm: identity.json, tls/ (certificate files, and the data key of log and snapshots, both
in the form that autolock asks for), raft/ (log and snapshots), managers.json, worker/ (assigned tasks).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec

from node.ca.files import CredentialFiles
from node.ca.keys import DamagedKeys
from node.ca.wrapping import KEY_BYTES, new_key
from raft.consensus import Consensus
from raft.files import OS_FILES


class NodeIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """`address`: this node's IP for the others; `port`: of its RPC. `configured_*`: what the daemon's own
    settings said when they were chosen, so that a change of the settings is noticed; port 0: not known."""

    node_id: str
    cluster_id: str
    address: str
    port: int
    configured_address: str = ""
    configured_port: int = 0

    @property
    def rpc_address(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class SwarmFolder:
    """The files of this node's membership."""

    def __init__(self, root: Path) -> None:
        self.path = root / "swarm"
        self.credentials = CredentialFiles(self.path / "tls")
        self.raft = self.path / "raft"
        self.managers = self.path / "managers.json"
        self.worker = self.path / "worker"

    def load(self) -> NodeIdentity | None:
        """None when this node belongs to no cluster. ValueError when the file is damaged."""
        try:
            data = (self.path / "identity.json").read_bytes()
        except FileNotFoundError:
            return None
        return msgspec.json.decode(data, type=NodeIdentity)

    def save(self, identity: NodeIdentity) -> None:
        """Written last when joining: without it the rest of the folder is a leftover."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = self.path / "identity.new"
        with temporary.open("wb") as file:
            file.write(msgspec.json.encode(identity))
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self.path / "identity.json")
        for folder in (self.path, self.path.parent):
            OS_FILES.sync_folder(folder)

    def data_key(self) -> bytes:
        """32 bytes for the log and snapshots of this manager; made at the first call.

        Raises keys.Locked, DamagedKeys when it is damaged or lost: what was written with it needs it.
        """
        self._adopt_data_key()
        key = self.credentials.keys.data_key()
        if key is None:
            if Consensus.exists(self.raft):
                raise DamagedKeys(
                    f"{self.credentials.keys.data} is missing, and {self.raft} cannot be read without it: "
                    "restore it from a backup, or leave the swarm with --force and join again"
                )
            key = new_key()
            self.credentials.keys.save_data_key(key)
        return key

    def _adopt_data_key(self) -> None:
        """An earlier layout had the data key beside the TLS folder, where autolock does not reach."""
        former = self.path / "raft.key"
        if not former.exists():
            return
        if self.credentials.keys.data_key() is None:
            key = former.read_bytes()
            if len(key) != KEY_BYTES:
                raise DamagedKeys(f"{former} is damaged: it has {len(key)} bytes, not {KEY_BYTES}")
            self.credentials.keys.save_data_key(key)
        former.unlink()

    def is_locked(self) -> bool:
        """Does this node wait for the unlock key? A worker never does; what it has left of its time as a manager
        goes here. Raises ValueError when the files are damaged."""
        if self.credentials.is_manager:
            return self.credentials.keys.locked
        if self.credentials.load() is not None:
            self.remove_manager()
        return False

    def remove_raft(self) -> None:
        """The log goes before its key."""
        shutil.rmtree(self.raft, ignore_errors=True)
        self.credentials.keys.data.unlink(missing_ok=True)

    def remove_manager(self) -> None:
        """What only a manager has: for a node that is a worker now."""
        self.remove_raft()
        self.credentials.keys.forget_lock()

    def remove(self) -> None:
        """Forget the cluster and its lock. The identity goes first, so that a crash leaves only a leftover."""
        (self.path / "identity.json").unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)
        self.credentials = CredentialFiles(self.path / "tls")
