"""Starts: a command from exec to exit, the daemon to its API, a restarted node to its session, a whole lab."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench.measure import median_ms, wait_until
from node.lab import api, leftovers, power, processes
from node.lab.model import LabNode, load

BIN = Path(sys.executable).parent
SWARMCTL = str(BIN / "swarmctl")
SESSION = " INFO    node.agent.agent: session "  # what an agent logs when a manager has taken it in
STARTS = 7
SECONDS_MAX = 120.0
POLL_S = 0.002


def commands(socket: str, lab: str) -> dict[str, float]:
    """`socket`: of a manager of that lab."""

    def command(*words: str) -> float:
        return median_ms(lambda: subprocess.run([SWARMCTL, *words], check=True, capture_output=True), 10)

    host = ("-H", f"unix://{socket}")
    return {
        "swarmctl version (ms)": command(*host, "version"),
        "swarmctl ps (ms)": command(*host, "ps"),
        "swarmctl service ls (ms)": command(*host, "service", "ls"),
        "swarmctl lab status, 3 nodes (ms)": command("lab", "status", "--name", lab),
    }


def measure() -> dict[str, float]:
    """Medians, in seconds; nothing of the labs is left."""
    name = f"starts{os.getpid()}"
    figures = {"lab up, 3 nodes in one swarm (s)": _median(lambda: _lab_up(name, 3), 3)}
    _lab("up", name, "--nodes", "1")
    try:
        first = load(name).nodes[0]
        figures["swarmd to its API, first start (s)"] = _median(lambda: _first_start(first))
        figures["swarmd to its API, restart (s)"] = _median(lambda: _to_api(first))
        figures["processor time of that (s)"] = _median(lambda: _processor_time(first))
    finally:
        _lab("down", name)
    _lab("up", name, "--nodes", "2", "--managers", "1", "--joined")
    try:
        manager, worker = load(name).nodes
        figures["only manager restarted to its API (s)"] = _median(lambda: _to_api(manager))
        figures["only manager restarted to its session (s)"] = _median(lambda: _to_session(manager))
        figures["worker restarted to its session (s)"] = _median(lambda: _to_session(worker))
    finally:
        _lab("down", name)
    return figures


def _median(action: Callable[[], float], times: int = STARTS) -> float:
    return statistics.median(action() for _ in range(times))


def _lab(verb: str, name: str, *words: str) -> None:
    subprocess.run([SWARMCTL, "lab", verb, "--name", name, *words], check=True, capture_output=True)


def _lab_up(name: str, nodes: int) -> float:
    """With a manager and workers."""
    start = time.perf_counter()
    _lab("up", name, "--nodes", str(nodes), "--managers", "1", "--joined")
    duration = time.perf_counter() - start
    _lab("down", name)
    return duration


def _first_start(node: LabNode) -> float:
    """Without a supervisor, and without anything on disk."""
    processes.kill_everything(node)
    leftovers.forget_boot(node)
    shutil.rmtree(node.state_dir)
    return _started(node, lambda: api.answers(node))


def _to_api(node: LabNode) -> float:
    processes.kill_daemon(node)
    return _started(node, lambda: api.answers(node))


def _to_session(node: LabNode) -> float:
    processes.kill_daemon(node)
    logged = node.log.stat().st_size

    def has_session() -> bool:
        with open(node.log) as log:
            log.seek(logged)
            return SESSION in log.read()

    return _started(node, has_session)


def _processor_time(node: LabNode) -> float:
    """Of the daemon, until its API answers."""
    processes.kill_daemon(node)
    daemon = power.start_daemon(node)
    wait_until(lambda: api.answers(node), SECONDS_MAX, POLL_S)
    fields = Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _started(node: LabNode, is_there: Callable[[], bool]) -> float:
    """Seconds from the exec of the node's daemon until something is there."""
    power.start_daemon(node)
    return wait_until(is_there, SECONDS_MAX, POLL_S)
