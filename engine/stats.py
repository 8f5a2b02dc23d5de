"""Raw counters of a container as the numbers that `docker stats` reads. Pure, given the counters."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.container import Container
from engine.views import ZERO_TIME, rfc3339

_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def system_cpu_ns(proc_stat: str) -> int:
    """All CPU time of the host in nanoseconds, from the first line of /proc/stat."""
    fields = proc_stat.split("\n", 1)[0].split()[1:8]
    return sum(int(field) for field in fields) * (1_000_000_000 // _CLOCK_TICKS)


def read_network_counters(pid: int) -> dict[str, dict[str, int]]:
    """Per interface of the namespace of `pid`, from /proc/<pid>/net/dev; empty when it has ended."""
    try:
        text = Path(f"/proc/{pid}/net/dev").read_text()
    except OSError:
        return {}
    counters: dict[str, dict[str, int]] = {}
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        values = [int(value) for value in rest.split()]
        if name.strip() != "lo" and len(values) >= 12:
            counters[name.strip()] = {
                "rx_bytes": values[0],
                "rx_packets": values[1],
                "rx_errors": values[2],
                "rx_dropped": values[3],
                "tx_bytes": values[8],
                "tx_packets": values[9],
                "tx_errors": values[10],
                "tx_dropped": values[11],
            }
    return counters


def stats_sample(
    container: Container,
    raw: Mapping[str, Any],
    networks: Mapping[str, Any],
    system_ns: int,
    now: float,
    previous: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """One object of GET /containers/{id}/stats; `previous` is the last one, for the CPU delta.

    `raw`: cpu_usage_ns, cpu_user_ns, cpu_system_ns, cpu_throttled_*, cpu_periods, memory_usage,
    memory_limit, memory_stats (cgroup counters), pids, pids_limit.
    """
    online = os.cpu_count() or 1
    cpu = {
        "cpu_usage": {
            "total_usage": raw.get("cpu_usage_ns", 0),
            "usage_in_kernelmode": raw.get("cpu_system_ns", 0),
            "usage_in_usermode": raw.get("cpu_user_ns", 0),
        },
        "system_cpu_usage": system_ns,
        "online_cpus": online,
        "throttling_data": {
            "periods": raw.get("cpu_periods", 0),
            "throttled_periods": raw.get("cpu_throttled_periods", 0),
            "throttled_time": raw.get("cpu_throttled_ns", 0),
        },
    }
    empty_cpu = {
        "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
        "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
    }
    return {
        "id": container.id,
        "name": f"/{container.name}",
        "os_type": "linux",
        "read": rfc3339(now),
        "preread": previous["read"] if previous else ZERO_TIME,
        "pids_stats": {"current": raw.get("pids", 0)}
        | ({"limit": raw["pids_limit"]} if raw.get("pids_limit") else {}),
        "num_procs": 0,
        "storage_stats": {},
        "blkio_stats": {"io_service_bytes_recursive": raw.get("blkio") or []},
        "cpu_stats": cpu,
        "precpu_stats": previous["cpu_stats"] if previous else empty_cpu,
        "memory_stats": {
            "usage": raw.get("memory_usage", 0),
            "limit": raw.get("memory_limit", 0),
            "stats": raw.get("memory_stats") or {},
        },
        "networks": dict(networks),
    }
