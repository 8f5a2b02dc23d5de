"""What a caller asks of the engine: the request bodies of the Docker Engine API, typed and strict.

The structs have the API's field names (`ContainerConfig.attach_stdin` is `AttachStdin` in JSON), so decoding
a body with msgspec checks every type and names the bad field. Source: Docker Engine API, schemas
ContainerConfig, HostConfig, NetworkingConfig, ExecConfig, Mount. Unknown fields are ignored, as Docker does.
Null is accepted wherever the API's clients send it (`none_ok` fields are `X | None`).
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import field


class ApiStruct(msgspec.Struct, rename="pascal", kw_only=True):
    """Base: PascalCase in JSON."""


class HealthConfig(ApiStruct):
    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class ContainerConfig(ApiStruct):
    """Portable part of a container's configuration; the image's own configuration has the same shape."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = True
    attach_stderr: bool = True
    exposed_ports: dict[str, dict[str, Any]] | None = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] | None = None
    cmd: list[str] | str | None = None
    args_escaped: bool | None = None  # of Windows; images built by Docker carry it
    healthcheck: HealthConfig | None = None
    image: str = ""
    volumes: dict[str, dict[str, Any]] | None = None
    working_dir: str = ""
    entrypoint: list[str] | str | None = None
    network_disabled: bool | None = None
    mac_address: str | None = None
    on_build: list[str] | None = None
    labels: dict[str, str] | None = None
    stop_signal: str | None = None
    stop_timeout: int | None = None
    shell: list[str] | None = None


class PortBinding(ApiStruct):
    host_ip: str = ""
    host_port: str = ""


class RestartPolicy(ApiStruct):
    name: str = ""
    maximum_retry_count: int = 0


class LogConfig(ApiStruct):
    type: str = ""
    config: dict[str, str] | None = None


class DeviceMapping(ApiStruct):
    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = "rwm"


class WeightDevice(ApiStruct):
    """`weight` 10 to 1000, of the block device at `path`."""

    path: str
    weight: int = 0


class ThrottleDevice(ApiStruct):
    """`rate`: bytes or operations a second, of the block device at `path`."""

    path: str
    rate: int = 0


class Ulimit(ApiStruct):
    name: str = ""
    soft: int = 0
    hard: int = 0


class BindOptions(ApiStruct):
    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class VolumeDriverConfig(ApiStruct):
    name: str = ""
    options: dict[str, str] | None = None


class VolumeOptions(ApiStruct):
    no_copy: bool = False
    labels: dict[str, str] | None = None
    driver_config: VolumeDriverConfig | None = None
    subpath: str = ""


class TmpfsOptions(ApiStruct):
    size_bytes: int = 0
    mode: int = 0
    options: list[list[str]] | None = None


class MountPoint(ApiStruct):
    """HostConfig.Mounts[i]; `type` is bind, volume or tmpfs."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    tmpfs_options: TmpfsOptions | None = None
    image_options: dict[str, Any] | None = None


class HostConfig(ApiStruct):
    """The part of a container's configuration that depends on the host."""

    binds: list[str] | None = None
    container_id_file: str = field(default="", name="ContainerIDFile")
    log_config: LogConfig | None = None
    network_mode: str = ""
    port_bindings: dict[str, list[PortBinding] | None] | None = None
    restart_policy: RestartPolicy | None = None
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: list[str] | None = None
    mounts: list[MountPoint] | None = None
    console_size: list[int] | None = None
    annotations: dict[str, str] | None = None
    cap_add: list[str] | None = None
    cap_drop: list[str] | None = None
    cgroupns_mode: str = ""
    dns: list[str] | None = None
    dns_options: list[str] | None = None
    dns_search: list[str] | None = None
    extra_hosts: list[str] | None = None
    group_add: list[str] | None = None
    ipc_mode: str = ""
    cgroup: str = ""
    links: list[str] | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] | None = None
    storage_opt: dict[str, str] | None = None
    tmpfs: dict[str, str] | None = None
    uts_mode: str = field(default="", name="UTSMode")
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] | None = None
    runtime: str = ""
    isolation: str = ""
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None
    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: list[WeightDevice] | None = None
    blkio_device_read_bps: list[ThrottleDevice] | None = None
    blkio_device_write_bps: list[ThrottleDevice] | None = None
    blkio_device_read_iops: list[ThrottleDevice] | None = field(default=None, name="BlkioDeviceReadIOps")
    blkio_device_write_iops: list[ThrottleDevice] | None = field(default=None, name="BlkioDeviceWriteIOps")
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: list[DeviceMapping] | None = None
    device_cgroup_rules: list[str] | None = None
    device_requests: list[dict[str, Any]] | None = None
    kernel_memory: int = 0
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    ulimits: list[Ulimit] | None = None
    init: bool | None = None
    # Of Windows: decoded so that they are shown, and refused when they are set.
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_iops: int = field(default=0, name="IOMaximumIOps")
    io_maximum_bandwidth: int = field(default=0, name="IOMaximumBandwidth")


