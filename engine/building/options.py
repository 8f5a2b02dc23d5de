"""What a caller asks of a build: the query of POST /build, checked as far as it can be without the host."""

from __future__ import annotations

import msgspec

from engine.config import HostConfig, LogConfig, Ulimit
from engine.errors import InvalidParameter, NotImplementedHere
from engine.images.reference import parse_reference

DOCKERFILE_NAME = "Dockerfile"
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


def check_options(options: BuildOptions) -> None:
    """Refuse by name what the classic builder does not do. Names and tags are made whole."""
    if options.version == "2":
        raise NotImplementedHere(CLASSIC_ONLY)
    if options.version not in ("", "1"):
        raise InvalidParameter(f"invalid version {options.version}")
    if options.squash:
        raise InvalidParameter(
            "squash is only supported with experimental mode, which this engine does not have: use several stages "
            "and COPY --from to make an image small"
        )
    if options.outputs not in ("", "[]", "null"):
        raise InvalidParameter(
            "outputs require BuildKit: leave them out, and use `save` or `cp` on the image that was built"
        )
    if options.security_options:
        raise InvalidParameter(
            "The daemon on this platform does not support setting security options on build"
        )
    if options.isolation not in ("", "default"):
        raise InvalidParameter(f'isolation "{options.isolation}" is not supported on linux: use default')
    if options.shm_size < 0:
        raise InvalidParameter("SHM size can not be less than 0")
    names = {}
    for tag in options.tags:
        name = parse_reference(tag)
        if name.digest:
            raise InvalidParameter("build tag cannot contain a digest")
        names[name.familiar] = name
    options.tags = list(names)
