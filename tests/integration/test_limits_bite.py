"""Limits of control groups in force: each test sees the kernel act, on version 1 and on version 2 alike.

`vagrant/` makes a machine with version 2; what only one version has is asked of the host, never skipped.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.runtime.limit_support import LimitSupport, read_limit_support
from tests.commands import PATIENCE
from tests.conftest import HostDaemon

pytestmark = pytest.mark.root

MIB = 1 << 20
ROOT = Path("/sys/fs/cgroup")
# Each of busybox's dd keeps a buffer of its block size, and writes to all of it.
EAT = "dd if=/dev/zero of=/dev/null bs={}M count=1"


@pytest.fixture(scope="module")
def support() -> LimitSupport:
    return read_limit_support()


def folder(host: HostDaemon, container: str, controller: str) -> Path:
    """Of the container's control group, in the hierarchy of `controller`."""
    top = ROOT if read_limit_support().version == 2 else ROOT / controller
    return top / host.cgroup / container


def value(host: HostDaemon, container: str, controller: str, v1: str, v2: str) -> str:
    name = v2 if read_limit_support().version == 2 else v1
    return (folder(host, container, controller) / name).read_text().strip()


def counter(text: str, name: str) -> int:
    return int(dict(line.split() for line in text.splitlines())[name])


