"""The plan as text: the order of operations is the contract. `UPDATE_TRANSCRIPTS=1` rewrites the transcripts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.runtime import plan_process, program
from engine.runtime.host import CgroupMount, HostFacts
from engine.runtime.plan import Plan, StreamWishes, plan_container, plan_exec
from engine.runtime.plan_mounts import MountOptions
from engine.runtime.program import Op
from engine.runtime.syscalls import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUTS

TRANSCRIPTS = Path(__file__).parent / "transcripts"
HOST = HostFacts(
    mount_point="/run/x/rootfs",
    empty_dir="/run/x/empty",
    capabilities=0x1FF,
    last_capability=8,
    cgroup_mounts=(
        CgroupMount("memory", "cgroup", (("memory", None),), "/sys/fs/cgroup/memory"),
        CgroupMount("systemd", "cgroup", (("name", "systemd"),), "/sys/fs/cgroup/systemd"),
    ),
)
ROOTFS = SimpleNamespace(lower=("/l/2", "/l/1"), upper="/c/upper", work="/c/work")


def mount(kind: str, source: str, target: str, *options: str) -> dict[str, Any]:
    return {"type": kind, "source": source, "destination": target, "options": list(options)}


def spec(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "hostname": "box",
        "root": {"readonly": True},
        "process": {
            "args": ["app", "-v"],
            "env": ["PATH=/usr/bin:/bin", "A=1"],
            "cwd": "/srv",
            "user": {"uid": 1000, "gid": 100, "additionalGids": [7]},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": -1}],
            "capabilities": {"bounding": ["CAP_KILL", "CAP_CHOWN"]},
            "noNewPrivileges": True,
        },
        "mounts": [
            mount("proc", "proc", "/proc", "nosuid", "noexec", "nodev"),
            mount("tmpfs", "tmpfs", "/dev", "nosuid", "mode=755"),
            mount("cgroup", "cgroup", "/sys/fs/cgroup", "ro", "nosuid"),
            mount("bind", "/host/data", "/data", "rbind", "rslave", "ro"),
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("mount", "pid", "ipc", "uts", "cgroup")],
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
            "sysctl": {"net.core.somaxconn": "9"},
        },
    }
    return base | changes


def container(made: dict[str, Any], **changes: Any) -> Plan:
    arguments: dict[str, Any] = {"netns": "", "cgroup": "p/box", "streams": StreamWishes(), "seccomp": b""}
    return plan_container(
        made, changes.pop("rootfs", ROOTFS), changes.pop("host", HOST), **(arguments | changes)
    )


def check(name: str, ops: Sequence[Op]) -> None:
    path = TRANSCRIPTS / f"{name}.txt"
    text = program.transcript(ops)
    if os.environ.get("UPDATE_TRANSCRIPTS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def names(made: Plan) -> list[str]:
    return [op.name for op in made.ops]


def test_transcript_of_a_container() -> None:
    check("container", container(spec(), seccomp=bytes(16)).ops)


def test_transcript_of_a_container_whose_users_are_others_on_the_host() -> None:
    """Files are made as its root's before the root is mounted; the namespace is entered after the pivot."""
    namespaces = [{"type": "pid"}, {"type": "user", "path": "/proc/1/fd/9"}]
    ids = {
        kind: [{"containerID": 0, "hostID": 200_000, "size": 65_536}]
        for kind in ("uidMappings", "gidMappings")
    }
    volume = mount("bind", "/volumes/v", "/v", "rbind", "rprivate", "idmap")
    made = spec(mounts=[volume], linux={"namespaces": namespaces, **ids}, root={}, hostname="")
    plan = container(made, netns="/run/netns/n", seccomp=bytes(8))
    check("remapped", plan.ops)
    order = names(plan)
    assert (
        order.index("setfsuid") < order.index("fsopen") < order.index("pivot_root") < order.index("seccomp")
    )
    process = {"args": ["true"], "user": {"uid": 5, "gid": 0, "hostID": 200_000}}
    check("remapped_exec", plan_exec(process, HOST, pid=4242, streams=StreamWishes()).ops)


def test_transcript_of_a_container_with_a_terminal() -> None:
    mounts = [mount("tmpfs", "tmpfs", "/dev"), mount("devpts", "devpts", "/dev/pts", "gid=5")]
    process = {"args": ["/bin/sh"], "user": {"uid": 0, "gid": 0}}
    made = spec(mounts=mounts, process=process, linux={"namespaces": []}, root={}, hostname="")
    wishes = StreamWishes(terminal=True, stdin=True)
    check("terminal", container(made, netns="host", streams=wishes).ops)


