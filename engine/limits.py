"""Limits that this host's kernel cannot do are discarded with a warning, as Docker does; the record shows what is left.

The words are Docker's (moby: daemon/daemon_unix.go, verifyPlatformContainerResources).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from engine.config import HostConfig
from engine.errors import InvalidParameter
from engine.runtime.limit_support import LimitSupport

_NO_GROUP = "capabilities or the cgroup is not mounted"
_THROTTLES = (
    ("blkio_device_read_bps", "BPS Block I/O read", "Block I/O BPS read"),
    ("blkio_device_write_bps", "BPS Block I/O write", "Block I/O BPS write"),
    ("blkio_device_read_iops", "IOPS Block read", "Block I/O IOPS read"),
    ("blkio_device_write_iops", "IOPS Block write", "Block I/O IOPS write"),
)


def discard_unsupported(host: HostConfig, support: LimitSupport) -> list[str]:
    """Changes `host`; returns the warnings. InvalidParameter for processors that are not there."""
    warnings = [*_memory(host, support), *_processors(host, support), *_block_devices(host, support)]
    if host.pids_limit and not support.pids:
        warnings += [f"Your kernel does not support PIDs limit {_NO_GROUP}. PIDs limit discarded."]
        host.pids_limit = None
    return warnings


def missing_limits(support: LimitSupport) -> list[str]:
    """The warnings of `info`."""
    missing = {
        "memory limit": support.memory,
        "swap limit": support.swap,
        "cpu cfs quota": support.cpu,
        "cpu shares": support.cpu,
        "cpuset": support.cpuset,
        "pids limit": support.pids,
        "blkio weight": support.io_weight,
        "blkio throttle": support.io_throttle,
    }
    return [f"WARNING: No {name} support" for name, there in missing.items() if not there]


def _memory(host: HostConfig, support: LimitSupport) -> Iterator[str]:
    if host.memory and not support.memory:
        yield f"Your kernel does not support memory limit {_NO_GROUP}. Limitation discarded."
        host.memory = host.memory_swap = 0
    if host.memory and host.memory_swap != -1 and not support.swap:
        # Also without a wish for swap: twice the memory is then the rule.
        yield f"Your kernel does not support swap limit {_NO_GROUP}. Memory limited without swap."
        host.memory_swap = -1
    if host.memory_swappiness is not None and not support.swappiness:
        if host.memory_swappiness >= 0:
            yield f"Your kernel does not support memory swappiness {_NO_GROUP}. Memory swappiness discarded."
        host.memory_swappiness = None
    if host.memory_reservation and not support.memory:
        yield f"Your kernel does not support memory soft limit {_NO_GROUP}. Limitation discarded."
        host.memory_reservation = 0
    if host.kernel_memory:
        # No kernel since 5.4 has a use for it.
        yield f"Your kernel does not support kernel memory limit {_NO_GROUP}. Limitation discarded."
        host.kernel_memory = 0
    if host.oom_kill_disable is not None and not support.oom_kill_disable:
        if host.oom_kill_disable:
            yield "Your kernel does not support OomKillDisable. OomKillDisable discarded."
        host.oom_kill_disable = None
    if host.oom_kill_disable and not host.memory:
        yield (
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system "
            "running out of resources."
        )


def check_cpus(nano_cpus: int, support: LimitSupport) -> None:
    """What `--cpus` asks for has to be there."""
    there = os.cpu_count() or 1
    if nano_cpus < 0 or (nano_cpus > there * 1_000_000_000 and support.cpu):
        raise InvalidParameter(
            f"range of CPUs is from 0.01 to {there:.2f}, as there are only {there} CPUs available"
        )


def _processors(host: HostConfig, support: LimitSupport) -> Iterator[str]:
    if host.cpu_shares and not support.cpu:
        yield "Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded."
        host.cpu_shares = 0
    if (host.cpu_period or host.cpu_quota or host.nano_cpus) and not support.cpu:
        yield "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded."
        host.cpu_period = host.cpu_quota = host.nano_cpus = 0
    if (host.cpuset_cpus or host.cpuset_mems) and not support.cpuset:
        yield "Your kernel does not support cpuset or the cgroup is not mounted. CPUset discarded."
        host.cpuset_cpus = host.cpuset_mems = ""
    for what, wanted, there in (
        ("CPUs", host.cpuset_cpus, support.cpus),
        ("memory nodes", host.cpuset_mems, support.mems),
    ):
        if wanted and there and not number_set(wanted) <= number_set(there):
            raise InvalidParameter(
                f"Requested {what} are not available - requested {wanted}, available: {there}"
            )


def _block_devices(host: HostConfig, support: LimitSupport) -> Iterator[str]:
    if host.blkio_weight and not support.io_weight:
        yield "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."
        host.blkio_weight = 0
    if host.blkio_weight_device and not support.io_weight:
        yield (
            "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. "
            "Weight-device discarded."
        )
        host.blkio_weight_device = None
    for name, limit, short in _THROTTLES:
        if getattr(host, name) and not support.io_throttle:
            yield (
                f"Your kernel does not support {limit} limit or the cgroup is not mounted. "
                f"{short} limit discarded."
            )
            setattr(host, name, None)


def number_set(text: str) -> set[int]:
    """`0-2,4` -> {0, 1, 2, 4}. InvalidParameter for anything else."""
    numbers: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not (first.isdigit() and (last or first).isdigit()) or int(last or first) > 65_535:
            raise InvalidParameter(f"invalid list of numbers: {text}: such as 0-2,4")
        numbers.update(range(int(first), int(last or first) + 1))
    return numbers
