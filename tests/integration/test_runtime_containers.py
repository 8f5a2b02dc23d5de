"""Containers on the real kernel through the supervisor, with the compiled and the ctypes interpreter."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from runtime_bundle import SPAWNERS, WAIT_S, Node, cgroup_leftovers, mount, started_node, started_node_with

from engine.errors import EngineFailure, NotFound
from engine.runtime import program, seccomp, spawn
from engine.runtime.capabilities import DEFAULT
from engine.runtime.client import RuntimeClient, SpawnError
from tests.commands import PATIENCE

pytestmark = [pytest.mark.root, pytest.mark.timeout(60 * PATIENCE)]


@pytest.fixture(params=SPAWNERS)
async def node(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Node]:
    async for made in started_node_with(request.param, tmp_path, monkeypatch):
        yield made


@pytest.fixture
async def fast_node(tmp_path: Path) -> AsyncIterator[Node]:
    """For what does not depend on the interpreter."""
    async for made in started_node(tmp_path):
        yield made


async def test_process_sees_its_own_world(node: Node) -> None:
    lines = await node.output(
        "world",
        "hostname; echo $$; pwd; ulimit -n; ls /proc/self/fd | wc -l; grep -c : /proc/net/dev",
        process={"cwd": "/made/for/me", "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 64}]},
    )
    # Descriptors: the three streams, and the folder that ls reads.
    assert lines == ["box", "1", "/made/for/me", "64", "4", "1"]


async def test_own_control_group_is_the_root_of_the_namespace(node: Node) -> None:
    lines = await node.output("groups", "cat /proc/self/cgroup; ls /sys/fs/cgroup")
    paths = {line.split(":")[2] for line in lines if line.count(":") == 2}
    assert paths == {"/"}


async def test_paths_are_masked_and_read_only(node: Node) -> None:
    (node.bundles.layer / "secret").mkdir()
    (node.bundles.layer / "secret/file").write_text("hidden")
    (node.bundles.layer / "plain").write_text("hidden")
    lines = await node.output(
        "masked",
        "ls /secret | wc -l; cat /plain | wc -c; echo x > /proc/sys/kernel/hostname; echo x > /etc/new; true",
        linux={
            "maskedPaths": ["/secret", "/plain", "/missing", "/plain/below"],
            "readonlyPaths": ["/proc/sys", "/etc", "/missing"],
        },
    )
    assert lines[:2] == ["0", "0"]
    assert [line.endswith("Read-only file system") for line in lines[2:]] == [True, True]


async def test_read_only_root(node: Node) -> None:
    lines = await node.output(
        "rootless",
        "echo x > /file; echo y > /dev/shm/file && cat /dev/shm/file",
        spec={"root": {"readonly": True}},
    )
    assert lines == ["sh: can't create /file: Read-only file system", "y"]


async def test_devices_are_made_and_the_allow_list_holds(node: Node) -> None:
    rules: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
    rules += [
        {"allow": True, "type": "c", "major": 1, "minor": minor, "access": "rwm"} for minor in (3, 5, 9)
    ]
    device = {"path": "/dev/deep/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o600, "uid": 7}
    rules += [{"allow": True, "type": "c", "access": "m"}]
    lines = await node.output(
        "devices",
        "head -c 2 /dev/zero | wc -c; head -c 3 /dev/deep/mine | wc -c; ls -ln /dev/deep/mine | "
        "awk '{print $1, $3}' 2>/dev/null || true; head -c 1 /dev/full; readlink /dev/core 2>/dev/null; true",
        linux={"resources": {"devices": rules}, "devices": [device]},
    )
    assert lines[:2] == ["2", "3"]
    assert any("/dev/full: Operation not permitted" in line for line in lines)


async def test_another_user_has_no_capabilities_but_its_streams(node: Node) -> None:
    process = node.bundles.process("sh", uid=1000)
    process["user"]["additionalGids"] = [50, 60]
    lines = await node.output(
        "user",
        "id -u; id -G; grep CapEff /proc/self/status; grep CapBnd /proc/self/status; echo out > /dev/stdout",
        process={"user": process["user"], "capabilities": process["capabilities"]},
    )
    assert lines == ["1000", "1000 50 60", "CapEff:\t0000000000000000", "CapBnd:\t00000000a80425fb", "out"]


async def test_ambient_capabilities_reach_another_user(node: Node) -> None:
    names = ["CAP_NET_BIND_SERVICE"]
    kinds = ("bounding", "effective", "permitted", "inheritable", "ambient")
    lines = await node.output(
        "ambient",
        "grep CapEff /proc/self/status",
        process={"user": {"uid": 1000, "gid": 1000}, "capabilities": dict.fromkeys(kinds, names)},
    )
    assert lines == ["CapEff:\t0000000000000400"]


async def test_default_seccomp_filter_and_no_new_privileges(node: Node) -> None:
    profile = seccomp.container_profile("", DEFAULT)
    lines = await node.output(
        "filter",
        "mount -t tmpfs x /etc; grep -E 'Seccomp:|NoNewPrivs' /proc/self/status; true",
        linux={"seccomp": profile},
        process={"noNewPrivileges": True},
    )
    assert lines == [
        "mount: permission denied (are you root?)",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ]


async def test_mounts_do_not_follow_links_out_of_the_root(node: Node) -> None:
    """A hostile image: targets are links to the host, dangling links and links to links."""
    outside = node.bundles.folder / "outside"
    outside.mkdir()
    source = node.bundles.folder / "source"
    source.write_text("mounted")
    layer = node.bundles.layer
    (layer / "escape").symlink_to(outside)
    (layer / "up").symlink_to("../../../../../../.." + str(outside))
    (layer / "etc/resolv.conf").symlink_to("../run/resolve/stub.conf")
    (layer / "one").symlink_to("/two/three")
    mounts = [
        mount("bind", str(source), target, "rbind", "ro")
        for target in ("/escape/file", "/up/other", "/etc/resolv.conf", "/one/x")
    ]
    lines = await node.output(
        "links", "cat /escape/file /up/other /run/resolve/stub.conf /two/three/x", mounts=mounts
    )
    assert lines == ["mounted" * 4]
    assert list(outside.iterdir()) == []


async def test_link_loop_as_a_target_is_an_error(node: Node) -> None:
    (node.bundles.layer / "loop").symlink_to("loop")
    request = node.bundles.start("loop", "true", mounts=[mount("bind", "/etc/hostname", "/loop/x", "bind")])
    with pytest.raises(SpawnError, match='error mounting "/etc/hostname" to rootfs at "/loop/x"'):
        await node.client.start(request)


async def test_bind_mounts_and_tmpfs(node: Node) -> None:
    volume = node.bundles.folder / "volume"
    volume.mkdir()
    mounts = [
        mount("bind", str(volume), "/data", "rbind", "rprivate", "rw"),
        mount("bind", str(volume), "/shown", "rbind", "ro"),
        mount("tmpfs", "tmpfs", "/scratch", "size=1m", "mode=1777", "noexec"),
    ]
    lines = await node.output(
        "mounts",
        "echo kept > /data/file; cat /shown/file; echo x > /shown/file; df -k /scratch | tail -1 | wc -l; "
        "grep ' /scratch ' /proc/mounts",
        mounts=mounts,
    )
    assert lines[0] == "kept"
    assert lines[1].endswith("Read-only file system")
    assert "noexec" in lines[-1] and "size=1024k" in lines[-1]
    assert (volume / "file").read_text() == "kept\n"


async def test_shared_mounts_travel_back_to_the_host_only_when_asked(node: Node) -> None:
    """The root's own mounts must not appear on the host, whatever the propagation of a volume is."""
    before = Path("/proc/self/mountinfo").read_text()
    volume = node.bundles.folder / "shared"
    volume.mkdir()
    lines = await node.output(
        "shared",
        "echo ok > /data/f; cat /data/f",
        mounts=[mount("bind", str(volume), "/data", "rbind", "rshared")],
    )
    assert lines == ["ok"]
    assert Path("/proc/self/mountinfo").read_text() == before


