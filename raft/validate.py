"""What may stand in a spec: `problems(spec)` names every mistake, in Docker's words where Docker has some.

Pure, and a spec's own affair only: whether a named network or secret exists, or a port is free, is decided
where the store can be read. The first entry is the one a Docker client would have been shown.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from raft import constraints
from raft.errors import InvalidArgument
from raft.objects.base import MILLISECOND, SECOND, Annotations
from raft.objects.cluster import ClusterSpec, ConfigSpec, NetworkSpec, SecretSpec
from raft.objects.node import NodeSpec
from raft.objects.service import (
    ContainerSpec,
    EndpointMode,
    EndpointSpec,
    FileReference,
    HealthCheck,
    MountSpec,
    Placement,
    PublishMode,
    ResourceRequirements,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)

SECRET_BYTES_MAX = 500 * 1024
CONFIG_BYTES_MAX = 1000 * 1024
REPLICAS_MAX = 1_000_000
MEMORY_BYTES_MIN = 4 * 1024 * 1024
NANO_CPUS_MIN = 1_000_000
CERT_EXPIRY_NS_MIN = 3600 * SECOND

_DNS_NAME = re.compile(r"^[a-zA-Z0-9]+(?:[a-zA-Z0-9\-_]*[a-zA-Z0-9])?$")
_FILE_NAME = re.compile(r"^[a-zA-Z0-9]+(?:[a-zA-Z0-9\-_.]*[a-zA-Z0-9])?$")
_NETWORK_NAME = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$")
_HOSTNAME = re.compile(r"^[a-zA-Z0-9{]([a-zA-Z0-9\-_.{} ]*[a-zA-Z0-9}])?$")
_IMAGE = re.compile(
    r"^(?:[a-zA-Z0-9](?:[a-zA-Z0-9.\-]*[a-zA-Z0-9])?(?::[0-9]+)?/)?"
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
    r"(?::[\w][\w.\-]{0,127})?(?:@[a-zA-Z][a-zA-Z0-9]*:[0-9a-fA-F]{32,})?$"
)
_IMAGE_ID = re.compile(r"^sha256:[0-9a-f]{64}$")
_PROPAGATIONS = frozenset({"", "private", "rprivate", "shared", "rshared", "slave", "rslave"})


def problems(spec: object) -> list[str]:
    """Every mistake in a spec of any kind, worst first; empty when it is good."""
    check = _CHECKS.get(type(spec))
    assert check is not None, f"no validation for {type(spec).__name__}"
    return list(check(spec))


def require(spec: object) -> None:
    """Raises InvalidArgument with all the problems when there are some."""
    found = problems(spec)
    if found:
        raise InvalidArgument("; ".join(found))


def image_problem(reference: str) -> str | None:
    """Is this an image name, a name with tag or digest, or an image id?"""
    if _IMAGE.match(reference) or _IMAGE_ID.match(reference):
        return None
    return f'"{reference}" is not a valid repository/tag'


# ---- services ----


def _service(spec: ServiceSpec) -> Iterator[str]:
    yield from _dns_name(spec.annotations)
    yield from _task(spec.task)
    if spec.mode is ServiceMode.REPLICATED and not 0 <= spec.replicas <= REPLICAS_MAX:
        yield f"Number of replicas must be non-negative and at most {REPLICAS_MAX}, not {spec.replicas}"
    if spec.mode is ServiceMode.GLOBAL and spec.task.placement.max_replicas:
        yield "replicas-max-per-node can only be used with replicated mode"
    yield from _update("update", spec.update)
    yield from _update("rollback", spec.rollback)
    yield from _endpoint(spec.endpoint)


def _task(spec: TaskSpec) -> Iterator[str]:
    yield from _container(spec.container)
    yield from _resources(spec.resources)
    yield from _restart(spec.restart)
    yield from _placement(spec.placement)
    targets = [network.target for network in spec.networks]
    if "" in targets:
        yield "TaskSpec: network target must be provided"
    for target in _repeated(targets):
        yield f"TaskSpec: network {target} is attached more than once"


def _container(spec: ContainerSpec) -> Iterator[str]:
    if not spec.image:
        yield "ContainerSpec: image reference must be provided"
    elif problem := image_problem(spec.image):
        yield f"ContainerSpec: {problem}"
    if spec.hostname and (len(spec.hostname) > 255 or not _HOSTNAME.match(spec.hostname)):
        yield f"ContainerSpec: invalid hostname '{spec.hostname}'"
    if spec.working_dir and not spec.working_dir.startswith(("/", "{")):
        yield f"ContainerSpec: working directory '{spec.working_dir}' must be an absolute path"
    for entry in spec.env:
        if not entry or entry.startswith("="):
            yield f"ContainerSpec: invalid environment variable: {entry}"
    if spec.stop_grace_period_ns is not None and spec.stop_grace_period_ns < 0:
        yield "ContainerSpec: stop-grace-period cannot be negative"
    for mount in spec.mounts:
        yield from _mount(mount)
    for target in _repeated(mount.target for mount in spec.mounts):
        yield f"ContainerSpec: duplicate mount point: {target}"
    yield from _references("secret", spec.secrets)
    yield from _references("config", spec.configs)
    if spec.health_check is not None:
        yield from _health_check(spec.health_check)
    yield from _addresses(spec)


def _addresses(spec: ContainerSpec) -> Iterator[str]:
    for server in spec.dns_nameservers:
        if not _is_address(server):
            yield f"ContainerSpec: '{server}' is not a valid DNS server address"
    for line in spec.hosts:
        fields = line.split()
        if len(fields) < 2 or not _is_address(fields[0]):
            yield f"ContainerSpec: invalid host entry '{line}': expected an address and a name"


def _mount(mount: MountSpec) -> Iterator[str]:
    where = f'invalid mount config for type "{mount.type}"'
    if mount.type not in ("bind", "volume", "tmpfs"):
        yield f'mount type unknown: "{mount.type}"'
        return
    if not mount.target:
        yield f"{where}: field Target must not be empty"
    elif not mount.target.startswith(("/", "{")):
        yield f"{where}: invalid mount path: '{mount.target}' mount path must be absolute"
    elif mount.target == "/":
        yield f"{where}: invalid specification: destination can't be '/'"
    if mount.type == "bind" and not mount.source:
        yield f"{where}: field Source must not be empty"
    elif mount.type == "bind" and not mount.source.startswith(("/", "{")):
        yield f"{where}: invalid mount path: '{mount.source}' mount path must be absolute"
    if mount.type == "tmpfs" and mount.source:
        yield f"{where}: field Source must not be specified"
    if mount.type == "volume" and mount.source.startswith("/"):
        yield f"{where}: invalid volume name '{mount.source}': use type bind for a path"
    if mount.propagation not in _PROPAGATIONS:
        yield f"{where}: invalid propagation mode: {mount.propagation}"
    elif mount.propagation and mount.type != "bind":
        yield f"{where}: propagation can only be used with bind mounts"
    if mount.tmpfs_size_bytes < 0:
        yield f"{where}: tmpfs size cannot be negative"


def _references(word: str, references: tuple[FileReference, ...]) -> Iterator[str]:
    owners: dict[str, str] = {}
    for reference in references:
        if not reference.id or not reference.name:
            yield f"malformed {word} reference"
            continue
        if not reference.target:
            yield f"malformed {word} reference, no target provided"
            continue
        if reference.target in owners:
            yield (
                f"{word} references '{reference.name}' and '{owners[reference.target]}' "
                f"have a conflicting target: '{reference.target}'"
            )
        owners[reference.target] = reference.name
        if not reference.uid.isdigit() or not reference.gid.isdigit():
            yield f"{word} reference '{reference.name}': uid and gid must be numbers"
        if not 0 <= reference.mode <= 0o7777:
            yield f"{word} reference '{reference.name}': invalid mode {reference.mode:o}"


def _health_check(check: HealthCheck) -> Iterator[str]:
    durations = {
        "Interval": check.interval_ns,
        "Timeout": check.timeout_ns,
        "StartPeriod": check.start_period_ns,
        "StartInterval": check.start_interval_ns,
    }
    for name, value in durations.items():
        if value != 0 and value < MILLISECOND:
            yield f"{name} in Healthcheck cannot be less than 1ms"
    if check.retries < 0:
        yield "Retries in Healthcheck cannot be negative"
    if check.test and check.test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        yield f'Unknown Type "{check.test[0]}" in Healthcheck (try "CMD")'


def _resources(resources: ResourceRequirements) -> Iterator[str]:
    for word, part in (("limit", resources.limits), ("reservation", resources.reservations)):
        if part.nano_cpus != 0 and part.nano_cpus < NANO_CPUS_MIN:
            yield f"invalid cpu value {part.nano_cpus / 1e9:g}: Must be at least {NANO_CPUS_MIN / 1e9:g}"
        if part.memory_bytes != 0 and part.memory_bytes < MEMORY_BYTES_MIN:
            yield f"invalid memory value {part.memory_bytes}: Must be at least 4MiB"
        if part.pids < 0:
            yield f"invalid pids {word} {part.pids}: must not be negative"
    limits, reserved = resources.limits, resources.reservations
    if limits.memory_bytes and reserved.memory_bytes > limits.memory_bytes:
        yield "memory reservation must not be larger than the memory limit"
    if limits.nano_cpus and reserved.nano_cpus > limits.nano_cpus:
        yield "cpu reservation must not be larger than the cpu limit"


def _restart(policy: RestartPolicy) -> Iterator[str]:
    if policy.delay_ns is not None and policy.delay_ns < 0:
        yield "TaskSpec: restart-delay cannot be negative"
    if policy.max_attempts < 0:
        yield "TaskSpec: restart-max-attempts cannot be negative"
    if policy.window_ns < 0:
        yield "TaskSpec: restart-window cannot be negative"


def _placement(placement: Placement) -> Iterator[str]:
    for text in placement.constraints:
        try:
            constraints.parse(text)
        except InvalidArgument as err:
            yield f"{err} (constraint '{text}')"
    for preference in placement.preferences:
        if not preference.descriptor.lower().startswith(("node.labels.", "engine.labels.")):
            yield f"placement preference '{preference.descriptor}' must be node.labels.* or engine.labels.*"
    if placement.max_replicas < 0:
        yield "replicas-max-per-node cannot be negative"


def _update(word: str, config: UpdateConfig) -> Iterator[str]:
    if config.parallelism < 0:
        yield f"TaskSpec: {word}-parallelism cannot be negative"
    if config.delay_ns < 0:
        yield f"TaskSpec: {word}-delay cannot be negative"
    if config.monitor_ns is not None and config.monitor_ns < 0:
        yield f"TaskSpec: {word}-monitor cannot be negative"
    if not 0 <= config.max_failure_ratio <= 1:
        yield f"TaskSpec: {word}-maxfailureratio cannot be less than 0 or bigger than 1"
    if word == "rollback" and config.failure_action == "rollback":
        yield "TaskSpec: rollback-failure-action must be pause or continue"


def _endpoint(spec: EndpointSpec) -> Iterator[str]:
    published: set[tuple[int, str, str]] = set()
    for port in spec.ports:
        if port.protocol not in ("tcp", "udp", "sctp"):
            yield f"EndpointSpec: invalid protocol '{port.protocol}': must be tcp, udp or sctp"
        if not 1 <= port.target <= 65535:
            yield f"EndpointSpec: invalid target port {port.target}: must be between 1 and 65535"
        if not 0 <= port.published <= 65535:
            yield f"EndpointSpec: invalid published port {port.published}: must be between 1 and 65535"
        if spec.mode is EndpointMode.DNSRR and port.mode is PublishMode.INGRESS:
            yield "EndpointSpec: port published with ingress mode can't be used with dnsrr mode"
        key = (port.published, port.protocol, port.mode.value)
        if port.published and key in published:
            yield f"EndpointSpec: duplicate published ports provided: {port.published}/{port.protocol}"
        published.add(key)


# ---- the others ----


def _node(spec: NodeSpec) -> Iterator[str]:
    if spec.annotations.name:
        yield from _dns_name(spec.annotations)
    yield from _labels(spec.annotations)


def _network(spec: NetworkSpec) -> Iterator[str]:
    name = spec.annotations.name
    if not name:
        yield "network name must be provided"
    elif len(name) > 255 or not _NETWORK_NAME.match(name):
        yield f"invalid network name '{name}': only [a-zA-Z0-9][a-zA-Z0-9_.-]* is allowed"
    yield from _labels(spec.annotations)
    if not spec.driver.name:
        yield "driver name: must be provided"
    if spec.ingress and spec.attachable:
        yield "ingress network cannot be attachable"
    if spec.ingress and spec.internal:
        yield "ingress network cannot be internal"
    for pool in spec.ipam:
        yield from _ipam(pool.subnet, {"ip-range": pool.ip_range, "gateway": pool.gateway})


def _ipam(subnet: str, inside: dict[str, str]) -> Iterator[str]:
    if not subnet:
        for word, value in inside.items():
            if value:
                yield f"ipam configuration: {word} {value} needs a subnet"
        return
    try:
        network = ipaddress.ip_network(subnet)
    except ValueError as err:
        yield f"ipam configuration: invalid subnet {subnet}: {err}"
        return
    for word, value in inside.items():
        if value and not _contains(network, value):
            yield f"ipam configuration: {word} {value} is not inside the subnet {subnet}"


def _secret(spec: SecretSpec) -> Iterator[str]:
    yield from _file_name(spec.annotations)
    if not 0 < len(spec.data) <= SECRET_BYTES_MAX:
        yield f"secret data must be larger than 0 and less than {SECRET_BYTES_MAX} bytes"


def _config(spec: ConfigSpec) -> Iterator[str]:
    yield from _file_name(spec.annotations)
    if not 0 < len(spec.data) <= CONFIG_BYTES_MAX:
        yield f"config data must be larger than 0 and less than {CONFIG_BYTES_MAX} bytes"


def _cluster(spec: ClusterSpec) -> Iterator[str]:
    if spec.annotations.name != "default":
        yield "modification of the cluster's name is not allowed"
    if spec.heartbeat_ns <= 0:
        yield "heartbeat time interval must be positive"
    if spec.node_cert_expiry_ns < CERT_EXPIRY_NS_MIN:
        yield "minimum certificate expiry time is 1h0m0s"
    if spec.task_history_limit < 0:
        yield "task history limit cannot be negative"
    if spec.snapshot_interval <= 0:
        yield "snapshot interval must be positive"


# ---- names, labels and addresses ----


def _dns_name(annotations: Annotations) -> Iterator[str]:
    name = annotations.name
    if not name:
        yield "meta: name must be provided"
    elif not _DNS_NAME.match(name):
        yield "name must be valid as a DNS name component"
    elif len(name) > 63:
        yield "name must be 63 characters or fewer"
    yield from _labels(annotations)


def _file_name(annotations: Annotations) -> Iterator[str]:
    if not annotations.name:
        yield "name must be provided"
    elif len(annotations.name) > 64 or not _FILE_NAME.match(annotations.name):
        yield (
            "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, "
            "and the start and end character must be [a-zA-Z0-9]"
        )
    yield from _labels(annotations)


def _labels(annotations: Annotations) -> Iterator[str]:
    if "" in annotations.labels:
        yield "label keys must not be empty"


def _repeated(values: Iterable[str]) -> list[str]:
    seen: set[str] = set()
    return [value for value in values if value and (value in seen or seen.add(value))]  # type: ignore[func-returns-value]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _contains(network: ipaddress.IPv4Network | ipaddress.IPv6Network, text: str) -> bool:
    try:
        inner = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return inner.version == network.version and inner.subnet_of(network)  # type: ignore[arg-type]


_CHECKS: dict[type, Callable[[Any], Iterator[str]]] = {
    ServiceSpec: _service,
    TaskSpec: _task,
    ContainerSpec: _container,
    NodeSpec: _node,
    NetworkSpec: _network,
    SecretSpec: _secret,
    ConfigSpec: _config,
    ClusterSpec: _cluster,
}
