"""systemd owns the tree of control groups and ours stands beside its own: neither may disturb the other.

Only in a machine of `vagrant/` (docs/adr/0017): systemd as the first process, version 2, swarmd.service
installed and not running.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import PATIENCE

pytestmark = pytest.mark.root

TREE = Path("/sys/fs/cgroup")
FILES = ("memory.max", "memory.swap.max", "memory.low", "cpu.max", "cpu.weight", "cpuset.cpus", "pids.max")
LIMITS = (
    *("-m", "64m", "--memory-swap", "96m", "--memory-reservation", "32m", "--cpus", "0.5", "--cpu-shares", "512"),
    *("--cpuset-cpus", "0", "--pids-limit", "50"),
)  # fmt: skip


def call(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=120 * PATIENCE)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}{done.stdout}"
    return done.stdout.strip()


def in_force(container: str) -> dict[str, str]:
    """What the kernel holds for a container: limits, controllers, its first process and where that is."""
    group = TREE / "swarmctl" / container
    pid = json.loads(call("swarmctl", "inspect", container))[0]["State"]["Pid"]
    return {name: (group / name).read_text() for name in (*FILES, "cgroup.controllers", "cgroup.procs")} | {
        "pid": pid,
        "place": Path(f"/proc/{pid}/cgroup").read_text(),
    }


def ready() -> None:
    """The first start of an emulated machine takes longer than the unit's time-out: systemd tries again."""
    deadline = time.monotonic() + 120 * PATIENCE
    while subprocess.run(["swarmctl", "version"], capture_output=True).returncode:
        assert time.monotonic() < deadline, call("journalctl", "-u", "swarmd", "-n", "30", "--no-pager")
        time.sleep(0.5)


@pytest.fixture(scope="module", autouse=True)
def service(hello_archive: Path) -> Iterator[None]:
    call("systemctl", "start", "--no-block", "swarmd")
    ready()
    try:
        call("swarmctl", "load", "-i", str(hello_archive))
        yield
    finally:
        ready()
        for container in call("swarmctl", "ps", "-aq").split():
            call("swarmctl", "rm", "-f", container)
        supervisors = Path("/sys/fs/cgroup/system.slice/swarmd.service/cgroup.procs").read_text().split()
        call("systemctl", "stop", "swarmd")
        for pid in supervisors:
            if Path(f"/proc/{pid}").exists():
                os.kill(int(pid), 15)
        # A daemon that stops leaves these: containers may run on.
        call("ip", "link", "delete", "swbr0")
        call("nft", "delete", "table", "ip", "swarmctl")
        Path("/proc/sys/net/ipv4/ip_forward").write_text("0")


@pytest.fixture
def container() -> Iterator[str]:
    made = call("swarmctl", "run", "-d", *LIMITS, "hello", "sleep", "100000")
    yield made
    call("swarmctl", "rm", "-f", made)


REARRANGEMENTS = {
    "a unit needs no controller any more": [
        ("systemd-run", "--quiet", "--wait", "-p", "CPUQuota=50%", "-p", "MemoryMax=50M", "-p", "IOWeight=50", "true"),
    ],
    "units are read anew": [("systemctl", "daemon-reload")],
    "systemd itself starts anew": [("systemctl", "daemon-reexec")],
    "properties of a slice change": [
        ("systemctl", "set-property", "--runtime", "system.slice", "CPUWeight=50", "MemoryHigh=1G", "TasksMax=5000"),
        ("systemctl", "revert", "system.slice"),
        ("systemctl", "daemon-reload"),
    ],
    "properties of the root slice change": [
        ("systemctl", "set-property", "--runtime", "--", "-.slice", "CPUWeight=100"),
        ("systemctl", "revert", "--", "-.slice"),
    ],
    "another unit restarts": [("systemctl", "restart", "systemd-timesyncd")],
}  # fmt: skip


@pytest.mark.parametrize("commands", REARRANGEMENTS.values(), ids=REARRANGEMENTS)
def test_systemd_leaves_our_groups_alone(container: str, commands: list[tuple[str, ...]]) -> None:
    before = in_force(container)
    assert before["memory.max"] == f"{64 << 20}\n"
    assert before["cpu.max"] == "50000 100000\n"
    for words in commands:
        call(*words)
        assert in_force(container) == before, words


def test_the_controllers_stay_while_the_service_is_stopped(container: str) -> None:
    """Nothing asks systemd for controllers now: the kernel refuses to take them from groups that use them."""
    before = in_force(container)
    call("systemctl", "stop", "swarmd")
    for words in (("daemon-reload",), ("restart", "systemd-timesyncd")):
        call("systemctl", *words)
    group = TREE / "swarmctl" / container
    assert {name: (group / name).read_text() for name in FILES} == {name: before[name] for name in FILES}
    call("systemctl", "start", "--no-block", "swarmd")
    ready()
    assert in_force(container) == before


def test_a_restart_of_the_service_moves_and_ends_nothing(container: str) -> None:
    before = in_force(container)
    call("systemctl", "restart", "swarmd")  # returns when the daemon has said that it is ready
    assert in_force(container) == before
    call("swarmctl", "update", "--pids-limit", "60", container)
    assert in_force(container)["pids.max"] == "60\n"
    assert call("swarmctl", "exec", container, "echo", "in") == "in"


def test_limits_of_the_first_container_after_systemd_took_the_controllers() -> None:
    """Without containers there is no group of ours that would hold them."""
    assert not (TREE / "swarmctl").exists()
    call("systemctl", "daemon-reload")
    made = call("swarmctl", "run", "-d", *LIMITS, "hello", "sleep", "100000")
    assert in_force(made)["cpu.max"] == "50000 100000\n"
    call("swarmctl", "rm", "-f", made)
    assert not (TREE / "swarmctl").exists()


def test_the_end_of_the_session_that_asked_for_a_container_does_not_end_it() -> None:
    unit = "session-of-a-user.scope"
    words = ("swarmctl", "run", "-d", *LIMITS, "hello", "sleep", "100000")
    call(
        *("systemd-run", "--quiet", "--scope", f"--unit={unit}", "--slice=user.slice", "sh", "-c"),
        f"{' '.join(words)} >/run/made; sleep 100000 >/dev/null 2>&1 & true",
    )
    made = Path("/run/made").read_text().strip()
    before = in_force(made)
    call("systemctl", "stop", unit)
    assert in_force(made) == before
    call("swarmctl", "rm", "-f", made)


def test_memory_of_containers_is_not_the_services() -> None:
    """An OOM kill in a container is none of the unit's."""
    done = subprocess.run(
        ["swarmctl", "run", "--rm", "-m", "32m", "--memory-swap", "32m", "hello", "dd", "if=/dev/zero",
         "of=/dev/null", "bs=200M", "count=1"], capture_output=True, timeout=120 * PATIENCE,
    )  # fmt: skip
    assert done.returncode == 137
    assert call("systemctl", "show", "-P", "Result", "swarmd") == "success"
    assert call("systemctl", "is-active", "swarmd") == "active"