async def test_sysctl_and_shared_namespaces(node: Node) -> None:
    await node.client.start(
        node.bundles.start("first", "sleep", "100", linux={"sysctl": {"net.ipv4.ip_forward": "1"}})
    )
    states = {state.id: state for state in await node.client.list()}
    pid = states["first"].pid
    namespaces = [{"type": "mount"}] + [
        {"type": kind, "path": f"/proc/{pid}/ns/{kind}"} for kind in ("pid", "ipc", "uts")
    ]
    lines = await node.output(
        "second",
        "cat /proc/sys/net/ipv4/ip_forward; hostname; cat /proc/1/comm; readlink /proc/1/ns/ipc; readlink /proc/self/ns/ipc",
        linux={"namespaces": namespaces},
        netns=f"/proc/{pid}/ns/net",
    )
    assert lines[:3] == ["1", "box", "sleep"]
    assert lines[3] == lines[4]


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["nosuch"], 127, 'exec: "nosuch": executable file not found in $PATH'),
        (["/no/such"], 127, 'exec: "/no/such": stat /no/such: no such file or directory'),
        (["/etc/passwd"], 126, 'exec: "/etc/passwd": permission denied'),
        (["/bad"], 126, 'exec: "/bad": exec format error'),
        (["/etc"], 126, 'exec: "/etc": permission denied'),
    ],
)
async def test_commands_that_cannot_run(node: Node, args: list[str], code: int, message: str) -> None:
    bad = node.bundles.layer / "bad"
    bad.write_bytes(b"\x7fnothing")
    bad.chmod(0o755)
    with pytest.raises(SpawnError) as failure:
        await node.client.start(node.bundles.start("bad", *args))
    assert failure.value.exit_code == code
    assert str(failure.value) == f"unable to start container process: {message}"
    assert await node.client.list() == []


