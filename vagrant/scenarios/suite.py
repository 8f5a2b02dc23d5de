"""The project's own tests, brought into a machine and run there, one file after the other."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from machines.machine import MachineError

from scenarios.swarm import Swarm

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (
    *("cli", "engine", "node", "overlay_net", "raft", "scheduler", "tests", "examples"),
    *("pyproject.toml", "setup.py", "README.md"),
)
TARGET = "/root/src"
FILE_S = 2400
_SHOWN_FAILURES = 5


def bring(swarm: Swarm, machine: str) -> None:
    """The sources, compiled: an emulated processor would need minutes for that."""
    with tempfile.TemporaryDirectory() as folder:
        for name in SOURCES:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
            copy(ROOT / name, Path(folder, name))
        compiled = [sys.executable, "-m", "compileall", "-q", "-s", folder, "-p", TARGET, folder]
        subprocess.run(compiled, check=True, stdout=subprocess.DEVNULL)
        swarm.on(machine, f"mkdir -p {TARGET}")
        swarm.copy(machine, Path(folder), TARGET)
    built = "/opt/swarmctl/lib/python3.11/site-packages/engine/runtime"
    swarm.on(machine, f"cp {built}/_spawn*.so {built}/docker-init {TARGET}/engine/runtime/")


def passes(swarm: Swarm, machine: str, file: str, selection: str = "") -> bool:
    """Whether a file's tests pass, none skipped; what came of them is told."""
    chosen = f" -k '{selection}'" if selection else ""
    command = (
        f"cd {TARGET} && SWARMCTL_TEST_PATIENCE=10"
        f" PYTHONPATH={TARGET}:/opt/swarmctl-tests/lib/python3.11/site-packages"
        f" /opt/swarmctl/bin/python -m pytest -q -p no:cacheprovider --timeout 900 {file}{chosen}"
    )
    done = swarm.lab.machine(machine).ssh([command], check=False, timeout_s=FILE_S)
    lines = done.stdout.strip().splitlines() or [done.stderr.strip() or "no output"]
    swarm.note(f"{machine}: {file}: {lines[-1]}")
    if done.returncode == 0 and "skipped" not in lines[-1]:
        return True
    for line in [line for line in lines if line.startswith(("FAILED", "ERROR", "E  "))][:_SHOWN_FAILURES]:
        swarm.note(f"  {line}")
    try:
        swarm.lab.machine(machine).ssh(["cat >>/root/failures"], stdin=done.stdout)
    except MachineError as error:
        swarm.note(f"  its output could not be kept: {error}")
    return False
