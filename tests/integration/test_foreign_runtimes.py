"""Containers of the daemon under runc and crun: logs, exec, exit codes, signals, pause, and a daemon that restarts."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients import docker_client
from tests.commands import PATIENCE, Result, run
from tests.conftest import HostDaemon, processes

pytestmark = pytest.mark.root


@pytest.fixture(params=["runc", "crun"])
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def docker(host: HostDaemon, *words: str) -> Result:
    return run([str(docker_client()), "-H", f"unix://{host.socket}", *words], "", os.environ)


def ok(host: HostDaemon, *words: str) -> str:
    result = docker(host, *words)
    assert result.code == 0, f"docker {' '.join(words)}: {result.err}"
    return result.out.strip()


@pytest.fixture(autouse=True)
def nothing_of_it_is_left(host: HostDaemon) -> Iterator[None]:
    yield
    docker(host, "rm", "-f", "c1")
    deadline = time.monotonic() + 10 * PATIENCE
    while left := list((host.run_dir / "bundles").glob("*")) + list((host.run_dir / "runtimes").glob("*/*")):
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.05)
    assert f"{host.run_dir}/bundles" not in Path("/proc/self/mountinfo").read_text()


def test_output_and_exit_codes(host: HostDaemon, runtime: str) -> None:
    words = ("run", "--rm", "--runtime", runtime, "hello")
    assert ok(host, *words, "sh", "-c", "hostname > /own; echo out; cat /own | wc -l").split() == ["out", "1"]
    failed = docker(host, *words, "sh", "-c", "echo err >&2; exit 7")
    assert (failed.code, failed.out, failed.err) == (7, "", "err\n")
    missing = docker(host, *words, "nosuch")
    assert missing.code == 127 and "not found" in missing.err
    assert runtime in json.loads(ok(host, "info", "--format", "{{json .Runtimes}}"))


def test_input_and_terminals(host: HostDaemon, runtime: str) -> None:
    words = [str(docker_client()), "-H", f"unix://{host.socket}", "run", "--rm", "--runtime", runtime]
    assert run([*words, "-i", "hello", "cat"], "through\n", os.environ).out == "through\n"
    assert "terminal" in ok(
        host, "run", "--rm", "-t", "--runtime", runtime, "hello", "sh", "-c", "test -t 0 && echo terminal"
    )


def test_one_that_stays(host: HostDaemon, runtime: str) -> None:
    """Over kill -9 of the daemon, which adopts it again."""
    loop = "trap 'echo caught; exit 5' TERM; n=0; while :; do n=$((n+1)); echo line $n; sleep 0.1; done"
    ok(host, "run", "-d", "--name", "c1", "--memory", "64m", "--runtime", runtime, "hello", "sh", "-c", loop)
    assert (
        ok(host, "inspect", "-f", "{{.HostConfig.Runtime}} {{.State.Status}}", "c1") == f"{runtime} running"
    )
    executed = docker(host, "exec", "-e", "A=b", "c1", "sh", "-c", "echo $A; exit 9")
    assert (executed.code, executed.out) == (9, "b\n")
    ok(host, "pause", "c1")
    assert ok(host, "inspect", "-f", "{{.State.Paused}}", "c1") == "true"
    ok(host, "unpause", "c1")
    assert "64MiB" in ok(host, "stats", "--no-stream", "--format", "{{.MemUsage}}", "c1")
    host.stop(9)
    host.start()
    assert docker(host, "exec", "c1", "true").code == 0
    before = len(ok(host, "logs", "c1").splitlines())
    deadline = time.monotonic() + 10 * PATIENCE
    while len(ok(host, "logs", "c1").splitlines()) <= before:
        assert time.monotonic() < deadline, "its log goes on"
    ok(host, "stop", "c1")
    assert ok(host, "inspect", "-f", "{{.State.ExitCode}}", "c1") == "5"
    assert ok(host, "logs", "c1").splitlines()[-1] == "caught"
    ok(host, "start", "c1")
    ok(host, "kill", "c1")
    assert ok(host, "wait", "c1") == "137"


def test_it_outlives_the_supervisor_that_adopted_it(host: HostDaemon) -> None:
    loop = "trap 'exit 6' TERM; while :; do echo line; sleep 0.05; done"
    ok(host, "run", "-d", "--name", "c1", "--runtime", "runc", "hello", "sh", "-c", loop)
    (supervisor,) = processes(f"engine.runtime.supervisor|{host.run_dir}")
    os.kill(supervisor, signal.SIGKILL)
    deadline = time.monotonic() + 10 * PATIENCE
    while processes(f"engine.runtime.supervisor|{host.run_dir}") in ([], [supervisor]):
        assert time.monotonic() < deadline, "no successor"
        time.sleep(0.02)
    assert docker(host, "exec", "c1", "true").code == 0
    before = len(ok(host, "logs", "c1").splitlines())
    while len(ok(host, "logs", "c1").splitlines()) <= before:
        assert time.monotonic() < deadline, "its log goes on"
    ok(host, "stop", "c1")
    assert ok(host, "inspect", "-f", "{{.State.ExitCode}}", "c1") == "6"


def test_a_runtime_that_is_not_here(host: HostDaemon) -> None:
    refused = docker(host, "run", "--runtime", "kata", "hello")
    assert refused.code == 125 and "unknown or invalid runtime name: kata" in refused.err