async def test_exit_codes(node: Node) -> None:
    assert (await node.run("seven", "sh", "-c", "exit 7"))[0] == 7
    assert (await node.run("signal", "sh", "-c", "sleep 9 & kill -9 $!; wait $!; exit $?"))[0] == 137
    await node.client.start(node.bundles.start("killed", "sleep", "100"))
    await node.client.kill("killed", 9)
    event = await node.exits.of("killed")
    assert (event.exit_code, event.oom_killed) == (137, False)
    with pytest.raises(NotFound):
        await node.client.kill("killed", 9)
    with pytest.raises(NotFound):
        await node.client.kill("unknown", 9)


async def test_a_failed_start_leaves_nothing(node: Node) -> None:
    await node.run("warm", "true")
    descriptors = open_descriptors(node)
    for _ in range(3):
        with pytest.raises(SpawnError):
            await node.client.start(node.bundles.start("nothing", "nosuch", tty=True, stdin=True))
        with pytest.raises(SpawnError, match="rootfs at"):
            await node.client.start(
                node.bundles.start("nothing", "true", mounts=[mount("bind", "/no/such", "/x", "bind")])
            )
    assert open_descriptors(node) == descriptors
    assert cgroup_leftovers(node.bundles.cgroup_parent) == []


async def test_many_containers_at_once_leave_no_descriptor(node: Node) -> None:
    await node.run("warm", "true")
    descriptors = open_descriptors(node)
    results = await asyncio.gather(
        *(node.run(f"many{n}", "sh", "-c", f"echo {n}; exit {n}") for n in range(12))
    )
    assert results == [(n, [str(n)]) for n in range(12)]
    assert open_descriptors(node) == descriptors


def open_descriptors(node: Node) -> int:
    return len(list(Path(f"/proc/{node.client.supervisor_pid}/fd").iterdir()))


# ---- streams ----------------------------------------------------------------------------------------------


def read_frames(descriptor: int) -> dict[int, bytes]:
    """Everything until the end, by stream."""
    with socket.socket(fileno=descriptor) as sock:
        sock.settimeout(WAIT_S)
        data = b""
        while portion := sock.recv(65536):
            data += portion
    streams: dict[int, bytes] = {}
    while data:
        stream, length = struct.unpack_from(">B3xI", data)
        streams[stream] = streams.get(stream, b"") + data[8 : 8 + length]
        data = data[8 + length :]
    return streams