class EndpointIpam(ApiStruct):
    ipv4_address: str = field(default="", name="IPv4Address")
    ipv6_address: str = field(default="", name="IPv6Address")
    link_local_ips: list[str] | None = field(default=None, name="LinkLocalIPs")


class EndpointConfig(ApiStruct):
    """NetworkingConfig.EndpointsConfig[network]; also the body of network connect."""

    ipam_config: EndpointIpam | None = field(default=None, name="IPAMConfig")
    links: list[str] | None = None
    aliases: list[str] | None = None
    mac_address: str = ""
    driver_opts: dict[str, str] | None = None
    gw_priority: int = 0


class NetworkingConfig(ApiStruct):
    endpoints_config: dict[str, EndpointConfig | None] | None = None


class ContainerCreate(ContainerConfig):
    """Body of POST /containers/create."""

    host_config: HostConfig | None = None
    networking_config: NetworkingConfig | None = None


class ExecConfig(ApiStruct):
    """Body of POST /containers/{id}/exec."""

    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    console_size: list[int] | None = None
    detach_keys: str = ""
    tty: bool = False
    env: list[str] | None = None
    cmd: list[str] | None = None
    privileged: bool = False
    user: str = ""
    working_dir: str = ""


class VolumeCreate(ApiStruct):
    """Body of POST /volumes/create."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    cluster_volume_spec: dict[str, Any] | None = None


class IpamPool(ApiStruct):
    subnet: str = ""
    ip_range: str = field(default="", name="IPRange")
    gateway: str = ""
    auxiliary_addresses: dict[str, str] | None = None


class Ipam(ApiStruct):
    driver: str = ""
    config: list[IpamPool] | None = None
    options: dict[str, str] | None = None


class ConfigReference(ApiStruct):
    """Another network whose configuration is to be taken."""

    network: str = ""


class NetworkCreate(ApiStruct):
    """Body of POST /networks/create."""

    name: str
    driver: str = ""
    scope: str = ""
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: ConfigReference | None = None
    enable_ipv4: bool | None = field(default=None, name="EnableIPv4")
    enable_ipv6: bool = field(default=False, name="EnableIPv6")
    ipam: Ipam | None = field(default=None, name="IPAM")
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    check_duplicate: bool = False


class LogOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Which log lines: Unix seconds (0: open end), `tail` lines from the end (-1: all)."""

    stdout: bool = True
    stderr: bool = True
    follow: bool = False
    since: float = 0.0
    until: float = 0.0
    tail: int = -1


class LogRecord(msgspec.Struct, frozen=True):
    """One line (with its newline) or part of a very long one. `stream`: 1 stdout, 2 stderr."""

    stream: int
    timestamp_ns: int
    data: bytes


class SecretFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that exists only in memory (tmpfs) and is shown read-only in the container at `target`."""

    target: str
    data: bytes
    uid: int = 0
    gid: int = 0
    mode: int = 0o444


class TaskEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An interface whose address was chosen elsewhere (a cluster network). `cidr` with prefix length."""

    network: str
    cidr: str = ""
    mac: str = ""
    aliases: tuple[str, ...] = ()