def test_transcript_of_an_exec() -> None:
    process = {"args": ["true"], "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}
    check("exec", plan_exec(process, HOST, pid=4242, streams=StreamWishes(), seccomp=bytes(8)).ops)


def test_namespaces() -> None:
    every = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET
    assert container(spec()).clone_flags == every
    assert container(spec(), netns="host").clone_flags == every & ~CLONE_NEWNET
    joined = [{"type": "pid", "path": "/proc/7/ns/pid"}, {"type": "ipc", "path": "/proc/7/ns/ipc"}]
    made = container(spec(linux={"namespaces": joined}), netns="/run/netns/n")
    assert made.clone_flags == CLONE_NEWNS
    assert made.pid_namespace == "/proc/7/ns/pid"
    text = program.transcript(made.ops)
    assert "'/proc/7/ns/ipc'" in text and "'/run/netns/n'" in text and "'/proc/7/ns/pid'" not in text
    # The host's names are not changed through a shared namespace.
    assert "sethostname" not in names(made)


def test_unknown_namespace_is_refused() -> None:
    with pytest.raises(ValueError, match="unsupported namespace time"):
        container(spec(linux={"namespaces": [{"type": "time"}]}))


def test_rights_are_given_up_in_a_safe_order() -> None:
    made = spec()
    made["process"]["noNewPrivileges"] = False
    order = names(container(made, seccomp=bytes(8)))
    last = {name: len(order) - 1 - order[::-1].index(name) for name in set(order)}
    assert last["pivot_root"] < last["close_range"] < last["chdir"] < last["seccomp"]
    assert last["seccomp"] < last["setgroups"] < last["setresgid"] < last["setresuid"] < last["capset"]
    assert order[-1] == "exec"
    made["process"]["noNewPrivileges"] = True
    order = names(container(made, seccomp=bytes(8)))
    assert order.index("seccomp") > order.index("capset")


def test_layers_for_old_kernels_and_plain_folders() -> None:
    old = HostFacts(mount_point="/m", empty_dir="/e", capabilities=0, overlay_append=False)
    text = program.transcript(container(spec(mounts=[]), host=old).ops)
    assert "'lowerdir=/l/2:/l/1,upperdir=/c/upper,workdir=/c/work'" in text
    plain = SimpleNamespace(lower=(), upper="/flat", work="")
    text = program.transcript(container(spec(mounts=[]), rootfs=plain).ops)
    assert "'/flat'" in text and "overlay" not in text


def test_shared_volumes_are_cloned_before_the_host_is_detached() -> None:
    made = container(spec(mounts=[mount("bind", "/host", "/in", "rbind", "rshared")]))
    lines = program.transcript(made.ops).splitlines()
    cloned = next(n for n, line in enumerate(lines) if "'/host'" in line)
    detached = next(n for n, line in enumerate(lines) if line.startswith("mount('none', '/'"))
    assert cloned < detached


def test_devices_are_left_alone_when_the_user_mounts_dev() -> None:
    made = container(spec(mounts=[mount("bind", "/dev", "/dev", "rbind")]))
    assert "mknodat" not in names(made)


@pytest.mark.parametrize(
    ("options", "attributes", "cleared", "data"),
    [
        (["ro", "nosuid", "size=5"], 3, 0, [("size", "5")]),
        (["rw", "exec"], 0, 9, []),
        (["noatime", "newinstance"], 0x10, 0, [("newinstance", None)]),
        (["rbind", "rprivate", "relatime"], 0, 0, []),
    ],
)
def test_mount_options(
    options: list[str], attributes: int, cleared: int, data: list[tuple[str, str | None]]
) -> None:
    made = MountOptions(options)
    assert (made.attributes, made.cleared, made.data) == (attributes, cleared, data)


def test_candidates() -> None:
    assert plan_process.candidates("a/b", []) == ["a/b"]
    assert plan_process.candidates("x", ["PATH=/one:relative::/two/", "PATH=/last"]) == ["/last/x"]
    assert plan_process.candidates("x", ["PATH=/one:relative::/two/"]) == ["/one/x", "/two/x"]
    assert "/usr/bin/x" in plan_process.candidates("x", [])


def test_nothing_to_execute() -> None:
    with pytest.raises(ValueError, match=r"process\.args is empty"):
        container(spec(process={"args": []}))


def test_unknown_limit() -> None:
    with pytest.raises(ValueError, match="invalid rlimit type RLIMIT_LUCK"):
        container(spec(process={"args": ["x"], "rlimits": [{"type": "RLIMIT_LUCK", "soft": 1, "hard": 1}]}))