async def test_announced_attachment_loses_nothing(node: Node) -> None:
    request = node.bundles.start("attached", "sh", "-c", "echo out; echo err >&2", attachments=1)
    await node.client.start(request)
    await asyncio.sleep(0.05)
    attachment = await node.client.attach("attached", stdin=False)
    assert attachment.stdin_fd is None
    streams = await asyncio.to_thread(read_frames, attachment.output_fd)
    assert streams == {1: b"out\n", 2: b"err\n"}
    await node.exits.of("attached")


async def test_closing_the_only_input_ends_it(node: Node) -> None:
    request = node.bundles.start("cat", "cat", stdin=True, stdin_once=True, attachments=1)
    await node.client.start(request)
    attachment = await node.client.attach("cat")
    assert attachment.stdin_fd is not None
    os.write(attachment.stdin_fd, b"through\n")
    os.close(attachment.stdin_fd)
    assert await asyncio.to_thread(read_frames, attachment.output_fd) == {1: b"through\n"}
    assert (await node.exits.of("cat")).exit_code == 0


async def test_terminal(node: Node) -> None:
    request = node.bundles.start(
        "tty",
        "sh",
        "-c",
        "read x; stty size; tty; echo got $x; ls -l /dev/console",
        tty=True,
        stdin=True,
        console_size=(30, 100),
        attachments=1,
    )
    await node.client.start(request)
    attachment = await node.client.attach("tty")
    await node.client.resize("tty", None, 33, 101)
    assert attachment.stdin_fd is not None
    os.write(attachment.stdin_fd, b"word\n")
    await node.exits.of("tty")
    os.close(attachment.stdin_fd)
    with socket.socket(fileno=attachment.output_fd) as sock:
        sock.settimeout(WAIT_S)
        text = b""
        while portion := sock.recv(4096):
            text += portion
    assert text.replace(b"\r", b"").decode().splitlines()[:4] == ["word", "33 101", "/dev/pts/0", "got word"]


async def test_a_slow_attacher_holds_the_container_back_but_gets_everything(fast_node: Node) -> None:
    size = 6_000_000
    request = fast_node.bundles.start(
        "slow", "sh", "-c", f"head -c {size} /dev/zero", log_driver="none", attachments=1
    )
    await fast_node.client.start(request)
    attachment = await fast_node.client.attach("slow", stdin=False)
    await asyncio.sleep(0.3)
    assert (await fast_node.client.list())[0].running
    streams = await asyncio.to_thread(read_frames, attachment.output_fd)
    assert len(streams[1]) == size
    await fast_node.exits.of("slow")


async def test_an_attacher_that_leaves_does_not_stop_the_container(fast_node: Node) -> None:
    request = fast_node.bundles.start(
        "left", "sh", "-c", "head -c 6000000 /dev/zero", log_driver="none", attachments=1
    )
    await fast_node.client.start(request)
    attachment = await fast_node.client.attach("left", stdin=False)
    await asyncio.sleep(0.1)
    os.close(attachment.output_fd)
    assert (await fast_node.exits.of("left")).exit_code == 0


# ---- exec -------------------------------------------------------------------------------------------------


def read_all(descriptor: int) -> bytes:
    with open(descriptor, "rb", buffering=0) as file:
        os.set_blocking(descriptor, True)
        return file.readall() or b""


async def test_exec_joins_everything(node: Node) -> None:
    profile = seccomp.container_profile("", DEFAULT)
    await node.client.start(node.bundles.start("home", "sleep", "100", linux={"seccomp": profile}))
    script = "hostname; cat /proc/1/comm; grep Seccomp: /proc/self/status; cat; echo err >&2; exit 5"
    started = await node.client.exec(
        "home", "e1", node.bundles.process("sh", "-c", script), tty=False, stdin=True
    )
    assert started.stdin_fd is not None and started.stderr_fd is not None
    assert started.pid in await node.client.pids("home")
    os.write(started.stdin_fd, b"input\n")
    os.close(started.stdin_fd)
    output = await asyncio.to_thread(read_all, started.stdout_fd)
    errors = await asyncio.to_thread(read_all, started.stderr_fd)
    assert output.decode().splitlines() == ["box", "sleep", "Seccomp:\t2", "input"]
    assert errors == b"err\n"
    assert (await node.exits.of("home", "e1")).exit_code == 5
    with pytest.raises(SpawnError) as failure:
        await node.client.exec("home", "e2", node.bundles.process("nosuch"), tty=False, stdin=False)
    assert failure.value.exit_code == 127


