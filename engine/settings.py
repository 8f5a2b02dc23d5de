"""Where the engine keeps its things and what it calls itself, and what the daemon's settings say about containers.

Made by the daemon. `EngineSettings` never changes; what SIGHUP may change stands apart, in `LiveSettings`, and is
read where it is used, never kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

SHUTDOWN_TIMEOUT_S = 40.0


class DefaultUlimit(msgspec.Struct, frozen=True):
    name: str
    soft: int
    hard: int


class ContainerDefaults(msgspec.Struct, frozen=True, kw_only=True):
    """What a new container gets where its creator says nothing. Empty: what the engine does anyway.

    `seccomp_profile`: "" and "builtin" are ours, "unconfined", or the JSON text of another one.
    """

    log_driver: str = "json-file"
    log_options: dict[str, str] = {}
    ulimits: tuple[DefaultUlimit, ...] = ()
    shm_size: int = 0
    ipc_mode: str = ""
    cgroupns_mode: str = ""
    runtime: str = ""
    init: bool = False
    no_new_privileges: bool = False
    seccomp_profile: str = ""
    dns: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    publish_address: str = ""


class LiveSettings(msgspec.Struct, kw_only=True):
    """What changes while the daemon runs, all at once by `take`."""

    labels: dict[str, str] = msgspec.field(default_factory=dict)
    debug: bool = False
    defaults: ContainerDefaults = msgspec.field(default_factory=ContainerDefaults)
    runtimes: dict[str, Any] = msgspec.field(default_factory=dict)
    registry_mirrors: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    max_concurrent_downloads: int = 3
    max_concurrent_uploads: int = 5
    max_download_attempts: int = 5
    shutdown_timeout_s: float = SHUTDOWN_TIMEOUT_S

    def take(self, other: LiveSettings) -> None:
        for name in self.__struct_fields__:
            setattr(self, name, getattr(other, name))


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`root` holds state that survives a reboot, `run_dir` what does not (sockets, namespaces, secrets).

      `cgroup_parent` is a path below every controller; `hostname` the node's name; `warnings` are shown by `info`;
    `storage_driver` "" lets `storage.choice` choose.
    """

    root: Path
    run_dir: Path
    cgroup_parent: str = "swarmctl"
    hostname: str = ""
    storage_driver: str = ""
    storage_options: tuple[str, ...] = ()
    userns_remap: str = ""  # "default", USER or USER:GROUP of /etc/subuid and /etc/subgid; "" maps nothing
    live: LiveSettings = msgspec.field(default_factory=LiveSettings)
    engine_version: str = "0.1.0"
    warnings: tuple[str, ...] = ()

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
