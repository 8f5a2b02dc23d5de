"""What tests of managers do to the nodes of a lab, and ask of them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from tests.labs import Lab


def raft_folder(swarm: Lab, node: str) -> Path:
    return swarm.node(node).state_dir / "swarm" / "raft"


def managers(swarm: Lab, asked: str) -> dict[str, str]:
    """Host name -> Leader, Reachable, Unreachable or nothing."""
    rows = swarm.on(asked, "node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}").out.splitlines()
    return {row.split()[0]: " ".join(row.split()[1:]) for row in rows}


def swarm_info(swarm: Lab, node: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(swarm.ok(node, "info", "--format", "{{json .Swarm}}"))
    return found


def containers(swarm: Lab, node: str) -> set[str]:
    return set(swarm.ok(node, "ps", "-q", "--no-trunc").split())


def stop(swarm: Lab, node: str) -> None:
    """The daemon ends in order: its node is waited for, and its tasks stay where they are."""
    _, *daemons = swarm.status()[node]["pids"]  # type: ignore[misc]
    for pid in daemons:
        os.kill(pid, signal.SIGTERM)
    swarm.wait(f"{node} has stopped", 20, lambda: swarm.status()[node]["state"] == "daemon-down")


def damage(swarm: Lab, node: str) -> None:
    """In the middle of its largest segment, with good data behind."""
    path = max((raft_folder(swarm, node) / "wal").glob("wal-*.log"), key=lambda p: p.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def known(swarm: Lab, node: str) -> set[str]:
    return set(swarm.on(node, "service", "ls", "--format", "{{.Name}}").out.split())
