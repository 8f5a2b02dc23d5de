"""Switching one node on and off: a first or later boot, a restart of the daemon alone, a power cut."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

from node.lab import api, leftovers, processes, underlay
from node.lab.model import MARKER, Lab, LabError, LabNode

BOOT_SECONDS = 60.0
_LOG_LINES = 30

Say = Callable[[str], None]


def state(node: LabNode) -> str:
    """running, starting (processes, but no answer), daemon-down (supervisor or containers only), or off."""
    pids = processes.daemon_pids(node)
    if any(not processes.is_supervisor(pid) for pid in pids):
        return "running" if api.answers(node) else "starting"
    return "daemon-down" if pids or processes.container_pids(node) else "off"


def daemon_command(node: LabNode) -> list[str]:
    return [
        *("nsenter", f"--net={node.netns_path}", "--"),
        *(sys.executable, "-m", "node.main"),
        *("--config-file", os.devnull),  # the machine's own settings are not the lab's
        *("--root", str(node.state_dir), "--run-dir", str(node.run_dir)),
        *("--host", node.host, "--hostname", node.name),
        *("--advertise-addr", node.address, "--listen-port", "2377"),
        *("--cgroup-parent", node.cgroup),
    ]


def start_daemon(node: LabNode) -> subprocess.Popen[bytes]:
    """swarmd in the node's namespace, in a session of its own, its log appended to the node's log file."""
    node.state_dir.mkdir(parents=True, exist_ok=True)
    node.run_dir.mkdir(parents=True, exist_ok=True)
    environment = {
        name: value for name, value in os.environ.items() if name not in ("DOCKER_HOST", "SWARMCTL_HOST")
    }
    environment[MARKER] = node.marker
    with open(node.log, "ab") as log:
        return subprocess.Popen(
            daemon_command(node),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=environment,
            start_new_session=True,
        )


def wait_until_up(daemons: dict[str, subprocess.Popen[bytes]], lab: Lab, say: Say) -> None:
    """Until every API answers; LabError with the end of the log of the one that does not."""
    deadline = time.monotonic() + BOOT_SECONDS
    waiting = dict(daemons)
    while waiting:
        for name, daemon in list(waiting.items()):
            node = lab.node(name)
            if api.answers(node):
                say(f"{name} is up at {node.address}, {node.host}")
                del waiting[name]
            elif (status := daemon.poll()) is not None:
                raise LabError(f"swarmd of {name} ended with status {status}:\n{log_tail(node)}")
            elif time.monotonic() > deadline:
                problem = f"swarmd of {name} did not answer within {BOOT_SECONDS:.0f} s"
                raise LabError(f"{problem}:\n{log_tail(node)}")
        if waiting:
            time.sleep(0.03)


def log_tail(node: LabNode) -> str:
    try:
        lines = node.log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
    except OSError:
        lines = []
    return "\n".join(f"  {node.name} | {line}" for line in lines) or f"  {node.name} | (its log is empty)"


def start(lab: Lab, nodes: list[LabNode], say: Say) -> None:
    """Brings them up again, all at once: the daemon alone when supervisor or containers live, else a fresh boot."""
    daemons = {}
    for node in nodes:
        before = state(node)
        if before in ("running", "starting"):
            say(f"{node.name} is {before} already")
            continue
        if before == "off":
            processes.kill_everything(node)
            leftovers.forget_boot(node)
            underlay.delete_node_network(lab, node)
            underlay.create_node_network(lab, node)
        daemons[node.name] = start_daemon(node)
    wait_until_up(daemons, lab, say)


def kill(lab: Lab, node: LabNode, *, daemon_only: bool, say: Say) -> None:
    """A power cut, or with `daemon_only` a crash of swarmd that containers survive."""
    if daemon_only:
        killed = processes.kill_daemon(node)
    else:
        killed = processes.kill_everything(node)
        underlay.unplug(lab, node)  # a kernel without power refuses no connections
    if not killed:
        say(f"{node.name}: nothing was running")
        return
    what = "swarmd" if daemon_only else "swarmd, supervisor and containers"
    say(f"{node.name}: killed {what} ({len(killed)} process{'es' if len(killed) > 1 else ''})")