async def test_exec_with_a_terminal_and_another_user(node: Node) -> None:
    await node.client.start(node.bundles.start("home", "sleep", "100"))
    process = node.bundles.process("sh", "-c", "read x; stty size; tty; id -u; echo $x", tty=True, uid=1000)
    started = await node.client.exec("home", "e1", process, tty=True, stdin=True, console_size=(24, 80))
    assert started.stderr_fd is None
    await node.client.resize("home", "e1", 40, 120)
    os.write(started.stdout_fd, b"hi\n")
    await node.exits.of("home", "e1")
    text = os.read(started.stdout_fd, 4096)
    os.close(started.stdout_fd)
    assert text.replace(b"\r", b"").decode().splitlines() == ["hi", "40 120", "/dev/pts/0", "1000", "hi"]


async def test_execs_end_with_their_container(node: Node) -> None:
    await node.client.start(node.bundles.start("home", "sleep", "100"))
    started = await node.client.exec(
        "home", "e1", node.bundles.process("sleep", "100"), tty=False, stdin=False
    )
    await node.client.kill("home", 9)
    assert (await node.exits.of("home", "e1")).exit_code == 137
    assert (await node.exits.of("home")).exit_code == 137
    for descriptor in (started.stdout_fd, started.stderr_fd):
        assert descriptor is not None
        os.close(descriptor)


# ---- control groups ---------------------------------------------------------------------------------------


async def test_limits_are_in_force_and_can_change(fast_node: Node) -> None:
    resources = {
        "memory": {"limit": 64 << 20, "swap": 64 << 20, "reservation": 32 << 20},
        "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0"},
        "pids": {"limit": 20},
    }
    await fast_node.client.start(
        fast_node.bundles.start("limits", "sleep", "100", linux={"resources": resources})
    )
    stats = await fast_node.client.stats("limits")
    assert stats["memory_limit"] == 64 << 20
    assert stats["pids"] == 1
    await fast_node.client.update("limits", {"memory": {"limit": 128 << 20, "swap": 256 << 20}})
    assert (await fast_node.client.stats("limits"))["memory_limit"] == 128 << 20
    with pytest.raises(
        EngineFailure, match=r"memory\.limit_in_bytes|less than memory alone|Invalid argument"
    ):
        await fast_node.client.update("limits", {"memory": {"limit": 512 << 20, "swap": 1 << 20}})


async def test_out_of_memory_is_reported(fast_node: Node) -> None:
    resources = {"memory": {"limit": 8 << 20, "swap": 8 << 20}}
    request = fast_node.bundles.start(
        "oom", "dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1", linux={"resources": resources}
    )
    await fast_node.client.start(request)
    event = await fast_node.exits.of("oom")
    assert (event.exit_code, event.oom_killed) == (137, True)


async def test_too_many_processes(fast_node: Node) -> None:
    code, lines = await fast_node.run(
        "forks",
        "sh",
        "-c",
        "for i in 1 2 3 4 5 6; do sleep 5 & done; echo done",
        linux={"resources": {"pids": {"limit": 4}}},
    )
    assert code != 0 and any("can't fork" in line for line in lines)


async def test_pause_and_resume(fast_node: Node) -> None:
    await fast_node.client.start(
        fast_node.bundles.start("paused", "sh", "-c", "while :; do echo tick; sleep 0.01; done")
    )
    await asyncio.sleep(0.1)
    await fast_node.client.pause("paused")
    await asyncio.sleep(0.05)
    size = len(fast_node.bundles.log("paused"))
    await asyncio.sleep(0.1)
    assert size > 0 and len(fast_node.bundles.log("paused")) == size
    await fast_node.client.resume("paused")
    await asyncio.sleep(0.2)
    assert len(fast_node.bundles.log("paused")) > size


async def test_processes_left_in_a_shared_pid_namespace_are_killed(fast_node: Node) -> None:
    namespaces = [{"type": kind} for kind in ("mount", "ipc", "uts", "cgroup")]
    started = time.monotonic()
    code, lines = await fast_node.run(
        "host", "sh", "-c", "sleep 100 & echo left", linux={"namespaces": namespaces}
    )
    assert (code, lines) == (0, ["left"])
    assert time.monotonic() - started < 10


