"""Request bodies of the swarm areas, typed and strict: the API's field names, the API's shapes.

Source: Docker Engine API, ServiceSpec, TaskSpec, NodeSpec, SwarmSpec, SecretSpec, ConfigSpec. A field that
this cluster cannot honour yet is still declared, so that `convert` can refuse it by name.
"""

from __future__ import annotations

from typing import Any

from msgspec import field

from engine.config import ApiStruct, HealthConfig, MountPoint, Ulimit


class DriverBody(ApiStruct):
    name: str = ""
    options: dict[str, str] | None = None


class FileTarget(ApiStruct):
    name: str = ""
    uid: str = field(default="0", name="UID")
    gid: str = field(default="0", name="GID")
    mode: int = 0o444


class SecretReference(ApiStruct):
    file: FileTarget | None = None
    secret_id: str = field(default="", name="SecretID")
    secret_name: str = ""


class ConfigReference(ApiStruct):
    file: FileTarget | None = None
    runtime: dict[str, Any] | None = None
    config_id: str = field(default="", name="ConfigID")
    config_name: str = ""


class DnsConfig(ApiStruct):
    nameservers: list[str] | None = None
    search: list[str] | None = None
    options: list[str] | None = None


class ContainerBody(ApiStruct):
    image: str = ""
    command: list[str] | None = None
    args: list[str] | None = None
    hostname: str = ""
    env: list[str] | None = None
    dir: str = ""
    user: str = ""
    groups: list[str] | None = None
    labels: dict[str, str] | None = None
    privileges: dict[str, Any] | None = None
    tty: bool = field(default=False, name="TTY")
    open_stdin: bool = False
    read_only: bool = False
    mounts: list[MountPoint] | None = None
    stop_signal: str = ""
    stop_grace_period: int | None = None
    health_check: HealthConfig | None = field(default=None, name="Healthcheck")
    health_check_as_documented: HealthConfig | None = field(default=None, name="HealthCheck")
    hosts: list[str] | None = None
    dns_config: DnsConfig | None = field(default=None, name="DNSConfig")
    secrets: list[SecretReference] | None = None
    configs: list[ConfigReference] | None = None
    isolation: str = ""
    init: bool | None = None
    sysctls: dict[str, str] | None = None
    capability_add: list[str] | None = None
    capability_drop: list[str] | None = None
    ulimits: list[Ulimit] | None = None
    oom_score_adj: int = 0


class ResourcesBody(ApiStruct):
    nano_cpus: int = field(default=0, name="NanoCPUs")
    memory_bytes: int = 0
    pids: int = 0
    generic_resources: list[Any] | None = None


class RequirementsBody(ApiStruct):
    limits: ResourcesBody | None = None
    reservations: ResourcesBody | None = None
    swap_bytes: int | None = None
    memory_swappiness: int | None = None


class RestartBody(ApiStruct):
    condition: str = ""
    delay: int | None = None
    max_attempts: int | None = None
    window: int | None = None


class SpreadBody(ApiStruct):
    spread_descriptor: str = ""


class PreferenceBody(ApiStruct):
    spread: SpreadBody | None = None


class PlatformBody(ApiStruct):
    architecture: str = ""
    os: str = field(default="", name="OS")


class PlacementBody(ApiStruct):
    constraints: list[str] | None = None
    preferences: list[PreferenceBody] | None = None
    max_replicas: int = 0
    platforms: list[PlatformBody] | None = None


class AttachmentBody(ApiStruct):
    target: str = ""
    aliases: list[str] | None = None
    driver_opts: dict[str, str] | None = None


class TaskBody(ApiStruct):
    container_spec: ContainerBody | None = None
    plugin_spec: dict[str, Any] | None = None
    network_attachment_spec: dict[str, Any] | None = None
    resources: RequirementsBody | None = None
    restart_policy: RestartBody | None = None
    placement: PlacementBody | None = None
    force_update: int = 0
    runtime: str = ""
    networks: list[AttachmentBody] | None = None
    log_driver: DriverBody | None = None


