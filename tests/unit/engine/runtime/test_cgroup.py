"""Version 2 against a folder that looks like the unified hierarchy; version 1 as far as files go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.runtime.cgroup import Users, choose_cgroups
from engine.runtime.cgroup_v1 import CgroupsV1
from engine.runtime.cgroup_v2 import CgroupsV2, limits, throttles, weights
from engine.runtime.host import CgroupMount, cgroup_hierarchies


@pytest.mark.parametrize(
    ("resources", "files"),
    [
        ({}, {}),
        ({"cpu": {"shares": 2}}, {"cpu.weight": "1"}),
        ({"cpu": {"shares": 1024}}, {"cpu.weight": "39"}),
        ({"cpu": {"shares": 262144}}, {"cpu.weight": "10000"}),
        ({"cpu": {"quota": 50000, "period": 100000}}, {"cpu.max": "50000 100000"}),
        ({"cpu": {"quota": -1}}, {"cpu.max": "max 100000"}),
        ({"cpu": {"cpus": "0-1", "mems": "0"}}, {"cpuset.cpus": "0-1", "cpuset.mems": "0"}),
        ({"memory": {"limit": 100, "swap": 150}}, {"memory.max": "100", "memory.swap.max": "50"}),
        ({"memory": {"limit": 100, "swap": -1}}, {"memory.max": "100", "memory.swap.max": "max"}),
        ({"memory": {"limit": -1, "reservation": 7}}, {"memory.max": "max", "memory.low": "7"}),
        ({"pids": {"limit": 0}}, {"pids.max": "max"}),
        ({"pids": {"limit": 9}}, {"pids.max": "9"}),
    ],
)
def test_limits_of_version_2(resources: dict[str, dict[str, object]], files: dict[str, str]) -> None:
    assert limits(resources) == files


def test_swap_below_memory_is_refused() -> None:
    with pytest.raises(OSError, match="less than memory alone"):
        limits({"memory": {"limit": 100, "swap": 99}})


@pytest.fixture
def unified(tmp_path: Path) -> Path:
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory\n")
    return tmp_path


def test_version_is_chosen_by_the_root(unified: Path) -> None:
    assert isinstance(choose_cgroups(unified), CgroupsV2)


def test_version_2_makes_and_removes_only_its_own_folders(unified: Path) -> None:
    (unified / "mine").mkdir()
    groups = CgroupsV2(unified)
    membership = groups.create("mine/node/box", {})
    assert os.fstat(membership.into).st_ino == (unified / "mine/node/box").stat().st_ino
    membership.close()
    # Only the controller that was missing is handed on (a plain file keeps what the write did not cover).
    assert (unified / "cgroup.subtree_control").read_text().startswith("+pids")
    groups.create("mine/node/other", {}).close()
    assert groups.remove("mine/node/box")
    assert (unified / "mine/node/other").exists()
    assert groups.remove("mine/node/other")
    assert sorted(entry.name for entry in unified.iterdir() if entry.is_dir()) == ["mine"]
    assert groups.remove("mine/node/other")


def test_version_2_refuses_a_group_in_use(unified: Path) -> None:
    (unified / "box").mkdir()
    (unified / "box/cgroup.procs").write_text("77\n")
    with pytest.raises(FileExistsError, match="in use"):
        CgroupsV2(unified).create("box", {})


def test_version_2_counters(unified: Path) -> None:
    box = unified / "box"
    box.mkdir()
    (box / "cpu.stat").write_text(
        "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 7\nnr_throttled 6\nthrottled_usec 1\n"
    )
    (box / "memory.current").write_text("4096\n")
    (box / "memory.max").write_text("8192\n")
    (box / "memory.stat").write_text("anon 1\nfile 2\n")
    (box / "memory.events").write_text("oom 1\noom_kill 3\n")
    (box / "pids.current").write_text("2\n")
    (box / "pids.max").write_text("50\n")
    (box / "cgroup.procs").write_text("7\n9\n")
    (box / "io.stat").write_text("8:0 rbytes=10 wbytes=20 rios=1 wios=2\n")
    groups = CgroupsV2(unified)
    assert groups.stats("box") == {
        "cpu_usage_ns": 5000,
        "cpu_user_ns": 3000,
        "cpu_system_ns": 2000,
        "cpu_throttled_ns": 1000,
        "cpu_periods": 7,
        "cpu_throttled_periods": 6,
        "memory_usage": 4096,
        "memory_limit": 8192,
        "memory_stats": {"anon": 1, "file": 2},
        "memory_failures": 1,
        "pids": 2,
        "pids_limit": 50,
        "blkio": [
            {"major": 8, "minor": 0, "op": "read", "value": 10},
            {"major": 8, "minor": 0, "op": "write", "value": 20},
        ],
    }
    assert groups.oom_kills("box") == 3
    assert groups.pids("box") == [7, 9]


def test_version_2_freezes_until_the_kernel_says_so(unified: Path) -> None:
    box = unified / "box"
    box.mkdir()
    (box / "cgroup.freeze").write_text("0")
    (box / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    groups = CgroupsV2(unified)
    groups.freeze("box")
    assert (box / "cgroup.freeze").read_text() == "1"
    groups.thaw("box")
    assert (box / "cgroup.freeze").read_text() == "0"


def test_version_1_sees_each_hierarchy_once(tmp_path: Path) -> None:
    for name in ("cpu,cpuacct", "memory", "unified"):
        (tmp_path / name).mkdir()
        if name != "unified":
            (tmp_path / name / "tasks").write_text("")
    (tmp_path / "cpu").symlink_to("cpu,cpuacct")
    (tmp_path / "cpuacct").symlink_to("cpu,cpuacct")
    groups = CgroupsV1(tmp_path)
    assert len(list(groups._unique())) == 2
    assert groups._file("cpuacct", "x", "cpuacct.usage") == f"{tmp_path}/cpu,cpuacct/x/cpuacct.usage"


MOUNTINFO_V1 = """\
30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
34 30 0:30 / /elsewhere rw - cgroup cgroup rw,freezer
"""


def test_hierarchies_of_version_1_and_2() -> None:
    assert cgroup_hierarchies(MOUNTINFO_V1) == [
        CgroupMount(
            "cpu,cpuacct", "cgroup", (("cpu", None), ("cpuacct", None)), "/sys/fs/cgroup/cpu,cpuacct"
        ),
    ]
    unified = "30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    assert cgroup_hierarchies(unified) == [CgroupMount("", "cgroup2", (), "/sys/fs/cgroup")]


def test_a_parent_is_needed_until_its_last_user_has_left() -> None:
    users = Users()
    for path in ("a/b/one", "a/b/two", "a/c/three"):
        users.enter(path)
    assert users.leave("a/b/one") == []
    assert users.leave("a/b/two") == ["a/b"]
    assert users.leave("a/c/three") == ["a/c", "a"]


def test_block_devices_of_version_2() -> None:
    block = {
        "weight": 1000,
        "weightDevice": [{"major": 8, "minor": 0, "weight": 10}],
        "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}],
        "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 2}],
    }
    assert list(throttles(block)) == [("8:0", "rbps", 1), ("8:16", "wiops", 2)]
    assert list(weights(block)) == [
        ("io.bfq.weight", "default 1000"),
        ("io.weight", "default 10000"),
        ("io.bfq.weight", "8:0 10"),
        ("io.weight", "8:0 1"),
    ]
    assert (list(throttles({})), list(weights({}))) == ([], [])


def test_version_2_without_a_limit_of_swap(unified: Path) -> None:
    """The file is not there: no matter as long as no limit is wanted."""
    box = unified / "box"
    box.mkdir()
    (box / "memory.max").write_text("")
    groups = CgroupsV2(unified)
    groups.update("box", {"memory": {"limit": 64, "swap": -1}})
    assert (box / "memory.max").read_text() == "64"
    with pytest.raises(FileNotFoundError):
        groups.update("box", {"memory": {"limit": 64, "swap": 128}})


def test_version_2_hands_a_controller_on_again_that_was_taken_meanwhile(
    unified: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups, tries = CgroupsV2(unified), []

    def update(path: str, resources: object) -> None:
        tries.append((unified / "cgroup.subtree_control").read_text())
        (unified / "cgroup.subtree_control").write_text("cpu memory\n")  # as a service manager does it
        if len(tries) == 1:
            raise FileNotFoundError("cpu.max")

    monkeypatch.setattr(groups, "update", update)
    groups.create("box", {}).close()
    assert len(tries) == 2
    assert all(text.startswith("+pids") for text in tries)