# ---- the supervisor's life --------------------------------------------------------------------------------


async def test_containers_outlive_the_daemon(fast_node: Node) -> None:
    script = "i=0; while [ $i -lt 40 ]; do echo line $i; i=$((i+1)); sleep 0.01; done; exit 9"
    started = await fast_node.client.start(fast_node.bundles.start("survivor", "sh", "-c", script))
    await fast_node.client.start(fast_node.bundles.start("stays", "sleep", "100"))
    supervisor = fast_node.client.supervisor_pid
    await fast_node.client.close()
    # While no daemon is there: nothing but the log shows when it has ended.
    async with asyncio.timeout(60 * PATIENCE):
        while "line 39" not in fast_node.bundles.log("survivor"):
            await asyncio.sleep(0.05)
    again = await RuntimeClient.connect(fast_node.run_dir)
    try:
        assert again.supervisor_pid == supervisor
        async with asyncio.timeout(60 * PATIENCE):
            while any(state.id == "survivor" and state.running for state in await again.list()):
                await asyncio.sleep(0.05)
        states = {state.id: state for state in await again.list()}
        ended = states["survivor"]
        assert (ended.running, ended.exit_code, ended.pid) == (False, 9, started.pid)
        assert states["stays"].running
        logged = [json.loads(line)["log"] for line in fast_node.bundles.log("survivor").splitlines()]
        assert logged == [f"line {n}\n" for n in range(40)]
        await again.forget("survivor")
        assert [state.id for state in await again.list()] == ["stays"]
        await again.exec("stays", "e", fast_node.bundles.process("true"), tty=False, stdin=False)
    finally:
        await again.close()


async def test_second_supervisor_is_refused(fast_node: Node) -> None:
    other = await RuntimeClient.connect(fast_node.run_dir)
    assert other.supervisor_pid == fast_node.client.supervisor_pid
    await other.close()


async def test_same_id_cannot_run_twice(fast_node: Node) -> None:
    await fast_node.client.start(fast_node.bundles.start("twin", "sleep", "100"))
    with pytest.raises(EngineFailure, match="runs already"):
        await fast_node.client.start(fast_node.bundles.start("twin", "sleep", "100"))
    with pytest.raises(EngineFailure, match="still runs"):
        await fast_node.client.forget("twin")


async def test_restart_with_the_same_id(fast_node: Node) -> None:
    for n in range(5):
        await fast_node.client.start(fast_node.bundles.start("again", "sh", "-c", f"exit {n}"))
        assert (await fast_node.exits.of("again")).exit_code == n


@pytest.mark.parametrize(
    ("name", "arguments", "code"),
    [
        ("clone3", (0, 0), errno.ENOSYS),
        ("unshare", (0x10000000,), errno.EPERM),
        ("mount", (b"x", b"/", b"tmpfs", 0, None), errno.EPERM),
        ("pivot_root", (b"/", b"/"), errno.EPERM),
        ("socket", (40, 1, 0), errno.EPERM),
        ("chdir", (b"/nonexistent",), errno.ENOENT),
    ],
)
def test_kernel_applies_the_default_filter(name: str, arguments: tuple[Any, ...], code: int) -> None:
    """The filter alone, loaded by a program that then makes one call."""
    compiled = seccomp.compiled(seccomp.container_profile("", DEFAULT))
    ops = [
        program.call("seccomp", 1, 0, program.FilterCode(compiled)),
        program.call(name, *arguments, label="the call"),
        program.execute(["/bin/true"], ["true"], []),
    ]
    with pytest.raises(spawn.ProgramFailed) as failure:
        spawn.spawn(program.pack(ops), [])
    assert (failure.value.index, failure.value.errno) == (1, code)


async def test_parents_of_control_groups_come_and_go_under_parallel_starts(fast_node: Node) -> None:
    async def lives(lane: int) -> None:
        for number in range(25):
            assert await fast_node.run(f"lane{lane}-{number}", "true") == (0, [])

    await asyncio.gather(*(lives(lane) for lane in range(3)))
