from __future__ import annotations

from pathlib import Path

import pytest

from engine.config import HostConfig, ThrottleDevice, WeightDevice
from engine.errors import InvalidParameter
from engine.limits import discard_unsupported, missing_limits, number_set
from engine.runtime.limit_support import LimitSupport, read_limit_support

MIB = 1 << 20
NOTHING = LimitSupport(
    memory=False,
    swap=False,
    swappiness=False,
    oom_kill_disable=False,
    cpu=False,
    cpuset=False,
    pids=False,
    io_weight=False,
    io_throttle=False,
)


def everything() -> HostConfig:
    rate = [ThrottleDevice(path="/dev/sda", rate=1)]
    return HostConfig(
        memory=64 * MIB,
        memory_swap=128 * MIB,
        memory_swappiness=10,
        memory_reservation=8 * MIB,
        oom_kill_disable=True,
        cpu_shares=512,
        cpu_period=50_000,
        cpu_quota=25_000,
        cpuset_cpus="0",
        pids_limit=50,
        blkio_weight=300,
        blkio_weight_device=[WeightDevice(path="/dev/sda", weight=100)],
        blkio_device_read_bps=rate,
        blkio_device_write_bps=rate,
        blkio_device_read_iops=rate,
        blkio_device_write_iops=rate,
    )


def test_what_the_kernel_can_do_stays() -> None:
    host = everything()
    assert discard_unsupported(host, LimitSupport()) == []
    assert host == everything()


def test_what_no_group_can_do_is_discarded_one_by_one() -> None:
    host = everything()
    warnings = discard_unsupported(host, NOTHING)
    assert host == HostConfig()
    # Swap goes with memory, and period with quota.
    assert len(warnings) == 14
    assert all("iscarded" in warning for warning in warnings)
    assert len(missing_limits(NOTHING)) == 8


def test_memory_without_a_limit_of_swap() -> None:
    host = HostConfig(memory=64 * MIB)
    assert discard_unsupported(host, LimitSupport(swap=False)) == [
        "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
        "Memory limited without swap."
    ]
    assert host.memory_swap == -1


@pytest.mark.parametrize("host", [HostConfig(memory_swappiness=-1), HostConfig(oom_kill_disable=False)])
def test_a_wish_that_was_none_is_no_warning(host: HostConfig) -> None:
    assert discard_unsupported(host, LimitSupport(swappiness=False, oom_kill_disable=False)) == []


def test_no_oom_killer_and_no_limit_is_dangerous() -> None:
    (warning,) = discard_unsupported(HostConfig(oom_kill_disable=True), LimitSupport())
    assert "running out of resources" in warning


@pytest.mark.parametrize(
    ("host", "words"),
    [
        (HostConfig(cpuset_cpus="0,4"), "CPUs are not available - requested 0,4, available: 0-3"),
        (HostConfig(cpuset_mems="1"), "memory nodes are not available - requested 1, available: 0"),
        (HostConfig(cpuset_cpus="one"), "invalid list of numbers: one"),
        (HostConfig(cpuset_cpus="0-99999999"), "invalid list of numbers"),
    ],
)
def test_processors_that_are_not_there(host: HostConfig, words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        discard_unsupported(host, LimitSupport(cpus="0-3", mems="0"))


def test_lists_of_numbers() -> None:
    assert number_set("0-2,5") == {0, 1, 2, 5}


def test_support_of_version_2(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu memory pids\n")
    (tmp_path / "cpuset.cpus.effective").write_text("0-3\n")
    support = read_limit_support(tmp_path)
    assert (support.version, support.memory, support.swap, support.cpus) == (2, True, True, "0-3")
    assert (support.io_weight, support.io_throttle, support.swappiness) == (False, False, False)
    # Where groups are under control, their files tell more: this kernel limits no swap, and weighs with BFQ.
    (tmp_path / "cgroup.controllers").write_text("memory io\n")
    for name in ("memory.max", "io.max", "io.bfq.weight"):
        (tmp_path / "system.slice").mkdir(exist_ok=True)
        (tmp_path / "system.slice" / name).write_text("")
    support = read_limit_support(tmp_path)
    assert (support.swap, support.io_weight, support.io_throttle, support.cpu) == (False, True, True, False)


def test_support_of_version_1(tmp_path: Path) -> None:
    for folder, names in (
        ("memory", ("memory.swappiness", "memory.oom_control")),
        ("cpuset", ()),
        ("blkio", ("blkio.throttle.read_bps_device",)),
    ):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_text("")
    (tmp_path / "cpuset" / "cpuset.cpus").write_text("0\n")
    assert read_limit_support(tmp_path) == LimitSupport(
        version=1, swap=False, cpu=False, cpus="0", pids=False, io_weight=False
    )
