"""Where the engine keeps its things and what it calls itself; made by the daemon, never changed."""

from __future__ import annotations

from pathlib import Path

import msgspec


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`root` holds state that survives a reboot, `run_dir` what does not (sockets, namespaces, secrets).

    `cgroup_parent` is a path below every controller; `hostname` the node's name.
    """

    root: Path
    run_dir: Path
    cgroup_parent: str = "swarmctl"
    hostname: str = ""
    storage_driver: str = "overlay"
    labels: dict[str, str] = {}
    userns_remap: str = ""  # "default", USER or USER:GROUP of /etc/subuid and /etc/subgid; "" maps nothing
    engine_version: str = "0.1.0"

    @property
    def containers_dir(self) -> Path:
        return self.root / "containers"

    @property
    def memory_files_dir(self) -> Path:
        """A tmpfs: secrets never touch a disk."""
        return self.run_dir / "secrets"

    def container_dir(self, container_id: str) -> Path:
        return self.containers_dir / container_id

    def log_path(self, container_id: str) -> Path:
        return self.container_dir(container_id) / f"{container_id}-json.log"
