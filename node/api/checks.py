"""What may stand in a container's configuration, as far as it can be told without the host.

Each problem names the field or the value, in Docker's words where Docker has some (moby: daemon/container.go,
daemon/daemon_unix.go, runconfig). The engine judges what depends on images, volumes and names.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence

from engine.config import ContainerCreate, HostConfig, Ulimit
from engine.errors import InvalidParameter

_ULIMITS = frozenset(
    [
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ]
)
_CPUS = re.compile(r"\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*", re.ASCII)
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.ASCII)
_HOST_PORT = re.compile(r"(?:(\d{1,5})(?:-(\d{1,5}))?)?", re.ASCII)


def check_container(body: ContainerCreate) -> None:
    """InvalidParameter with the first problem."""
    if body.host_config is not None:
        check_console_size(body.host_config.console_size)
    for problem in problems(body):
        raise InvalidParameter(problem)


def check_console_size(size: Sequence[int] | None) -> None:
    """InvalidParameter for what is no height and width; the kernel keeps 16 bits of each."""
    if size and (len(size) != 2 or not all(0 <= value <= 65535 for value in size)):
        raise InvalidParameter(f"ConsoleSize {list(size)}: give a height and a width from 0 to 65535")


def problems(body: ContainerCreate) -> Iterator[str]:
    """Every problem, the first one first."""
    for port in body.exposed_ports or ():
        if not _is_port(_PORT, port):
            yield f"invalid port in ExposedPorts: {port}"
    if body.host_config is not None:
        yield from _host(body.host_config)


def _host(host: HostConfig) -> Iterator[str]:
    yield from _resources(host)
    for limit in host.ulimits or ():
        yield from ulimit_problems(limit)
    yield from _network(host)
    if host.restart_policy is not None and host.restart_policy.maximum_retry_count < 0:
        yield "invalid restart policy: maximum retry count cannot be negative"
    for device in host.devices or ():
        if not set(device.cgroup_permissions) <= set("rwm"):
            yield f"invalid CgroupPermissions in Devices: {device.cgroup_permissions}: use r, w and m"


def _resources(host: HostConfig) -> Iterator[str]:
    swappiness = host.memory_swappiness
    if swappiness is not None and not -1 <= swappiness <= 100:
        yield f"invalid value: {swappiness}. Valid memory swappiness range is 0-100"
    if host.cpu_shares < 0:
        yield f"invalid CPU shares ({host.cpu_shares}): value must be a positive integer"
    if host.cpu_period and not 1_000 <= host.cpu_period <= 1_000_000:
        yield "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
    if 0 < host.cpu_quota < 1_000:
        yield "CPU cfs quota can not be less than 1ms (i.e. 1000)"
    for word, value in (("cpus", host.cpuset_cpus), ("mems", host.cpuset_mems)):
        if value and not _CPUS.fullmatch(value):
            yield f"Invalid value {value} for cpuset {word}"
    if host.blkio_weight and not 10 <= host.blkio_weight <= 1000:
        yield "Range of blkio weight is from 10 to 1000"
    for device in host.blkio_weight_device or ():
        if not 10 <= device.weight <= 1000:
            yield f"Range of blkio weight is from 10 to 1000: {device.path}:{device.weight}"
    if not -1000 <= host.oom_score_adj <= 1000:
        yield f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]"
    if host.shm_size < 0:
        yield "SHM size can not be less than 0"


def ulimit_problems(limit: Ulimit) -> Iterator[str]:
    if limit.name.lower() not in _ULIMITS:
        yield f"invalid ulimit type: {limit.name}"
    soft, hard = (value if value >= 0 else 1 << 64 for value in (limit.soft, limit.hard))
    if soft > hard:
        yield (
            f"ulimit {limit.name}: soft limit must be less than or equal to hard limit: "
            f"{limit.soft} > {limit.hard}"
        )


def _network(host: HostConfig) -> Iterator[str]:
    if host.network_mode == "container:":
        yield "invalid container format container:<name|id>: NetworkMode names no container"
    for server in host.dns or ():
        if not _is_address(server):
            yield f"invalid Dns: {server} is not an IP address"
    for line in host.extra_hosts or ():
        name, separator, address = line.partition(":")
        if not name or not separator:
            yield f'bad format for add-host: "{line}"'
        elif address != "host-gateway" and not _is_address(address.removeprefix("[").removesuffix("]")):
            yield f'invalid IP address in add-host: "{address}"'
    for port, bindings in (host.port_bindings or {}).items():
        if not _is_port(_PORT, port):
            yield f"invalid port specification in PortBindings: {port}"
        for binding in bindings or ():
            if not _is_port(_HOST_PORT, binding.host_port):
                yield f'invalid port specification: "{binding.host_port}" (HostPort of {port})'
            if binding.host_ip and not _is_address(binding.host_ip):
                yield f'invalid HostIp: "{binding.host_ip}" (of {port}) is not an IP address'


def _is_port(form: re.Pattern[str], text: str) -> bool:
    match = form.fullmatch(text)
    if match is None:
        return False
    first, last = (int(part or 0) for part in match.group(1, 2))
    return first <= 65535 and last <= 65535 and (match[2] is None or first <= last)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True
