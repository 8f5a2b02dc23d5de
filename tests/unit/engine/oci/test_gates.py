"""Where the gates stand in a program, and which descriptors are open there."""

from __future__ import annotations

import pytest

from engine.oci.gates import Gates, with_gates, with_preserved
from engine.runtime.host import HostFacts
from engine.runtime.plan import Plan, StreamWishes, plan_container, plan_exec
from engine.storage.driver import Rootfs

FACTS = HostFacts(mount_point="/run/rootfs", empty_dir="/run/empty", capabilities=(1 << 41) - 1)
GATES = Gates(200, 201)
SPEC = {
    "process": {"args": ["true"], "cwd": "/"},
    "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]},
}


def planned() -> Plan:
    return plan_container(
        SPEC, Rootfs(upper="/root"), FACTS, netns="host", cgroup="c", streams=StreamWishes()
    )


def lines(made: Plan) -> list[str]:
    return [str(op).split("(")[0] for op in made.ops]


def test_the_first_gate_is_before_the_root_changes_and_the_second_before_rights_are_given_up() -> None:
    names = lines(with_gates(planned(), GATES, 0))
    pivot = names.index("pivot_root")
    assert names[pivot - 2 : pivot] == ["write", "read"]
    second = names.index("read", pivot)
    assert names[second - 1] == "write"
    assert names[second + 1] == "close_range", "nothing of the gates is left"
    assert second < names.index("setresuid") < names.index("exec")


@pytest.mark.parametrize("preserved", [0, 2])
def test_only_what_is_preserved_stays_open(preserved: int) -> None:
    made = with_gates(planned(), GATES, preserved)
    closed = [op.arguments[:2] for op in made.ops if op.name == "close_range"]
    assert closed == [(3 + preserved, 199), (202, 0xFFFFFFFF), (200, 201)]


def test_everything_else_of_the_plan_stays(preserved: int = 0) -> None:
    before, after = planned(), with_gates(planned(), GATES, preserved)
    kept = [op for op in after.ops if op in before.ops]
    assert kept == [op for op in before.ops if op.name != "close_range"]
    assert (after.clone_flags, after.pid_namespace) == (before.clone_flags, before.pid_namespace)


def test_an_exec_keeps_what_is_preserved() -> None:
    made = plan_exec(SPEC["process"], FACTS, pid=7, streams=StreamWishes())
    closed = [op.arguments[:2] for op in with_preserved(made, 3).ops if op.name == "close_range"]
    assert closed == [(6, 0xFFFFFFFF)]
