"""Timing and memory: repeat, take medians, read what the kernel says of a process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path


def median_ms(action: Callable[[], object], times: int) -> float:
    """Median duration in milliseconds; the first run warms up and does not count."""
    action()
    durations = []
    for _ in range(times):
        start = time.perf_counter()
        action()
        durations.append((time.perf_counter() - start) * 1000)
    return statistics.median(durations)


def pss_mb(pid: int) -> float:
    """Proportional set size of a process in MB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def wait_until(holds: Callable[[], bool], seconds: float, poll_s: float = 0.005) -> float:
    """Seconds until it held; TimeoutError after the bound."""
    start = time.perf_counter()
    while not holds():
        if time.perf_counter() - start > seconds:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(poll_s)
    return time.perf_counter() - start
