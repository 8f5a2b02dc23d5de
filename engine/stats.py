"""Raw counters of a container as the numbers that `docker stats` reads. Pure, given the counters."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.container import Container
from engine.views import ZERO_TIME, rfc3339

BLOCK_IO_FIGURES = (
    "io_service_bytes_recursive",
    "io_serviced_recursive",
    "io_queue_recursive",
    "io_service_time_recursive",
    "io_wait_time_recursive",
    "io_merged_recursive",
    "io_time_recursive",
    "sectors_recursive",
)
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

    `raw`: what `Cgroups.stats` counts. As with Docker, version 1 of control groups also has the time of each processor,
    the highest memory usage and block operations; version 2 has null where it counts nothing.
    """
    is_version_1 = "percpu_ns" in raw
    usage = {
        "total_usage": raw.get("cpu_usage_ns", 0),
        **({"percpu_usage": raw["percpu_ns"]} if is_version_1 else {}),
        "usage_in_kernelmode": raw.get("cpu_system_ns", 0),
        "usage_in_usermode": raw.get("cpu_user_ns", 0),
    }
    throttling = {
        "periods": raw.get("cpu_periods", 0),
        "throttled_periods": raw.get("cpu_throttled_periods", 0),
        "throttled_time": raw.get("cpu_throttled_ns", 0),
    }
    memory = {
        "usage": raw.get("memory_usage", 0),
        **({"max_usage": raw.get("memory_max_usage", 0)} if is_version_1 else {}),
        "stats": raw.get("memory_stats") or {},
        **({"failcnt": raw["memory_failures"]} if raw.get("memory_failures") else {}),
        "limit": raw.get("memory_limit", 0),
    }
    pids = {"current": raw.get("pids", 0)} | ({"limit": raw["pids_limit"]} if raw.get("pids_limit") else {})
    return {
        **empty_sample(container),
        "read": rfc3339(now),
        "preread": previous["read"] if previous else ZERO_TIME,
        "pids_stats": pids,
        "blkio_stats": _block_io(raw, [] if is_version_1 else None),
        "cpu_stats": {
            "cpu_usage": usage,
            "system_cpu_usage": system_ns,
            "online_cpus": os.cpu_count() or 1,
            "throttling_data": throttling,
        },
        "precpu_stats": previous["cpu_stats"] if previous else _no_cpu(),
        "memory_stats": memory,
        **({"networks": dict(networks)} if networks else {}),
    }


def empty_sample(container: Container) -> dict[str, Any]:
    """Of a container that does not run: Docker's shape, with its name and id only."""
    return {
        "id": container.id,
        "name": f"/{container.name}",
        "os_type": "linux",
        "read": ZERO_TIME,
        "preread": ZERO_TIME,
        "pids_stats": {},
        "num_procs": 0,
        "storage_stats": {},
        "blkio_stats": _block_io({}, None),
        "cpu_stats": _no_cpu(),
        "precpu_stats": _no_cpu(),
        "memory_stats": {},
    }


def _no_cpu() -> dict[str, Any]:
    return {
        "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
        "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
    }


def _block_io(raw: Mapping[str, Any], missing: list[Any] | None) -> dict[str, Any]:
    """`missing` stands where nothing is counted (here, of version 1's schedulers)."""
    figures: dict[str, Any] = dict.fromkeys(BLOCK_IO_FIGURES, missing)
    for name, key in (
        ("io_service_bytes_recursive", "blkio"),
        ("io_serviced_recursive", "blkio_serviced"),
    ):
        if key in raw:
            figures[name] = raw[key] or missing
    return figures