def until(holds: Callable[[], object], what: str, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds * PATIENCE
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def inspect(host: HostDaemon, container: str) -> dict[str, dict[str, object]]:
    shown: list[dict[str, dict[str, object]]] = json.loads(host.ok("inspect", container))
    return shown[0]


def sample(host: HostDaemon, container: str) -> dict[str, dict[str, object]]:
    """One answer of GET /containers/{id}/stats."""
    url = f"http://localhost/containers/{container}/stats?stream=false"
    words = ["curl", "-sS", "--fail", "--unix-socket", str(host.socket), url]
    answer: dict[str, dict[str, object]] = json.loads(subprocess.check_output(words, timeout=60 * PATIENCE))
    return answer


@pytest.fixture
def sleeper(host: HostDaemon) -> Iterator[Callable[..., str]]:
    """Makes containers that sleep, with the flags given; they go with the test."""
    made: list[str] = []

    def make(*flags: str, command: str = "sleep 1000") -> str:
        made.append(host.ok("run", "-d", *flags, "hello", "sh", "-c", command).splitlines()[-1])
        return made[-1]

    yield make
    if made:
        host.ok("rm", "-f", *made)


# ---- memory ----


def test_memory_beyond_the_limit_ends_in_an_oom_kill_that_is_reported(host: HostDaemon) -> None:
    since = str(int(time.time()) - 1)
    result = host.run(
        "run", "--name", "eater", "-m", "32m", "--memory-swap", "32m", "hello", *EAT.format(200).split()
    )
    assert result.code == 137, result
    state = inspect(host, "eater")["State"]
    assert (state["OOMKilled"], state["ExitCode"]) == (True, 137)
    told = host.ok(
        "events", "--since", since, "--until", str(int(time.time()) + 1), "--filter", "container=eater",
        "--format", "{{.Action}}",
    ).splitlines()  # fmt: skip
    assert [action for action in told if action in ("oom", "die")] == ["oom", "die"]
    host.ok("rm", "eater")


def test_a_killed_child_is_reported_when_the_container_ends(host: HostDaemon) -> None:
    """Only the child dies of it; the first process lives on and ends as it wants."""
    script = f"{EAT.format(200)}; exit 3"
    result = host.run(
        "run", "--name", "parent", "-m", "32m", "--memory-swap", "32m", "hello", "sh", "-c", script
    )
    assert result.code == 3
    assert inspect(host, "parent")["State"]["OOMKilled"] is True
    host.ok("rm", "parent")


def test_memory_within_the_limit_is_left_alone(host: HostDaemon) -> None:
    assert host.run("run", "--rm", "-m", "64m", "hello", *EAT.format(16).split()).code == 0


def test_memory_files(host: HostDaemon, support: LimitSupport, sleeper: Callable[..., str]) -> None:
    container = sleeper("-m", "64m", "--memory-swap", "96m", "--memory-reservation", "32m")
    read = ("memory.limit_in_bytes", "memory.max"), ("memory.soft_limit_in_bytes", "memory.low")
    assert [value(host, container, "memory", *names) for names in read] == [str(64 * MIB), str(32 * MIB)]
    if support.swap:
        swap = value(host, container, "memory", "memory.memsw.limit_in_bytes", "memory.swap.max")
        assert swap == str((96 if support.version == 1 else 32) * MIB)


def test_update_of_memory_while_it_runs(host: HostDaemon, sleeper: Callable[..., str]) -> None:
    container = sleeper("-m", "200m", "--memory-swap", "200m")
    assert host.run("exec", container, *EAT.format(80).split()).code == 0
    host.ok("update", "-m", "32m", "--memory-swap", "32m", container)
    assert host.run("exec", container, *EAT.format(80).split()).code == 137
    host.ok("update", "-m", "200m", "--memory-swap", "200m", container)
    assert host.run("exec", container, *EAT.format(80).split()).code == 0
    assert inspect(host, container)["HostConfig"]["Memory"] == 200 * MIB


def test_limits_that_the_kernel_has_no_more_are_discarded_with_dockers_words(
    host: HostDaemon, support: LimitSupport
) -> None:
    flags = ("--memory-swappiness", "0", "--oom-kill-disable", "-m", "64m", "--kernel-memory", "50m")
    result = host.run("create", "--name", "old", *flags, "hello")
    assert result.code == 0, result.err
    expected = {
        "Your kernel does not support kernel memory limit capabilities or the cgroup is not mounted. "
        "Limitation discarded."
    }
    shown = inspect(host, "old")["HostConfig"]
    if support.version == 2:
        expected |= {
            "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. "
            "Memory swappiness discarded.",
            "Your kernel does not support OomKillDisable. OomKillDisable discarded.",
        }
        assert (shown["MemorySwappiness"], shown["OomKillDisable"]) == (None, None)
    else:
        assert (shown["MemorySwappiness"], shown["OomKillDisable"]) == (0, True)
    warned = {line.removeprefix("WARNING: ") for line in result.err.splitlines()}
    assert {line for line in warned if "swap limit" not in line} == expected
    host.ok("rm", "old")


# ---- processors and processes ----


def test_cpu_quota_throttles(host: HostDaemon, sleeper: Callable[..., str]) -> None:
    container = sleeper("--cpus", "0.1", command="while :; do :; done")
    start = sample(host, container)
    until(
        lambda: (
            throttling(sample(host, container))["throttled_periods"] > throttling(start)["throttled_periods"]
        ),
        "it is not throttled",
    )
    later = throttling(sample(host, container))
    assert later["throttled_time"] > throttling(start)["throttled_time"]
    assert later["periods"] >= later["throttled_periods"]


def throttling(answer: dict[str, dict[str, object]]) -> dict[str, int]:
    data: dict[str, int] = answer["cpu_stats"]["throttling_data"]  # type: ignore[assignment]
    return data


def test_cpu_quota_is_taken_away_again(host: HostDaemon, sleeper: Callable[..., str]) -> None:
    container = sleeper("--cpu-quota", "5000", "--cpu-period", "50000")
    quota = value(host, container, "cpu", "cpu.cfs_quota_us", "cpu.max").split()[0]
    assert quota == "5000"
    host.ok("update", "--cpu-quota", "-1", container)
    quota = value(host, container, "cpu", "cpu.cfs_quota_us", "cpu.max").split()[0]
    assert quota in ("-1", "max")


def test_cpu_shares_share_one_processor(host: HostDaemon, sleeper: Callable[..., str]) -> None:
    """Four to one on the same processor: the greater one gets more than twice as much."""
    great, small = (
        sleeper("--cpuset-cpus", "0", "--cpu-shares", shares, command="while :; do :; done")
        for shares in ("4096", "1024")
    )
    before = [cpu_ns(host, container) for container in (great, small)]
    until(lambda: cpu_ns(host, small) - before[1] > 200_000_000, "the small one starves", 60)
    used = [cpu_ns(host, container) - then for container, then in zip((great, small), before, strict=True)]
    assert used[0] > 2 * used[1]


def cpu_ns(host: HostDaemon, container: str) -> int:
    if read_limit_support().version == 2:
        return counter((folder(host, container, "cpu") / "cpu.stat").read_text(), "usage_usec") * 1000
    return int((folder(host, container, "cpuacct") / "cpuacct.usage").read_text())


def test_cpuset_is_where_it_may_run(host: HostDaemon) -> None:
    status = host.ok("run", "--rm", "--cpuset-cpus", "0", "hello", "cat", "/proc/self/status")
    assert re.search(r"Cpus_allowed_list:\s+0\n", status)
    refused = host.run("run", "--rm", "--cpuset-cpus", "500", "hello", "true")
    assert refused.code == 125
    assert "Requested CPUs are not available - requested 500, available: 0" in refused.err


def test_pids_limit_fails_forks_until_it_is_lifted(host: HostDaemon, sleeper: Callable[..., str]) -> None:
    container = sleeper("--pids-limit", "20")
    forks = ("exec", container, "sh", "-c", "for i in $(seq 40); do sleep 0.5 & done; wait")
    assert "fork" in host.run(*forks).err
    assert sample(host, container)["pids_stats"]["limit"] == 20
    host.ok("update", "--pids-limit", "-1", container)
    assert host.run(*forks).err == ""
    assert "limit" not in sample(host, container)["pids_stats"]


# ---- devices ----


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A block device of our own."""
    image = tmp_path_factory.mktemp("disk") / "image"
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    device = subprocess.check_output(["losetup", "--show", "-f", str(image)], text=True).strip()
    yield device
    subprocess.run(["losetup", "-d", device], check=True)


def test_writes_to_a_device_are_slowed_down(host: HostDaemon, disk: str) -> None:
    """8 MiB at 2 MiB/s cannot be done in 3 s, and without a limit they are."""
    command = f"dd if=/dev/zero of={disk} bs=1M count=8 oflag=direct"
    limited = seconds(host, command, "--device", disk, "--device-write-bps", f"{disk}:2mb")
    assert limited > 3.0
    assert seconds(host, command, "--device", disk) < limited


def test_operations_on_a_device_are_slowed_down(host: HostDaemon, disk: str) -> None:
    command = f"dd if={disk} of=/dev/null bs=64k count=40 iflag=direct"
    assert seconds(host, command, "--device", disk, "--device-read-iops", f"{disk}:10") > 3.0


def seconds(host: HostDaemon, command: str, *flags: str) -> float:
    """Of the command alone, in a container with these flags."""
    script = f"read begin _ </proc/uptime; {command} || exit; read end _ </proc/uptime; echo $begin $end"
    begin, end = host.ok("run", "--rm", *flags, "hello", "sh", "-c", script).split()
    return float(end) - float(begin)


def test_block_io_in_the_figures(host: HostDaemon, disk: str, sleeper: Callable[..., str]) -> None:
    container = sleeper("--device", disk)
    host.ok("exec", container, "dd", f"if={disk}", "of=/dev/null", "bs=1M", "count=4", "iflag=direct")
    entries = sample(host, container)["blkio_stats"]["io_service_bytes_recursive"]
    assert isinstance(entries, list)
    major, minor = device_number(disk)
    read = [
        entry["value"]
        for entry in entries
        if entry["op"].lower() == "read" and (entry["major"], entry["minor"]) == (major, minor)
    ]
    assert read == [4 * MIB]


def device_number(path: str) -> tuple[int, int]:
    text = Path(f"/sys/class/block/{Path(path).name}/dev").read_text()
    major, _, minor = text.strip().partition(":")
    return int(major), int(minor)


def test_block_io_weight(host: HostDaemon, support: LimitSupport) -> None:
    result = host.run("run", "-d", "--name", "weighed", "--blkio-weight", "300", "hello", "sleep", "1000")
    assert result.code == 0, result.err
    text = "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."
    assert (text in result.err) == (not support.io_weight)
    if support.io_weight:
        group = folder(host, result.out.strip(), "blkio")
        files = {
            "blkio.weight": "300",
            "blkio.bfq.weight": "300",
            "io.bfq.weight": "default 300",
            "io.weight": "default 2930",
        }
        found = {name: (group / name).read_text().strip() for name in files if (group / name).exists()}
        assert found
        assert found == {name: files[name] for name in found}
    host.ok("rm", "-f", "weighed")


def test_a_device_that_was_not_given_cannot_be_opened(host: HostDaemon, disk: str) -> None:
    """mknod may make the node (CAP_MKNOD is Docker's default); opening it is what the rules forbid."""
    major, minor = device_number(disk)
    script = f"mknod /tmp/disk b {major} {minor} && dd if=/tmp/disk of=/dev/null bs=512 count=1"
    refused = host.run("run", "--rm", "hello", "sh", "-c", script)
    assert refused.code and "Operation not permitted" in refused.err
    rule = f"b {major}:{minor} r"
    assert host.run("run", "--rm", "--device-cgroup-rule", rule, "hello", "sh", "-c", script).code == 0
    write = f"mknod /tmp/disk b {major} {minor} && echo > /tmp/disk"
    refused = host.run("run", "--rm", "--device-cgroup-rule", rule, "hello", "sh", "-c", write)
    assert refused.code and "not permitted" in refused.err


def test_a_device_given_read_only(host: HostDaemon, disk: str) -> None:
    flag = f"{disk}:/dev/given:r"
    assert (
        host.run(
            "run", "--rm", "--device", flag, "hello", "dd", "if=/dev/given", "of=/dev/null", "count=1"
        ).code
        == 0
    )
    refused = host.run("run", "--rm", "--device", flag, "hello", "sh", "-c", "echo > /dev/given")
    assert refused.code and "not permitted" in refused.err


def test_exec_is_under_the_same_rules(host: HostDaemon, disk: str, sleeper: Callable[..., str]) -> None:
    container = sleeper()
    major, minor = device_number(disk)
    script = f"mknod /tmp/disk b {major} {minor} && dd if=/tmp/disk of=/dev/null bs=512 count=1"
    refused = host.run("exec", container, "sh", "-c", script)
    assert refused.code and "not permitted" in refused.err


# ---- pause, end, namespaces ----


def test_pause_stops_every_process(host: HostDaemon, sleeper: Callable[..., str]) -> None:
    """Two busy processes: neither uses any processor time while it is paused, and both do afterwards."""
    container = sleeper(command="while :; do :; done & while :; do :; done")
    until(lambda: cpu_ns(host, container) > 50_000_000, "it does not run")
    host.ok("pause", container)
    used = cpu_ns(host, container)
    time.sleep(0.3)
    assert cpu_ns(host, container) == used
    host.ok("unpause", container)
    until(lambda: cpu_ns(host, container) > used + 50_000_000, "it does not go on")


def test_a_paused_container_can_be_killed(host: HostDaemon) -> None:
    container = host.ok("run", "-d", "hello", "sleep", "1000")
    host.ok("pause", container)
    host.ok("kill", container)
    assert host.ok("wait", container) == "137"
    host.ok("rm", container)


def test_a_process_is_born_in_its_group(host: HostDaemon, sleeper: Callable[..., str]) -> None:
    """Also that of an exec, whatever the first process is."""
    container = sleeper()
    pid = inspect(host, container)["State"]["Pid"]
    host.ok("exec", "-d", container, "sleep", "999")
    group = folder(host, container, "pids")
    until(lambda: len((group / "cgroup.procs").read_text().split()) == 2, "the exec is elsewhere")
    assert str(pid) in (group / "cgroup.procs").read_text().split()


def test_the_end_takes_all_processes_and_the_group(host: HostDaemon) -> None:
    """With the host's process namespace nothing but the group's kill ends the children."""
    container = host.ok(
        "run", "-d", "--pid", "host", "hello", "sh", "-c", "sleep 987 & sleep 987 & sleep 1000"
    )
    group = folder(host, container, "pids")
    until(lambda: len((group / "cgroup.procs").read_text().split()) == 3, "no children")
    pids = (group / "cgroup.procs").read_text().split()
    host.ok("kill", container)
    until(lambda: not any(map(is_alive, pids)), "a child lives on")
    until(lambda: not group.exists(), "the group stays")
    host.ok("rm", container)


def is_alive(pid: str) -> bool:
    """A zombie is not; the daemon takes its children's away in time."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_groups_namespace_is_its_own(host: HostDaemon) -> None:
    """Its root is the container's group, and the host's hierarchy cannot be changed from inside."""
    lines = host.ok("run", "--rm", "hello", "cat", "/proc/self/cgroup").splitlines()
    controlled = [line for line in lines if not line.split(":")[1].startswith("name=") and line.split(":")[1]]
    unified = [line for line in lines if line.startswith("0::")]
    assert {line.split(":")[2] for line in (controlled or unified)} == {"/"}
    container = host.ok("create", "hello")
    assert inspect(host, container)["HostConfig"]["CgroupnsMode"] == "private"
    host.ok("rm", container)


def test_the_hosts_namespace_of_groups(host: HostDaemon) -> None:
    """The host's mount keeps its options: a second mount of version 2 from there would reset them."""

    def options() -> list[str]:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        return [line.split(" - ")[1] for line in mounts if " - cgroup" in line]

    before = options()
    text = host.ok("run", "--rm", "--cgroupns", "host", "hello", "cat", "/proc/self/cgroup")
    assert f"/{host.cgroup}/" in text
    assert options() == before


def test_a_parent_of_ones_own_is_made_and_goes_with_its_last_container(host: HostDaemon) -> None:
    parent = f"{host.cgroup}/own/deep"
    top = ROOT if read_limit_support().version == 2 else ROOT / "memory"
    made = [
        host.ok("run", "-d", "-m", "64m", "--cgroup-parent", f"/{parent}", "hello", "sleep", "1000")
        for _ in range(2)
    ]
    for container in made:
        limit = "memory.max" if read_limit_support().version == 2 else "memory.limit_in_bytes"
        assert (top / parent / container / limit).read_text().strip() == str(64 * MIB)
    host.ok("rm", "-f", made[0])
    assert (top / parent).exists()
    host.ok("rm", "-f", made[1])
    until(lambda: not (top / host.cgroup / "own").exists(), "the parent stays")


# ---- figures ----


def test_memory_figure_is_without_the_page_cache(host: HostDaemon, sleeper: Callable[..., str]) -> None:
    container = sleeper()
    host.ok(
        "exec",
        container,
        "sh",
        "-c",
        "dd if=/dev/zero of=/file bs=1M count=30 && sync && cat /file >/dev/null",
    )
    memory = sample(host, container)["memory_stats"]
    assert isinstance(memory["usage"], int)
    assert memory["usage"] > 30 * MIB
    stats = memory["stats"]
    assert isinstance(stats, dict)
    inactive = stats.get("total_inactive_file", stats.get("inactive_file"))
    shown = host.ok("stats", "--no-stream", "--format", "{{.MemUsage}}", container).split(" / ")[0]
    number, unit = re.fullmatch(r"([\d.]+)(B|KiB|MiB|GiB)", shown).groups()  # type: ignore[union-attr]
    scale = {"B": 1, "KiB": 1 << 10, "MiB": MIB, "GiB": 1 << 30}[unit]
    assert float(number) * scale < memory["usage"] - inactive + MIB


def test_cpu_figures_add_up(host: HostDaemon, sleeper: Callable[..., str]) -> None:
    container = sleeper(command="while :; do :; done")
    first = sample(host, container)["cpu_stats"]
    second = sample(host, container)["cpu_stats"]
    for name in ("total_usage", "usage_in_usermode"):
        assert second["cpu_usage"][name] > first["cpu_usage"][name]  # type: ignore[index]
    assert second["system_cpu_usage"] > first["system_cpu_usage"]  # type: ignore[operator]


def test_info_tells_the_version_and_the_driver(host: HostDaemon, support: LimitSupport) -> None:
    shown = host.ok("info", "--format", "{{.CgroupDriver}} {{.CgroupVersion}} {{.OomKillDisable}}")
    assert shown.lower() == f"cgroupfs {support.version} {support.oom_kill_disable}".lower()
