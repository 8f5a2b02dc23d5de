"""The daemon's package is replaced under running containers; the machine is shut down in order and boots again."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.commands import PATIENCE
from tests.conftest import BIN, READY_S, ROOT, HostDaemon, processes

pytestmark = [pytest.mark.root, pytest.mark.timeout(240 * PATIENCE)]

COUNTING = (
    "trap 'exit 7' TERM; i=0; while :; do echo line $i; i=$((i+1)); [ $((i % 20)) = 0 ] && sleep 0.02; done"
)
PACKAGES = ("cli", "engine", "node", "overlay_net", "raft", "scheduler")


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """The next version of swarmctl, as an installation of its own."""
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / "newer" / package, ignore=ignored)
    for name, text in (("node/config.py", 'VERSION = "0.1.0"'), ("engine/runtime/wire.py", "MARKER =")):
        path = tmp_path / "newer" / name
        source = path.read_text()
        assert source.count(text) == 1
        path.write_text(
            source.replace(text, 'VERSION = "0.2.0"' if "VERSION" in text else f"# Newer.\n{text}")
        )
    return tmp_path / "newer"


@pytest.fixture
def followers() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts swarmctl commands that go on until somebody ends them."""
    made: list[subprocess.Popen[str]] = []

    def start(host: HostDaemon, *words: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        environment = {**os.environ, "SWARMCTL_HOST": f"unix://{host.socket}"}
        started = subprocess.Popen(
            [str(BIN / "swarmctl"), *words],
            stdin=stdin,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        made.append(started)
        return started

    yield start
    for process in made:
        process.kill()
        process.communicate()


def pid_of(host: HostDaemon, name: str) -> int:
    return int(host.ok("inspect", "--format", "{{.State.Pid}}", name))


def wait_for(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + READY_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def supervisor_of(host: HostDaemon) -> dict[str, str]:
    shown: dict[str, str] = json.loads(host.ok("info", "--format", "json"))["Supervisor"]
    return shown


def test_containers_run_on_under_the_next_version(
    host: HostDaemon,
    newer: Path,
    followers: Callable[..., subprocess.Popen[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = supervisor_of(host)
    assert before["Build"].startswith("0.1.0+") and "Problem" not in before
    host.ok("run", "-d", "--name", "counts", "hello", "sh", "-c", COUNTING)
    host.ok("run", "-d", "-it", "--name", "tty", "hello", "sh", "-c", "while read w; do echo got $w; done")
    host.ok("run", "-d", "--name", "again", "--restart", "always", "hello", "sleep", "100000")
    host.ok(
        "run",
        "-d",
        "--name",
        "ends",
        "hello",
        "sh",
        "-c",
        "trap 'echo last words; exit 5' USR1; while :; do sleep 0.05; done",
    )
    executing = followers(host, "exec", "counts", "sleep", "54321")
    following = followers(host, "logs", "-f", "counts")
    wait_for("the exec runs", lambda: "54321" in host.ok("top", "counts"))
    pids = {name: pid_of(host, name) for name in ("counts", "tty", "again")}
    ending = pid_of(host, "ends")

    assert host.stop() == 0
    executing.communicate(timeout=20)
    followed, _ = following.communicate(timeout=20)
    os.kill(ending, signal.SIGUSR1)
    wait_for("its end", lambda: not Path(f"/proc/{ending}").exists())
    monkeypatch.setenv("PYTHONPATH", str(newer))
    host.start()

    after = supervisor_of(host)
    assert after["Build"].startswith("0.2.0+") and "Problem" not in after
    assert after["Pid"] == before["Pid"]
    assert f" Supervisor: {after['Build']} (pid {after['Pid']})" in host.ok("info")
    (component,) = (
        part
        for part in json.loads(host.ok("version", "--format", "json"))["Server"]["Components"]
        if part["Name"] == "supervisor"
    )
    assert component["Version"] == after["Build"]
    assert {name: pid_of(host, name) for name in pids} == pids
    assert "54321" in host.ok("top", "counts")
    assert host.ok("wait", "ends") == "5"
    assert host.ok("logs", "ends") == "last words"
    assert followed.splitlines() == [f"line {n}" for n in range(len(followed.splitlines()))]
    keyboard, theirs = os.openpty()
    typing = followers(host, "attach", "tty", stdin=theirs)
    assert typing.stdout is not None
    shown = b""
    while b"got it" not in shown:
        os.write(keyboard, b"it\n")  # again, because what comes before the attachment is dropped
        if select.select([typing.stdout], [], [], 0.2)[0]:
            read = os.read(typing.stdout.fileno(), 4096)
            assert read, "the attachment ended"
            shown += read
    os.close(keyboard)
    os.close(theirs)
    os.kill(pids["again"], signal.SIGKILL)
    wait_for("its restart", lambda: pid_of(host, "again") not in (0, pids["again"]))
    host.ok("stop", "counts")
    assert host.ok("wait", "counts") == "7"
    lines = host.ok("logs", "counts").splitlines()
    assert lines == [f"line {n}" for n in range(len(lines))]
    assert len(lines) >= len(followed.splitlines()) > 0
    host.ok("rm", "-f", "counts", "tty", "again", "ends")


def test_a_machine_that_stops_takes_its_containers_along_in_order(
    host: HostDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemctl = tmp_path / "bin/systemctl"
    systemctl.parent.mkdir()
    systemctl.write_text("#!/bin/sh\necho stopping\nexit 1\n")
    systemctl.chmod(0o755)
    host.stop()
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", f"{systemctl.parent}:{path}")
    host.start()
    orderly = "trap 'echo in order; exit 3' TERM; echo started; while :; do sleep 0.05; done"
    policies = {"always": "always", "unless": "unless-stopped", "failure": "on-failure", "never": "no"}
    for name, policy in policies.items():
        host.ok("run", "-d", "--name", name, "--restart", policy, "hello", "sh", "-c", orderly)
    host.ok("run", "-d", "--name", "bystopped", "--restart", "unless-stopped", "hello", "sh", "-c", orderly)
    host.ok("stop", "bystopped")
    host.ok("run", "-d", "--rm", "--name", "removed", "hello", "sh", "-c", orderly)
    host.ok(
        "run",
        "-d",
        "--name",
        "deaf",
        "--stop-timeout",
        "1",
        "--restart",
        "always",
        "hello",
        "sleep",
        "100000",
    )
    pids = {name: pid_of(host, name) for name in (*policies, "removed", "deaf")}
    assert host.stop() == 0
    assert [name for name, pid in pids.items() if Path(f"/proc/{pid}").exists()] == []
    assert "containers end with the machine" in host.log.read_text()
    for pid in processes(f"engine.runtime.supervisor|{host.run_dir}"):
        os.kill(pid, signal.SIGKILL)  # at the end of a shutdown nothing is left
    monkeypatch.setenv("PATH", path)
    host.start()
    wait_for("what is to run runs", lambda: len(host.ok("ps", "-q").split()) == 4)
    assert sorted(host.ok("ps", "--format", "{{.Names}}").split()) == ["always", "deaf", "failure", "unless"]
    for name in ("always", "unless", "failure"):
        wait_for("both lives", lambda name=name: host.ok("logs", name).count("started") == 2)
        assert host.ok("logs", name).split("\n") == ["started", "in order", "started"]
    assert host.ok("logs", "never").split("\n") == ["started", "in order"]
    assert host.ok("wait", "never") == "3"
    assert sorted(host.ok("ps", "-a", "--filter", "status=exited", "--format", "{{.Names}}").split()) == [
        "bystopped",
        "never",
    ]
    host.ok("rm", "-f", *policies, "bystopped", "deaf")
