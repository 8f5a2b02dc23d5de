"""Who this node is in its cluster, on disk: one folder that is there exactly while it belongs to one.

Layout of <root>/swarm: identity.json, tls/ (certificate files), raft/ (log and snapshots), raft.key (their
data key), managers.json, worker/ (assigned tasks).
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

import msgspec

from node.ca.files import CredentialFiles


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

    def data_key(self) -> bytes:
        """32 bytes for the log and snapshots of this manager; made at the first call."""
        path = self.path / "raft.key"
        if not path.exists():
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = path.with_suffix(".new")
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(descriptor, "wb") as file:
                file.write(secrets.token_bytes(32))
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)
        return path.read_bytes()

    def remove_raft(self) -> None:
        shutil.rmtree(self.raft, ignore_errors=True)

    def remove(self) -> None:
        """Forget the cluster. The identity goes first, so that a crash half way leaves only a leftover."""
        (self.path / "identity.json").unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)
