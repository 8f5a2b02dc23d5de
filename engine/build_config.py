"""What a caller asks of a build and of a commit: the queries of POST /build and POST /commit, typed.

Nothing is checked here but types; `engine.building.options` and `engine.commits` judge the values.
"""

from __future__ import annotations

import msgspec

from engine.config import ContainerConfig, HostConfig, LogConfig, Ulimit

CLASSIC_ONLY = (
    "buildkit not supported by daemon: this engine has the classic builder; set DOCKER_BUILDKIT=0 and build again "
    "(for Compose v1 also COMPOSE_DOCKER_CLI_BUILD=0)"
)


class BuildOptions(msgspec.Struct, kw_only=True):
    """Sizes in bytes, CPU times in microseconds; `build_args` with None: known, and without a value."""

    dockerfile: str = ""
    tags: list[str] = []
    remote: str = ""
    quiet: bool = False
    no_cache: bool = False
    cache_from: list[str] = []
    pull: bool = False
    rm: bool = True
    force_rm: bool = False
    build_args: dict[str, str | None] = {}
    labels: dict[str, str] = {}
    target: str = ""
    platform: str = ""
    network_mode: str = ""
    extra_hosts: list[str] = []
    memory: int = 0
    memory_swap: int = 0
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    shm_size: int = 0
    ulimits: list[Ulimit] = []
    cgroup_parent: str = ""
    squash: bool = False
    security_options: list[str] = []
    isolation: str = ""
    outputs: str = ""
    version: str = "1"
    credentials: dict[str, dict[str, str]] = {}

    def host_config(self) -> HostConfig:
        """Of the containers that RUN makes: the build's limits and network, and no log."""
        return HostConfig(
            network_mode=self.network_mode,
            extra_hosts=list(self.extra_hosts) or None,
            memory=self.memory,
            memory_swap=self.memory_swap,
            cpu_shares=self.cpu_shares,
            cpu_period=self.cpu_period,
            cpu_quota=self.cpu_quota,
            cpuset_cpus=self.cpuset_cpus,
            cpuset_mems=self.cpuset_mems,
            shm_size=self.shm_size,
            ulimits=list(self.ulimits) or None,
            cgroup_parent=self.cgroup_parent,
            log_config=LogConfig(type="none"),
        )


class CommitOptions(msgspec.Struct, kw_only=True):
    """`config` goes over the container's own, and `changes` over both."""

    repo: str = ""
    tag: str = ""
    comment: str = ""
    author: str = ""
    pause: bool = True
    changes: list[str] = []
    config: ContainerConfig | None = None
