"""`docker update`: new limits and restart policy for a container that exists. Pure but for the record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from engine.bundle import resources_section
from engine.config import HostConfig
from engine.container import Container
from engine.creation import checked_host_config
from engine.errors import InvalidParameter
from engine.runtime.limit_support import LimitSupport

_UPDATABLE = {
    "BlkioWeight": "blkio_weight",
    "CpuShares": "cpu_shares",
    "CpuPeriod": "cpu_period",
    "CpuQuota": "cpu_quota",
    "CpusetCpus": "cpuset_cpus",
    "CpusetMems": "cpuset_mems",
    "Memory": "memory",
    "MemorySwap": "memory_swap",
    "MemoryReservation": "memory_reservation",
    "NanoCpus": "nano_cpus",
    "PidsLimit": "pids_limit",
    "RestartPolicy": "restart_policy",
}


# Resources that Docker cannot change either while a container exists.
_FIXED = {
    "CgroupParent": "cgroup_parent",
    "BlkioWeightDevice": "blkio_weight_device",
    "BlkioDeviceReadBps": "blkio_device_read_bps",
    "BlkioDeviceWriteBps": "blkio_device_write_bps",
    "BlkioDeviceReadIOps": "blkio_device_read_iops",
    "BlkioDeviceWriteIOps": "blkio_device_write_iops",
    "CpuRealtimePeriod": "cpu_realtime_period",
    "CpuRealtimeRuntime": "cpu_realtime_runtime",
    "Devices": "devices",
    "DeviceCgroupRules": "device_cgroup_rules",
    "DeviceRequests": "device_requests",
    "Init": "init",
    "MemorySwappiness": "memory_swappiness",
    "OomKillDisable": "oom_kill_disable",
    "Ulimits": "ulimits",
    "CpuCount": "cpu_count",
    "CpuPercent": "cpu_percent",
    "IOMaximumIOps": "io_maximum_iops",
    "IOMaximumBandwidth": "io_maximum_bandwidth",
}


def _refuse_fixed(wished: HostConfig) -> None:
    for name, field in _FIXED.items():
        if getattr(wished, field):
            raise InvalidParameter(
                f"{name} of a container cannot be updated: make the container anew with it"
            )


def apply_update(
    container: Container, changes: Mapping[str, Any], support: LimitSupport
) -> tuple[dict[str, Any], list[str]]:
    """Change the record; returns the OCI resources to put in force (empty: only the policy changed), and warnings."""
    try:
        wished = msgspec.convert(dict(changes), HostConfig)
    except msgspec.ValidationError as error:
        raise InvalidParameter(str(error)) from error
    _refuse_fixed(wished)
    updated = msgspec.structs.replace(container.host_config)
    touched = False
    for key, field in _UPDATABLE.items():
        value = getattr(wished, field)
        empty = value in (0, "", None) or (key == "RestartPolicy" and not value.name)
        if key in changes and not empty:
            setattr(updated, field, value)
            touched = touched or key != "RestartPolicy"
    warnings = checked_host_config(updated, container.config, support)
    container.host_config = updated
    resources = resources_section(updated)
    resources.pop("devices", None)
    return (resources if touched else {}), warnings
