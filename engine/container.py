"""One container of this host: what was asked for, where its things are, and its state.

The record is what the database stores; nothing here does I/O. States: created -> running <-> paused ->
exited (or restarting) -> removing -> gone; `dead` when a removal failed half way.
"""

from __future__ import annotations

import enum

import msgspec

from engine.config import ContainerConfig, EndpointConfig, HostConfig, TaskEndpoint


class Status(enum.StrEnum):
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    EXITED = "exited"
    REMOVING = "removing"
    DEAD = "dead"

    @property
    def has_process(self) -> bool:
        return self in (Status.RUNNING, Status.PAUSED)

    @property
    def is_up(self) -> bool:
        """As Docker counts: also between an exit and the restart that follows."""
        return self.has_process or self is Status.RESTARTING


class HealthProbe(msgspec.Struct, kw_only=True):
    start: float
    end: float
    exit_code: int
    output: str


class Health(msgspec.Struct, kw_only=True):
    """`status`: starting, healthy, unhealthy. At most five probes are kept."""

    status: str = "starting"
    failing_streak: int = 0
    log: list[HealthProbe] = []


class State(msgspec.Struct, kw_only=True):
    """Times are Unix seconds, 0.0 = never. `start_ticks` tells a process from a later one with its pid."""

    status: Status = Status.CREATED
    pid: int = 0
    start_ticks: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: float = 0.0
    finished_at: float = 0.0
    stopped_by_user: bool = False
    removes_volumes: bool = False  # while REMOVING: its anonymous volumes go too
    restart_count: int = 0  # since somebody started it
    quick_exits: int = 0  # see engine.restart
    health: Health | None = None


class ResolvedMount(msgspec.Struct, kw_only=True):
    """A mount with its host side known. `kind`: bind, volume, tmpfs."""

    kind: str
    source: str
    target: str
    read_only: bool = False
    name: str = ""  # volume name
    driver: str = ""
    propagation: str = ""
    non_recursive: bool = False  # what is mounted below a bind source is left out
    read_only_top: bool = False  # read-only does not reach what is mounted below
    subpath: str = ""  # the part of a volume that is mounted
    mode: str = ""  # the options string as given
    options: list[str] = []
    copy_up: bool = False
    anonymous: bool = False


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """`--link`: the container with that id is known to this one as `alias` as well."""

    container_id: str
    alias: str


class Container(msgspec.Struct, kw_only=True):
    """`config` is merged with the image's. `endpoints` maps a network (as named by the user) to its wishes."""

    id: str
    name: str
    created_at: float
    image: str
    image_id: str
    config: ContainerConfig
    host_config: HostConfig
    endpoints: dict[str, EndpointConfig]
    task_endpoints: list[TaskEndpoint] = []
    mounts: list[ResolvedMount] = []
    process_args: list[str] = []
    links: list[Link] = []
    has_memory_files: bool = False
    driver: str = ""
    state: State

    @property
    def short_id(self) -> str:
        return self.id[:12]

    @property
    def is_running(self) -> bool:
        return self.state.status.has_process

    @property
    def labels(self) -> dict[str, str]:
        return self.config.labels or {}

    @property
    def network_mode(self) -> str:
        mode = self.host_config.network_mode
        return "bridge" if mode in ("", "default") else mode

    def event_attributes(self) -> dict[str, str]:
        return {**self.labels, "image": self.image, "name": self.name}
