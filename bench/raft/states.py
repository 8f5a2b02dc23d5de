"""A state of about 100 MB on three managers: what it costs, and how long the event loop is away meanwhile."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from bench.raft.processes import Process
from bench.raft.systems import Managers

SERVICES, TASKS = 100_000, 50_000
REWRITTEN = 2_000  # objects at a time, until that has led to another snapshot
WAIT_S_MAX = 120.0


class State(msgspec.Struct, frozen=True):
    """Gaps: the longest time that a manager's event loop did not come back to a task due every millisecond."""

    services: int
    tasks: int
    applied_s: float
    mb_before: float
    mb_after: float
    snapshot_mb: float
    written_s: float
    leader_mb: float
    follower_mb: float
    snapshot_gap_ms: float
    follower_snapshot_gap_ms: float
    install_s: float
    install_gap_ms: float
    sender_gap_ms: float
    resume_s: float


def measure() -> State:
    with tempfile.TemporaryDirectory(prefix="swarmctl-bench") as folder:
        managers = Managers(Path(folder) / "m")
        try:
            return _measure(managers, _apply_alone())
        finally:
            managers.stop()


def _apply_alone() -> dict[str, Any]:
    process = Process("bench.raft.applying")
    try:
        return process.ask("apply", services=SERVICES, tasks=TASKS)
    finally:
        process.kill()


def _measure(managers: Managers, applied: dict[str, Any]) -> State:
    leader_id = managers.leader()
    follower_id, late_id = (node_id for node_id in managers.processes if node_id != leader_id)
    leader, follower = managers.processes[leader_id], managers.processes[follower_id]
    written = leader.ask("fill", services=SERVICES, tasks=TASKS)["seconds"]
    _until_same(leader, follower)
    full = leader.ask("status")
    follower_full = follower.ask("status")
    _until_same(leader, managers.processes[late_id])

    # One manager is away for longer than the log is kept, and has to get a snapshot when it returns.
    managers.kill(late_id)
    snapshot_gap, follower_gap = _snapshots_while_written(leader, follower)
    size_mb = _snapshot_mb(managers, leader_id)
    late = managers.start(late_id, "resume")
    resumed = late.ask("status")
    leader.ask("gap")
    start = time.perf_counter()
    _until_same(leader, late)
    install_s = time.perf_counter() - start
    now = late.ask("status")
    assert now["snapshots"] != resumed["snapshots"], "there was no need for a snapshot"
    assert now["objects"] == SERVICES + TASKS, now
    install_gap, sender_gap = late.ask("gap")["ms"], leader.ask("gap")["ms"]
    return State(
        services=SERVICES,
        tasks=TASKS,
        applied_s=applied["seconds"],
        mb_before=applied["mb_before"],
        mb_after=applied["mb_after"],
        snapshot_mb=size_mb,
        written_s=written,
        leader_mb=full["rss_mb"],
        follower_mb=follower_full["rss_mb"],
        snapshot_gap_ms=snapshot_gap,
        follower_snapshot_gap_ms=follower_gap,
        install_s=install_s,
        install_gap_ms=install_gap,
        sender_gap_ms=sender_gap,
        resume_s=resumed["loaded_s"],
    )


def _snapshots_while_written(leader: Process, follower: Process) -> tuple[float, float]:
    """The gaps on both from a moment of rest until each has made two snapshots of everything.

    By the second one, the log no longer goes back to where this began.
    """
    made: dict[int, set[str]] = {process.pid: set() for process in (leader, follower)}
    first = {process.pid: process.ask("status")["snapshots"] for process in (leader, follower)}
    for process in (leader, follower):
        process.ask("gap")
    version = 1
    while any(len(names) < 2 for names in made.values()):
        leader.ask("fill", services=REWRITTEN, tasks=0, version=version)
        version += 1
        for process in (leader, follower):
            made[process.pid] |= set(process.ask("status")["snapshots"]) - set(first[process.pid])
    return leader.ask("gap")["ms"], follower.ask("gap")["ms"]


def _until_same(leader: Process, other: Process) -> None:
    deadline = time.monotonic() + WAIT_S_MAX
    while time.monotonic() < deadline:
        if other.ask("status")["applied"] == leader.ask("status")["applied"]:
            return
        time.sleep(0.05)
    raise RuntimeError(f"a follower did not catch up within {WAIT_S_MAX:g} s")


def _snapshot_mb(managers: Managers, node_id: str) -> float:
    folder = managers.folder / node_id / "raft" / "snapshots"
    return max(path.stat().st_size for path in folder.glob("*.snap")) / 1e6
