"""The life of a container by the verbs of an OCI runtime: ours, and runc under the same tests, to test them."""

from __future__ import annotations

import array
import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import PATIENCE
from tests.integration.oci_bundles import Runtime, configuration, runtime_at, runtime_command

pytestmark = pytest.mark.root

NAME = "c1"
PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture(params=["swarmctl-runtime", "runc"])
def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runtime]:
    command = runtime_command(tmp_path) if request.param == "swarmctl-runtime" else request.param
    with runtime_at(command, tmp_path, f"swarmctl-oci-{uuid.uuid4().hex[:8]}", NAME) as made:
        yield made


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Runtime]:
    with runtime_at(
        runtime_command(tmp_path), tmp_path, f"swarmctl-oci-{uuid.uuid4().hex[:8]}", NAME
    ) as made:
        yield made


@pytest.fixture(autouse=True)
def adopts_orphans() -> Iterator[None]:
    """As conmon does: the containers become our children, and their exit codes ours to read."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield
    prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def eventually(what: str, text: str, path: Path) -> str:
    deadline = time.monotonic() + 10 * PATIENCE
    while text not in path.read_text():
        assert time.monotonic() < deadline, f"{what}: {path.read_text()}"
        time.sleep(0.01)
    return path.read_text()


def test_a_life(runtime: Runtime, tmp_path: Path) -> None:
    bundle = runtime.bundle("sh", "-c", "echo out; echo err >&2; cat /proc/sys/kernel/hostname; exit 7")
    assert runtime.create(NAME, bundle, "--pid-file", str(tmp_path / "pid")).returncode == 0
    pid = int((tmp_path / "pid").read_text())
    state = json.loads(runtime.ok("state", NAME))
    assert (state["id"], state["status"], state["pid"]) == (NAME, "created", pid)
    assert (state["bundle"], state["annotations"]["who"]) == (str(bundle), "a test")
    assert (bundle / "output").read_text() == "", "nothing runs before start"
    runtime.ok("start", NAME)
    assert exit_code(pid) == 7
    assert sorted((bundle / "output").read_text().split()) == ["bundled", "err", "out"]
    assert runtime.status(NAME) == "stopped"
    assert runtime.run("start", NAME).code != 0
    runtime.ok("delete", NAME)
    gone = runtime.run("state", NAME)
    assert gone.code != 0 and ("does not exist" in gone.err or "No such file" in gone.err)


def test_a_running_one(runtime: Runtime, tmp_path: Path) -> None:
    bundle = runtime.bundle(
        "sh", "-c", "trap 'echo caught; exit 3' TERM; echo up; while :; do sleep 0.05; done"
    )
    assert runtime.create(NAME, bundle, "--pid-file", str(tmp_path / "pid")).returncode == 0
    runtime.ok("start", NAME)
    eventually("it runs", "up", bundle / "output")
    pid = int((tmp_path / "pid").read_text())
    assert pid in json.loads(runtime.ok("ps", "--format", "json", NAME))
    assert NAME in runtime.ok("list", "-q").split()
    assert json.loads(runtime.ok("list", "--format", "json"))[0]["id"] == NAME
    runtime.ok("pause", NAME)
    assert runtime.status(NAME) == "paused"
    runtime.ok("resume", NAME)
    assert runtime.status(NAME) == "running"
    runtime.ok("kill", NAME, "TERM")
    assert exit_code(pid) == 3
    assert "caught" in (bundle / "output").read_text()
    assert runtime.run("kill", NAME, "TERM").code != 0


def test_exec(runtime: Runtime, tmp_path: Path) -> None:
    bundle = runtime.bundle("sleep", "1000")
    assert runtime.create(NAME, bundle).returncode == 0
    runtime.ok("start", NAME)
    done = runtime.run(
        "exec",
        "--cwd",
        "/etc",
        "--env",
        "A=b",
        "--user",
        "5:6",
        NAME,
        "sh",
        "-c",
        "echo $A; pwd; id -u; exit 9",
    )
    assert (done.code, done.out.split()) == (9, ["b", "/etc", "5"])
    process = configuration("sh", "-c", "echo $$ > /pid; exec sleep 1000")["process"]
    (tmp_path / "process.json").write_text(json.dumps(process))
    words = [
        "exec",
        "--detach",
        "--process",
        str(tmp_path / "process.json"),
        "--pid-file",
        str(tmp_path / "pid"),
        NAME,
    ]
    subprocess.run([*runtime.words, *words], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    pid = int((tmp_path / "pid").read_text())
    assert pid in json.loads(runtime.ok("ps", "--format", "json", NAME))
    runtime.ok("kill", "--all", NAME, "KILL")
    assert exit_code(pid) == -signal.SIGKILL
    missing = runtime.run("exec", NAME, "true")
    assert missing.code != 0


def test_a_command_that_is_not_there_is_said_at_create(runtime: Runtime) -> None:
    bundle = runtime.bundle("nosuch")
    assert runtime.create(NAME, bundle).returncode != 0
    assert (
        "executable file" in (bundle / "output").read_text()
        and "not found in $PATH" in (bundle / "output").read_text()
    )
    assert runtime.run("state", NAME).code != 0


def test_a_terminal_goes_to_the_console_socket(runtime: Runtime, tmp_path: Path) -> None:
    bundle = runtime.bundle(
        "sh",
        "-c",
        "stty size; test -t 0 && echo terminal",
        terminal=True,
        consoleSize={"height": 31, "width": 97},
    )
    listener = socket.socket(socket.AF_UNIX)
    with listener:
        listener.bind(str(tmp_path / "console"))
        listener.listen()
        words = ("--console-socket", str(tmp_path / "console"))
        assert runtime.create(NAME, bundle, *words).returncode == 0, (bundle / "output").read_text()
        connection, _ = listener.accept()
        with connection:
            _, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4))
    master = array.array("i", ancillary[0][2])[0]
    runtime.ok("start", NAME)
    read = b""
    try:
        while part := os.read(master, 4096):
            read += part
    except OSError:
        pass  # the terminal was hung up
    os.close(master)
    assert read.split() == [b"31", b"97", b"terminal"]


def test_descriptors_are_handed_on(runtime: Runtime) -> None:
    made = runtime.bundle("sh", "-c", "cat <&3; test -e /proc/self/fd/4 || echo no fourth")
    reader, writer = os.pipe()
    os.write(writer, b"through\n")
    os.close(writer)
    with (made / "output").open("wb") as output:
        # The pipe is the runtime's descriptor 3, whatever its number is here.
        words = [*runtime.words, "create", "--preserve-fds", "1", "--bundle", str(made), NAME]
        subprocess.run(
            ["bash", "-c", f'exec "$@" 3<&{reader}', "bash", *words],
            pass_fds=(reader,),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=True,
        )
    os.close(reader)
    runtime.ok("start", NAME)
    assert "through" in eventually("it read", "through", made / "output")


def test_hooks_run_in_order(runtime: Runtime, tmp_path: Path) -> None:
    told = tmp_path / "told"
    made = configuration("sh", "-c", "echo ran")
    made["hooks"] = {
        kind: [
            {
                "path": "/bin/sh",
                "args": [
                    "sh",
                    "-c",
                    f'echo {kind} $(cat | tr -d " \\n" | grep -o \'"status":"[a-z]*"\') >> {told}',
                ],
            }
        ]
        for kind in ("createRuntime", "createContainer", "poststart", "poststop")
    }
    made["hooks"]["startContainer"] = [{"path": "/bin/touch", "args": ["touch", "/started"]}]
    bundle = runtime.bundle_of(made)
    assert runtime.create(NAME, bundle).returncode == 0, (bundle / "output").read_text()
    # runc runs those of poststart as early as here.
    assert [line.split()[0] for line in told.read_text().splitlines()][:2] == [
        "createRuntime",
        "createContainer",
    ]
    runtime.ok("start", NAME)
    eventually("it ran", "ran", bundle / "output")
    assert (bundle / "rootfs/started").exists()
    runtime.ok("delete", "--force", NAME)
    kinds = [line.split()[0] for line in told.read_text().splitlines()]
    assert kinds == ["createRuntime", "createContainer", "poststart", "poststop"]
    assert told.read_text().splitlines()[-1].endswith('"stopped"')


def test_a_failing_hook_undoes_the_creation(runtime: Runtime) -> None:
    made = configuration("true")
    made["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "echo broken >&2; exit 4"]}]}
    bundle = runtime.bundle_of(made)
    assert runtime.create(NAME, bundle).returncode != 0
    assert "hook" in (bundle / "output").read_text()
    assert runtime.run("state", NAME).code != 0


def test_an_unstarted_one_is_removed_by_force(ours: Runtime, tmp_path: Path) -> None:
    assert ours.create(NAME, ours.bundle("true"), "--pid-file", str(tmp_path / "pid")).returncode == 0
    pid = int((tmp_path / "pid").read_text())
    assert "that is not stopped: created" in ours.run("delete", NAME).err
    ours.ok("delete", "--force", NAME)
    assert exit_code(pid) == -signal.SIGKILL
    assert not list(Path("/sys/fs/cgroup").glob(f"*/{ours.group}"))


def test_errors_go_to_the_log_as_json(runtime: Runtime, tmp_path: Path) -> None:
    words = [*runtime.words, "--log", str(tmp_path / "log"), "--log-format", "json", "start", "nosuch"]
    assert subprocess.run(words, capture_output=True).returncode != 0
    line = json.loads((tmp_path / "log").read_text().splitlines()[-1])
    assert line["level"] == "error" and line["msg"]


# ---- ours alone -----------------------------------------------------------------------------------------------


def test_what_is_not_served_is_refused_by_name(ours: Runtime) -> None:
    made = configuration("true")
    made["linux"]["uidMappings"] = [{"containerID": 0, "hostID": 1000, "size": 1}]
    assert ours.create(NAME, ours.bundle_of(made)).returncode == 1
    assert "linux.uidMappings" in (ours.folder / "bundle1/output").read_text()
    systemd = ours.run("--systemd-cgroup", "state", NAME)
    assert systemd.code == 1 and "cgroupfs" in systemd.err
    assert json.loads(ours.ok("features"))["linux"]["cgroup"]["v1"]


@pytest.mark.parametrize("moment", ["createRuntime", "createContainer"])
def test_a_create_that_is_killed_leaves_nothing_that_waits(
    ours: Runtime, moment: str, tmp_path: Path
) -> None:
    """kill -9 while a hook runs: the process ends by itself, and the folder goes by delete --force."""
    made = configuration("sleep", "1000")
    made["hooks"] = {
        moment: [{"path": "/bin/sh", "args": ["sh", "-c", f"echo here > {tmp_path}/here; exec sleep 1000"]}]
    }
    bundle = ours.bundle_of(made)
    (tmp_path / "here").touch()
    with (bundle / "output").open("wb") as output:
        creating = subprocess.Popen(
            [*ours.words, "create", "--bundle", str(bundle), NAME],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    eventually("the hook runs", "here", tmp_path / "here")
    creating.kill()
    creating.wait()
    ours.ok("delete", "--force", NAME)
    for pid in children("sleep 1000"):
        os.kill(pid, signal.SIGKILL)  # the hook, which nobody tells
    deadline = time.monotonic() + 10 * PATIENCE
    with contextlib.suppress(ChildProcessError):  # when there is none left
        while not os.waitpid(-1, os.WNOHANG)[0] or time.monotonic() < deadline:
            time.sleep(0.01)
        raise AssertionError("something still waits")


def children(words: str) -> list[int]:
    found = []
    for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        if words in line:
            found.append(int(pid))
    return found
