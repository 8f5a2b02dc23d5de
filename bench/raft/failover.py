"""kill -9 of the leader again and again: how long until the others take the next write."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import msgspec

from bench.raft.systems import Managers

KILLS = 12
SETTLED_S = 0.3


class Failover(msgspec.Struct, frozen=True):
    """Seconds from the kill to the acknowledged write."""

    kills: int
    median_s: float
    longest_s: float


def measure() -> Failover:
    seconds = []
    with tempfile.TemporaryDirectory(prefix="swarmctl-bench") as folder:
        managers = Managers(Path(folder) / "m")
        try:
            for number in range(KILLS):
                managers.leader()
                time.sleep(SETTLED_S)
                seconds.append(_kill(managers, number))
        finally:
            managers.stop()
    return Failover(KILLS, statistics.median(seconds), max(seconds))


def _kill(managers: Managers, number: int) -> float:
    leader = managers.leader()
    survivors = [process for node_id, process in managers.processes.items() if node_id != leader]
    killed = time.clock_gettime(time.CLOCK_MONOTONIC)
    managers.kill(leader)
    for process in survivors:
        process.send("accepted", number=number)
    accepted = min(process.receive()["at"] for process in survivors)
    managers.start(leader, "resume")
    return float(accepted - killed)
