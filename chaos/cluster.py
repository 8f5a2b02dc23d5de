"""The managers under test: a lab of real daemons, and the hand that hurts them.

All calls block. The lab is made and removed by `node.lab`; this module adds what a nemesis needs beyond that:
daemons started side by side, pauses, many cuts at once, disks of their own, waiting until all is well again.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from node.lab import api, leftovers, lifecycle, power, processes, underlay
from node.lab.model import Lab, LabError, LabNode, locked

WELL_SECONDS = 60.0
ASK_SECONDS = 3.0
POLL_SECONDS = 0.05


class Cluster:
    """`count` managers in one swarm. `down` once, also when `up` has failed."""

    def __init__(self, name: str, count: int) -> None:
        self.name = name
        self.count = count
        self.lab = Lab(name, 0, count, [])
        self._daemons: list[subprocess.Popen[bytes]] = []

    def up(self) -> None:
        self.lab = lifecycle.up(
            self.name, nodes=self.count, managers=self.count, joined=True, keep=False, say=_silent
        )

    def down(self) -> None:
        lifecycle.down(self.name, _silent)
        for daemon in self._daemons:
            daemon.wait()

    @property
    def managers(self) -> list[str]:
        return [node.name for node in self.lab.nodes]

    def node(self, name: str) -> LabNode:
        return self.lab.node(name)

    # ---- what it looks like ----

    def leader(self) -> str:
        """Who leads, as the first manager that knows says. Raises LabError when none does for a minute."""
        deadline = time.monotonic() + WELL_SECONDS
        while time.monotonic() < deadline:
            for node in self.lab.nodes:
                for row in self._nodes_as_seen_by(node):
                    if (row.get("ManagerStatus") or {}).get("Leader"):
                        return str(row["Description"]["Hostname"])
            time.sleep(POLL_SECONDS)
        raise LabError(f"no manager of {self.name} knew a leader for {WELL_SECONDS:.0f} s")

    def wait_until_well(self) -> None:
        """Until every manager answers and says that all of them are reachable."""
        deadline = time.monotonic() + WELL_SECONDS
        while not all(self._is_well_to(node) for node in self.lab.nodes):
            if time.monotonic() > deadline:
                tails = "\n".join(power.log_tail(node) for node in self.lab.nodes)
                raise LabError(f"the managers did not recover within {WELL_SECONDS:.0f} s:\n{tails}")
            time.sleep(POLL_SECONDS)

    def _is_well_to(self, node: LabNode) -> bool:
        rows = self._nodes_as_seen_by(node)
        reachable = [
            row for row in rows if (row.get("ManagerStatus") or {}).get("Reachability") == "reachable"
        ]
        return len(reachable) == self.count

    def _nodes_as_seen_by(self, node: LabNode) -> list[dict[str, Any]]:
        try:
            return list(api.call(node, "GET", "/nodes", timeout=ASK_SECONDS))
        except (OSError, LabError, ValueError):
            return []

    # ---- what is done to it ----

    def kill(self, names: Iterable[str]) -> None:
        """kill -9 of the daemons."""
        for name in names:
            processes.kill_daemon(self.node(name))

    def start(self, names: Iterable[str]) -> None:
        """All at once; returns when their APIs answer."""
        down = [self.node(name) for name in names if not processes.swarmd_pids(self.node(name))]
        daemons = {node.name: power.start_daemon(node) for node in down}
        self._daemons += daemons.values()
        power.wait_until_up(daemons, self.lab, _silent)

    def restart(self) -> None:
        """One after the other, so that the swarm goes on."""
        for name in self.managers:
            self.kill([name])
            self.start([name])
            self.wait_until_well()

    def signal(self, name: str, number: signal.Signals) -> None:
        for pid in processes.swarmd_pids(self.node(name)):
            os.kill(pid, number)

    def snapshots(self, name: str) -> Path:
        """The folder in which that manager makes its snapshots."""
        return self.node(name).state_dir / "swarm" / "raft" / "snapshots"

    # ---- disks ----

    def use_small_disk(self, name: str, megabytes: int) -> None:
        """The node's state goes on in memory of that size, until `use_large_disk`."""
        node = self._off(name)
        small = node.state_dir.with_name(f"{name}.small")
        small.mkdir()
        underlay.command("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "chaos", str(small))
        underlay.command("cp", "-a", f"{node.state_dir}/.", str(small))
        shutil.rmtree(node.state_dir)
        node.state_dir.mkdir(mode=0o700)
        underlay.command("mount", "--bind", str(small), str(node.state_dir))
        underlay.command("umount", str(small))
        small.rmdir()
        self._on(node)

    def use_large_disk(self, name: str) -> None:
        """Back onto the disk that the lab is on; nothing when the node is there already."""
        if not os.path.ismount(self.node(name).state_dir):
            return
        node = self._off(name)
        large = node.state_dir.with_name(f"{name}.large")
        underlay.command("cp", "-a", str(node.state_dir), str(large))
        underlay.command("umount", str(node.state_dir))
        node.state_dir.rmdir()
        large.rename(node.state_dir)
        self._on(node)

    def _off(self, name: str) -> LabNode:
        """Nothing of the node runs or is mounted, its state excepted."""
        node = self.node(name)
        processes.kill_everything(node)
        leftovers.remove_folder(node.run_dir)
        return node

    def _on(self, node: LabNode) -> None:
        self.start([node.name])
        self.wait_until_well()

    def cut(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Drop what the first of each pair sends to the second; replaces all cuts."""
        with locked(self.name):
            self.lab.cuts = sorted(set(pairs))
            underlay.apply_cuts(self.lab)
            self.lab.save()

    def heal(self) -> None:
        self.cut([])


def both_ways(some: Iterable[str], others: Iterable[str]) -> set[tuple[str, str]]:
    """The cuts between two groups."""
    pairs = [(one, other) for one in some for other in others]
    return {*pairs, *((other, one) for one, other in pairs)}


def _silent(_text: str) -> None:
    """The lab's progress is not this program's output."""
