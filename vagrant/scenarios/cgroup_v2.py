"""On a kernel with nothing but cgroup v2, limits bite and devices are refused: the engine's tests of that, in a machine."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from scenarios.swarm import Swarm

MACHINES = 1
NEEDS_SWARM = False
QUICK = False
MEMORY_MB = 1024
ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    "cli",
    "engine",
    "node",
    "overlay_net",
    "raft",
    "scheduler",
    "tests",
    "examples",
    "pyproject.toml",
    "setup.py",
    "README.md",
]
TESTS = "beyond or no_more or throttles or fails_forks or writes_to or not_given or stops_every or born or end_takes"
TESTS += " or hosts_namespace or tells"


def play(swarm: Swarm) -> None:
    (machine,) = swarm.names
    swarm.step("The kernel has one control group tree, of version 2")
    swarm.expect("its type", swarm.on(machine, "stat -f -c %T /sys/fs/cgroup"), "cgroup2fs")

    swarm.step("The sources are copied there, compiled")
    with tempfile.TemporaryDirectory() as folder:
        for name in SOURCES:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
            copy(ROOT / name, Path(folder, name))
        compiled = [sys.executable, "-m", "compileall", "-q", "-s", folder, "-p", "/root/src", folder]
        subprocess.run(compiled, check=True, stdout=subprocess.DEVNULL)
        swarm.on(machine, "mkdir -p /root/src")
        swarm.copy(machine, Path(folder), "/root/src")
    swarm.on(
        machine,
        "cp /opt/swarmctl/lib/python3.11/site-packages/engine/runtime/_spawn*.so /root/src/engine/runtime/",
    )

    swarm.step("The tests pass")
    said = swarm.on(
        machine,
        "cd /root/src && SWARMCTL_TEST_PATIENCE=10 PYTHONPATH=/root/src:/opt/swarmctl-tests/lib/python3.11/site-packages"
        " /opt/swarmctl/bin/python -m pytest -q -p no:cacheprovider --timeout 900"
        f" tests/integration/test_limits_bite.py -k '{TESTS}'",
        timeout_s=900,
    )
    swarm.note(said.splitlines()[-1])
    swarm.expect("tests that were skipped", "skipped" in said, False)
