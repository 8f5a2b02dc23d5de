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


def apply_update(
    container: Container, changes: Mapping[str, Any], support: LimitSupport
) -> tuple[dict[str, Any], list[str]]:
    """Change the record; returns the OCI resources to put in force (empty: only the policy changed), and warnings."""
    try:
        wished = msgspec.convert(dict(changes), HostConfig)
    except msgspec.ValidationError as error:
        raise InvalidParameter(str(error)) from error
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
