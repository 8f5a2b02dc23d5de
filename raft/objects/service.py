"""Services: what the user wants to run, and how copies are kept, updated and restarted.

Field names are the snake_case forms of the Docker Engine API's; `node.api.convert` is the only translator.
`Service.spec` is exactly what the user wrote, plus defaults filled once by `raft.defaults`.
"""

from __future__ import annotations

import enum

from raft.objects.base import Annotations, Driver, ObjectRecord, Platform, Record


class ServiceMode(enum.StrEnum):
    REPLICATED = "replicated"
    GLOBAL = "global"


class RestartCondition(enum.StrEnum):
    NONE = "none"
    ON_FAILURE = "on-failure"
    ANY = "any"


class UpdateOrder(enum.StrEnum):
    STOP_FIRST = "stop-first"
    START_FIRST = "start-first"


class FailureAction(enum.StrEnum):
    PAUSE = "pause"
    CONTINUE = "continue"
    ROLLBACK = "rollback"


class UpdateState(enum.StrEnum):
    UPDATING = "updating"
    PAUSED = "paused"
    COMPLETED = "completed"
    ROLLBACK_STARTED = "rollback_started"
    ROLLBACK_PAUSED = "rollback_paused"
    ROLLBACK_COMPLETED = "rollback_completed"


class PublishMode(enum.StrEnum):
    INGRESS = "ingress"
    HOST = "host"


class EndpointMode(enum.StrEnum):
    VIP = "vip"
    DNSRR = "dnsrr"


class MountSpec(Record, frozen=True):
    """One mount of a container. `type` is bind, volume or tmpfs."""

    type: str = "volume"
    source: str = ""
    target: str = ""
    read_only: bool = False
    propagation: str = ""
    no_copy: bool = False
    volume_labels: dict[str, str] = {}
    volume_driver: Driver = Driver()
    tmpfs_size_bytes: int = 0
    tmpfs_mode: int = 0


class FileReference(Record, frozen=True):
    """A secret or config as a file in the container. `id` is of the secret or config."""

    id: str
    name: str
    target: str
    uid: str = "0"
    gid: str = "0"
    mode: int = 0o444


class HealthCheck(Record, frozen=True):
    test: tuple[str, ...] = ()
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


class ContainerSpec(Record, frozen=True):
    image: str = ""
    command: tuple[str, ...] = ()  # replaces the image's entrypoint
    args: tuple[str, ...] = ()  # replaces the image's command
    env: tuple[str, ...] = ()
    hostname: str = ""
    working_dir: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    mounts: tuple[MountSpec, ...] = ()
    secrets: tuple[FileReference, ...] = ()
    configs: tuple[FileReference, ...] = ()
    stop_signal: str = ""
    stop_grace_period_ns: int | None = None
    health_check: HealthCheck | None = None
    hosts: tuple[str, ...] = ()  # "address name [name...]" lines of /etc/hosts
    dns_nameservers: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    tty: bool = False
    open_stdin: bool = False
    read_only: bool = False
    init: bool | None = None
    sysctls: dict[str, str] = {}
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    ulimits: tuple[tuple[str, int, int], ...] = ()  # name, soft, hard
    registry_auth: str = ""  # X-Registry-Auth for pulling the image; never shown


class Resources(Record, frozen=True):
    nano_cpus: int = 0
    memory_bytes: int = 0
    pids: int = 0


class ResourceRequirements(Record, frozen=True):
    limits: Resources = Resources()
    reservations: Resources = Resources()


class RestartPolicy(Record, frozen=True):
    condition: RestartCondition = RestartCondition.ANY
    delay_ns: int | None = None
    max_attempts: int = 0  # 0: no limit
    window_ns: int = 0  # 0: attempts are counted for ever


class SpreadPreference(Record, frozen=True):
    descriptor: str  # such as node.labels.rack


class Placement(Record, frozen=True):
    constraints: tuple[str, ...] = ()
    preferences: tuple[SpreadPreference, ...] = ()
    max_replicas: int = 0  # per node; 0: no limit
    platforms: tuple[Platform, ...] = ()


class NetworkAttachmentSpec(Record, frozen=True):
    target: str  # network id (the API resolves names to ids)
    aliases: tuple[str, ...] = ()
    driver_options: dict[str, str] = {}


class TaskSpec(Record, frozen=True):
    container: ContainerSpec = ContainerSpec()
    resources: ResourceRequirements = ResourceRequirements()
    restart: RestartPolicy = RestartPolicy()
    placement: Placement = Placement()
    networks: tuple[NetworkAttachmentSpec, ...] = ()
    log_driver: Driver | None = None
    force_update: int = 0


class UpdateConfig(Record, frozen=True):
    parallelism: int = 1  # 0: all at once
    delay_ns: int = 0
    failure_action: FailureAction = FailureAction.PAUSE
    monitor_ns: int | None = None
    max_failure_ratio: float = 0.0
    order: UpdateOrder = UpdateOrder.STOP_FIRST


class PortConfig(Record, frozen=True):
    """One published port. `published` 0 in a spec: the allocator chooses 30000-32767."""

    target: int
    published: int = 0
    protocol: str = "tcp"
    mode: PublishMode = PublishMode.INGRESS
    name: str = ""


class EndpointSpec(Record, frozen=True):
    mode: EndpointMode = EndpointMode.VIP
    ports: tuple[PortConfig, ...] = ()


class ServiceSpec(Record, frozen=True):
    annotations: Annotations = Annotations()
    task: TaskSpec = TaskSpec()
    mode: ServiceMode = ServiceMode.REPLICATED
    replicas: int = 1  # replicated services only
    update: UpdateConfig = UpdateConfig()
    rollback: UpdateConfig = UpdateConfig()
    endpoint: EndpointSpec = EndpointSpec()


class VirtualIP(Record, frozen=True):
    network_id: str
    address: str  # with prefix length: 10.0.1.2/24


class Endpoint(Record, frozen=True):
    """Written by the allocator: the spec as allocated, ports with numbers, one VIP per network."""

    spec: EndpointSpec = EndpointSpec()
    ports: tuple[PortConfig, ...] = ()
    virtual_ips: tuple[VirtualIP, ...] = ()


class UpdateStatus(Record, frozen=True):
    """Written by the updater only."""

    state: UpdateState = UpdateState.UPDATING
    started_at: float = 0.0
    completed_at: float = 0.0
    message: str = ""


class Service(ObjectRecord, frozen=True):
    spec: ServiceSpec = ServiceSpec()
    spec_version: int = 1  # +1 whenever spec.task changes; tasks carry the one they were made from
    previous_spec: ServiceSpec | None = None
    endpoint: Endpoint | None = None
    update_status: UpdateStatus | None = None
    pending_delete: bool = False