class ReplicatedBody(ApiStruct):
    replicas: int | None = None


class ModeBody(ApiStruct, forbid_unknown_fields=True):
    replicated: ReplicatedBody | None = None
    global_: dict[str, Any] | None = field(default=None, name="Global")
    replicated_job: dict[str, Any] | None = None
    global_job: dict[str, Any] | None = None


class UpdateBody(ApiStruct):
    parallelism: int = 0
    delay: int = 0
    failure_action: str = ""
    monitor: int | None = None
    max_failure_ratio: float = 0.0
    order: str = ""


class PortBody(ApiStruct):
    name: str = ""
    protocol: str = ""
    target_port: int = 0
    published_port: int = 0
    publish_mode: str = ""


class EndpointBody(ApiStruct):
    mode: str = ""
    ports: list[PortBody] | None = None


class ServiceBody(ApiStruct):
    """Body of POST /services/create and /services/{id}/update."""

    name: str = ""
    labels: dict[str, str] | None = None
    task_template: TaskBody | None = None
    mode: ModeBody | None = None
    update_config: UpdateBody | None = None
    rollback_config: UpdateBody | None = None
    networks: list[AttachmentBody] | None = None
    endpoint_spec: EndpointBody | None = None


class NodeBody(ApiStruct):
    """Body of POST /nodes/{id}/update."""

    name: str = ""
    labels: dict[str, str] | None = None
    role: str = ""
    availability: str = ""


class NamedData(ApiStruct):
    """Body of secret and config creation; `data` is base64."""

    name: str = ""
    labels: dict[str, str] | None = None
    data: str | None = None
    driver: DriverBody | None = None
    templating: DriverBody | None = None


class OrchestrationBody(ApiStruct):
    task_history_retention_limit: int | None = None


class RaftBody(ApiStruct):
    snapshot_interval: int = 0
    keep_old_snapshots: int | None = None
    log_entries_for_slow_followers: int = 0
    election_tick: int = 0
    heartbeat_tick: int = 0


class DispatcherBody(ApiStruct):
    heartbeat_period: int = 0


class CaBody(ApiStruct):
    node_cert_expiry: int = 0
    external_c_as: list[Any] | None = field(default=None, name="ExternalCAs")
    signing_ca_cert: str = field(default="", name="SigningCACert")
    signing_ca_key: str = field(default="", name="SigningCAKey")
    force_rotate: int = 0


class EncryptionBody(ApiStruct):
    auto_lock_managers: bool = False


class SwarmSpecBody(ApiStruct):
    """The cluster's settings; body of POST /swarm/update."""

    name: str = ""
    labels: dict[str, str] | None = None
    orchestration: OrchestrationBody | None = None
    raft: RaftBody | None = None
    dispatcher: DispatcherBody | None = None
    ca_config: CaBody | None = field(default=None, name="CAConfig")
    encryption_config: EncryptionBody | None = None
    task_defaults: dict[str, Any] | None = None


class SwarmInitBody(ApiStruct):
    """Body of POST /swarm/init."""

    listen_addr: str = ""
    advertise_addr: str = ""
    data_path_addr: str = ""
    data_path_port: int = 0
    default_addr_pool: list[str] | None = None
    force_new_cluster: bool = False
    subnet_size: int = 0
    spec: SwarmSpecBody | None = None
    availability: str = ""


class SwarmUnlockBody(ApiStruct):
    """Body of POST /swarm/unlock."""

    unlock_key: str = ""


class SwarmJoinBody(ApiStruct):
    """Body of POST /swarm/join."""

    listen_addr: str = ""
    advertise_addr: str = ""
    data_path_addr: str = ""
    remote_addrs: list[str] | None = None
    join_token: str = ""
    availability: str = ""
