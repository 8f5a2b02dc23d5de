"""Figures, restarts and health of containers as the docker CLI shows them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.clients import Cli
from tests.commands import PATIENCE
from tests.compat.test_docker_logs import docker, run, wait  # noqa: F401  (fixtures)
from tests.conftest import HostDaemon

pytestmark = pytest.mark.root


def figures(docker: Cli, *words: str) -> dict[str, dict[str, str]]:  # noqa: F811
    lines = docker.ok("stats", "--no-stream", "--format", "{{json .}}", *words).splitlines()
    return {row["Name"]: row for row in map(json.loads, lines)}


def megabytes(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(\w+)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"B": 1e-6, "kB": 1e-3, "KiB": 1e-3, "MB": 1, "MiB": 1.05, "GiB": 1074}[unit]


def test_figures_are_those_of_the_container(
    host: HostDaemon,
    docker: Cli,  # noqa: F811
    run: Callable[..., str],  # noqa: F811
) -> None:
    fill = "head -c 30000000 /dev/zero >/file; cat /file >/dev/null; touch /full; "
    run(fill + "while :; do :; done", "--name", "busy", "--memory", "100m", "--pids-limit", "50")
    run("sleep 1000 & wait", "--name", "idle", "--network", "none")
    run("true", "--name", "over")
    wait(lambda: docker.run("exec", "busy", "test", "-f", "/full").code == 0)
    wait(lambda: float(figures(docker, "busy")["busy"]["CPUPerc"].rstrip("%")) > 10)
    seen = figures(docker, "--all")
    busy, idle, over = seen["busy"], seen["idle"], seen["over"]
    used, limit = busy["MemUsage"].split(" / ")
    assert limit == "100MiB" and megabytes(used) < 15, "the page cache is not counted"
    assert busy["PIDs"] == "1" and idle["PIDs"] == "2"
    assert float(idle["CPUPerc"].rstrip("%")) < 5 and idle["NetIO"] == "0B / 0B"
    assert over["MemUsage"] == "0B / 0B" and over["PIDs"] == "0"
    assert "over" not in figures(docker)
    ours = host.ok("stats", "--no-stream", "--format", "json", "busy", "idle").splitlines()
    assert [json.loads(row)["Name"] for row in ours] == ["busy", "idle"]
    assert json.loads(ours[0]).keys() == busy.keys()
    assert json.loads(ours[0])["MemUsage"].endswith(" / 100MiB")
    assert docker.run("stats", "--no-stream", "nosuch").code == 1
    assert "No such container: nosuch" in host.run("stats", "--no-stream", "nosuch").err


def test_network_figures_count(docker: Cli, run: Callable[..., str]) -> None:  # noqa: F811
    run("sleep 1000", "--name", "talks")
    before = figures(docker, "talks")["talks"]["NetIO"].split(" / ")[1]
    docker.run(
        "exec",
        "talks",
        "sh",
        "-c",
        "ping -c 3 -i 0.2 -s 40000 $(ip route | sed -n 's/default via //p' | cut -d' ' -f1)",
    )
    after = figures(docker, "talks")["talks"]["NetIO"].split(" / ")[1]
    assert megabytes(after) >= megabytes(before) + 0.1


def test_top_takes_the_options_of_ps(docker: Cli, run: Callable[..., str]) -> None:  # noqa: F811
    container = run("sleep 1000; true")
    rows = docker.ok("top", container, "-o", "pid,args").splitlines()
    assert rows[0].split() == ["PID", "COMMAND"] and any("sleep 1000" in row for row in rows[1:])
    assert docker.ok("top", container).splitlines()[0].split()[:2] == ["UID", "PID"]
    assert "Couldn't find PID field in ps output" in docker.run("top", container, "-o", "args").err


def health(docker: Cli, container: str) -> dict[str, Any]:  # noqa: F811
    return dict(json.loads(docker.ok("inspect", "-f", "{{json .State.Health}}", container)))


def test_health_goes_down_and_up_and_is_told(docker: Cli, run: Callable[..., str]) -> None:  # noqa: F811
    started = str(int(time.time()))
    flags = [
        "--health-interval",
        "200ms",
        "--health-retries",
        "2",
        "--health-timeout",
        "5s",
        "--health-start-period",
        "10ms",
    ]
    check = "head -c 5000 /dev/zero | tr '\\0' o; test -f /well"
    container = run("sleep 1000", "--health-cmd", check, *flags)
    wait(lambda: "(unhealthy)" in docker.ok("ps", "--filter", f"id={container}"))
    assert docker.ok("ps", "-q", "--filter", "health=unhealthy").strip() == container[:12]
    docker.ok("exec", container, "touch", "/well")
    wait(lambda: health(docker, container)["Status"] == "healthy")
    wait(lambda: len(health(docker, container)["Log"]) == 5)
    seen = health(docker, container)
    assert seen["FailingStreak"] == 0 and seen["Log"][-1]["ExitCode"] == 0
    assert seen["Log"][-1]["Output"] == "o" * 4096 + "..."
    docker.ok("stop", "-t", "0", container)
    assert health(docker, container)["Status"] == "unhealthy", "what does not run is not healthy"
    told = docker.ok(
        "events",
        "--since",
        started,
        "--until",
        str(int(time.time()) + 1),
        "--filter",
        f"container={container}",
    )
    assert re.findall(r"health_status: (\w+)", told) == ["unhealthy", "healthy"]


def test_a_check_that_hangs_has_failed(docker: Cli, run: Callable[..., str]) -> None:  # noqa: F811
    flags = ["--health-interval", "100ms", "--health-timeout", "500ms", "--health-retries", "1"]
    container = run("sleep 1000", "--health-cmd", "echo begun; sleep 100", *flags)
    wait(lambda: health(docker, container)["Status"] == "unhealthy")
    result = health(docker, container)["Log"][0]
    assert result["ExitCode"] == -1
    assert result["Output"] == "Health check exceeded timeout (500ms): begun\n"


def test_no_health_check_is_wanted(docker: Cli, run: Callable[..., str]) -> None:  # noqa: F811
    assert "Health" not in json.loads(docker.ok("inspect", run("sleep 1000", "--no-healthcheck")))[0]["State"]


def test_restart_policies_hold_over_a_restart_of_the_daemon(
    host: HostDaemon,
    docker: Cli,  # noqa: F811
    run: Callable[..., str],  # noqa: F811
) -> None:
    loop = "echo began; sleep 1000"
    always = run(loop, "--restart", "always")
    unless = run(loop, "--restart", "unless-stopped")
    crashing = run("exit 7", "--restart", "always")
    docker.ok("stop", "-t", "0", always, unless)

    def state(container: str, what: str = "Status") -> str:
        return docker.ok("inspect", "-f", f"{{{{.State.{what}}}}}", container).strip()

    assert (state(always), state(unless)) == ("exited", "exited"), "somebody stopped them"
    wait(lambda: int(docker.ok("inspect", "-f", "{{.RestartCount}}", crashing)) >= 2)
    host.stop()
    host.start()
    wait(lambda: state(always) == "running")
    assert state(unless) == "exited"
    assert state(crashing) in ("restarting", "running") and state(crashing, "ExitCode") in ("7", "0")
    docker.ok("stop", "-t", "0", crashing)
    time.sleep(0.5 * PATIENCE)
    assert state(crashing) == "exited"
    docker.ok("update", "--restart", "no", always)
    docker.ok("kill", "-s", "KILL", always)
    wait(lambda: state(always) == "exited")
