"""A tour of the docker CLI on one daemon, as a user of every group of commands would type it.

What is expected here holds for Docker's own daemon as well: see conftest.py for how to point these tests at one.
"""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients import Cli, Target
from tests.commands import PATIENCE

pytestmark = pytest.mark.root
ID = "[0-9a-f]{64}"


@pytest.fixture(scope="module")
def docker(target: Target) -> Cli:
    return target.docker


@pytest.fixture
def box(docker: Cli) -> Iterator[str]:
    """A running container."""
    docker.ok("run", "-d", "--name", "box", "--label", "tour=yes", "hello", "sleep", "1000")
    yield "box"
    docker.run("rm", "-f", "box")


class Terminal:
    """The client in a terminal."""

    def __init__(self, docker: Cli, *words: str) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [str(docker.client), *words],
            stdin=slave, stdout=slave, stderr=slave, env=docker.environment, start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def until(self, text: str) -> None:
        while text not in self.seen:
            self.seen += os.read(self._master, 4096).decode()

    def end(self) -> int:
        try:
            return self.process.wait(20 * PATIENCE)
        finally:
            self.process.kill()
            os.close(self._master)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("hello", "sh", "-c", "exit 3"), 3, ""),
        (("hello", "nosuch"), 127, 'exec: "nosuch": executable file not found in $PATH'),
        (("hello", "/etc"), 126, 'exec: "/etc": permission denied'),
        (("-u", "nosuch", "hello", "id"), 125, "unable to find user nosuch: no matching entries in passwd file"),
        (("--network", "nosuch", "hello"), 125, "network nosuch not found"),
        (("--device", "/dev/nosuch", "hello"), 127, 'device "/dev/nosuch": no such file or directory'),
        (("-v", "a/b:/x", "hello"), 125, 'create a/b: "a/b" includes invalid characters for a local volume name'),
        (("-v", "/a:b", "hello"), 125, "invalid volume specification: '/a:b'"),
        (("--cap-add", "X", "hello"), 125, 'invalid CapAdd: unknown capability: "CAP_X"'),
        (("--cpus", "4000", "hello"), 125, "ange of CPUs is from 0.01 to"),
        (("-m", "1k", "hello"), 125, "Minimum memory limit allowed is 6MB"),
        (("--pull", "never", "nosuch:x"), 125, "No such image: nosuch:x"),
        (("--mount", "type=bind,src=/no/such,dst=/x", "hello"), 125, "bind source path does not exist: /no/such"),
        (("--pid", "container:nosuch", "hello"), 125, "No such container: nosuch"),
    ],
)  # fmt: skip
def test_what_run_says_and_ends_with(docker: Cli, words: tuple[str, ...], code: int, said: str) -> None:
    result = docker.run("run", "--rm", *words)
    assert (result.code, said in result.err) == (code, True), result.err
    assert "Error waiting" not in result.err and "Unable to find image" not in result.err.replace(
        "nosuch", ""
    )
    assert docker.ok("ps", "-aq") == ""


def test_a_container_through_its_states(docker: Cli, box: str) -> None:
    def status() -> str:
        return docker.ok("ps", "-a", "--filter", "label=tour", "--format", "{{.Status}}")

    assert status().startswith("Up ") and docker.ok("pause", box) == "box\n" and "(Paused)" in status()
    assert "is already paused" in docker.run("pause", box).err
    assert "is paused" in docker.run("exec", box, "true").err
    docker.ok("unpause", box)
    assert "is not paused" in docker.run("unpause", box).err
    assert docker.run("rm", box).code == 1
    docker.ok("rename", box, "renamed")
    docker.ok("rename", "renamed", box)
    docker.ok("update", "--memory", "64m", "--memory-swap", "64m", "--restart", "on-failure:3", box)
    shown = "{{.HostConfig.Memory}} {{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}"
    assert docker.ok("inspect", box, "-f", shown) == f"{64 << 20} on-failure 3\n"
    docker.ok("restart", "-t", "0", box)
    assert "nvalid signal: NOSUCH" in docker.run("kill", "-s", "NOSUCH", box).err
    docker.ok("kill", box)
    assert docker.ok("wait", box) == "137\n" and status().startswith("Exited (137)")
    assert "is not running" in docker.run("kill", box).err and docker.ok("stop", box) == "box\n"
    assert docker.run("exec", box, "true").code == 1
    docker.ok("start", box)
    docker.ok("rm", "-f", box)
    assert docker.run("rm", box).err == "Error response from daemon: No such container: box\n"


def test_exec_in_a_container(docker: Cli, box: str) -> None:
    words = ("-e", "X=y", "-w", "/tmp", "-u", "nobody", box, "sh", "-c", "echo $X $(pwd) $(id -u)")
    assert docker.ok("exec", *words) == "y /tmp 65534\n"
    assert docker.ok("exec", "-i", box, "cat", text="in\n") == "in\n"
    assert docker.run("exec", box, "sh", "-c", "exit 5").code == 5
    assert docker.run("exec", box, "nosuch").code in (126, 127)  # 126 before Docker 25
    assert (
        docker.run("exec", "nosuch", "true").err == "Error response from daemon: No such container: nosuch\n"
    )
    docker.ok("exec", "-d", box, "touch", "/marked")
    assert docker.ok("top", box, "-o", "pid,comm").split()[:2] == ["PID", "COMMAND"]
    assert "box" in docker.ok("stats", "--no-stream", "--format", "{{.Name}}")


def test_a_terminal_with_a_prompt(docker: Cli) -> None:
    terminal = Terminal(docker, "run", "-it", "--rm", "--name", "tty", "hello", "sh")
    terminal.until("# ")
    terminal.type("echo $((6*7)); tty\r")
    terminal.until("42")
    terminal.until("/dev/pts/0")
    terminal.type("sleep 1000\r")
    terminal.until("sleep 1000")
    time.sleep(0.2)  # until the shell has begun it: nothing shows when
    terminal.type("\x03")  # ctrl-c
    terminal.type("exit 9\r")
    assert terminal.end() == 9
    assert docker.ok("ps", "-aq") == ""


def test_leaving_a_terminal_and_coming_back(docker: Cli) -> None:
    terminal = Terminal(docker, "run", "-it", "--name", "left", "hello", "sh")
    try:
        terminal.until("# ")
        terminal.type("\x10\x11")  # ctrl-p ctrl-q
        assert terminal.end() in (0, 1)
        assert docker.ok("ps", "--format", "{{.Names}}") == "left\n"
        again = Terminal(docker, "attach", "--detach-keys", "ctrl-x", "left")
        again.type("echo $((6*7))\r")
        again.until("42")
        again.type("\x18")
        again.end()
        assert docker.ok("ps", "--format", "{{.Names}}") == "left\n"
    finally:
        docker.ok("rm", "-f", "left")


def test_ctrl_c_reaches_a_container_in_the_foreground(docker: Cli) -> None:
    words = (
        "run",
        "--rm",
        "hello",
        "sh",
        "-c",
        "trap 'echo got; exit 4' INT; echo up; while :; do sleep 0.1; done",
    )
    with subprocess.Popen(
        [str(docker.client), *words], env=docker.environment, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None and running.stdout.readline() == "up\n"
        running.send_signal(signal.SIGINT)
        assert running.stdout.read() == "got\n"
        assert running.wait(20 * PATIENCE) == 4


def test_images(docker: Cli, tmp_path: Path) -> None:
    name, tag, image, *_, size = docker.ok("images", "hello").splitlines()[1].split()
    assert (name, tag, size[-2:]) == ("hello", "latest", "MB") and len(image) == 12
    assert "CREATED BY" in docker.ok("history", "hello")
    docker.ok("create", "--name", "source", "hello")
    digest = docker.ok("commit", "-m", "words", "-a", "me", "-c", "CMD echo committed", "source", "made:1")
    docker.ok("rm", "source")
    assert re.fullmatch(f"sha256:{ID}\n", digest)
    assert docker.ok("image", "inspect", "made:1", "-f", "{{.Comment}} {{.Author}}") == "words me\n"
    assert docker.ok("run", "--rm", "made:1") == "committed\n"
    docker.ok("tag", "made:1", "made:2")
    docker.ok("save", "-o", str(tmp_path / "made.tar"), "made")
    assert docker.ok("rmi", "made:1") == "Untagged: made:1\n"
    assert "Deleted: sha256:" in docker.ok("rmi", "made:2")
    assert "Loaded image: made:1\n" in docker.ok("load", "-q", "-i", str(tmp_path / "made.tar"))
    docker.ok("rmi", "made:1", "made:2")
    assert "No such image: nosuch" in docker.run("rmi", "nosuch").err
    assert "No such image: nosuch" in docker.run("tag", "nosuch", "x").err
    assert "invalid reference format: repository name" in docker.run("pull", "Bad").err
    assert "Total reclaimed space: 0B" in docker.ok("image", "prune", "-f")
    docker.ok("export", "-o", str(tmp_path / "root.tar"), docker.ok("create", "hello").strip())
    docker.ok("container", "prune", "-f")
    docker.ok("import", str(tmp_path / "root.tar"), "flat:1")
    assert docker.ok("run", "--rm", "flat:1", "/bin/echo", "flat") == "flat\n"
    docker.ok("rmi", "flat:1")


def test_networks(docker: Cli, box: str) -> None:
    assert re.fullmatch(
        f"{ID}\n", docker.ok("network", "create", "tour", "--subnet", "10.99.0.0/24", "--label", "a=b")
    )
    try:
        assert "network with name tour already exists" in docker.run("network", "create", "tour").err
        docker.ok("network", "connect", "--ip", "10.99.0.9", "--alias", "other", "tour", box)
        assert (
            docker.ok("run", "--rm", "--network", "tour", "hello", "nslookup", "other").count("10.99.0.9")
            == 1
        )
        shown = json.loads(docker.ok("network", "inspect", "tour"))[0]
        assert shown["IPAM"]["Config"][0]["Subnet"] == "10.99.0.0/24" and shown["Labels"] == {"a": "b"}
        assert [c["IPv4Address"] for c in shown["Containers"].values()] == ["10.99.0.9/24"]
        assert "already exists in network" in docker.run("network", "connect", "tour", box).err
        assert "has active endpoints" in docker.run("network", "rm", "tour").err
        docker.ok("network", "disconnect", "tour", box)
        assert "is not connected to" in docker.run("network", "disconnect", "tour", box).err
        assert "Pool overlaps" in docker.run("network", "create", "x", "--subnet", "10.99.0.0/24").err
    finally:
        docker.run("network", "rm", "tour")
    assert "network tour not found" in docker.run("network", "rm", "tour").err
    assert docker.run("network", "rm", "bridge").code == 1
    listed = docker.ok("network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}").splitlines()
    assert {"bridge bridge local", "host host local", "none null local"} <= set(listed)


def test_volumes(docker: Cli) -> None:
    assert docker.ok("volume", "create", "--label", "x=y", "tour") == "tour\n"
    docker.ok("run", "-d", "--name", "uses", "-v", "tour:/v", "-v", "/anonymous", "hello")
    assert "volume is in use - [" in docker.run("volume", "rm", "tour").err
    kinds = docker.ok("inspect", "uses", "-f", "{{range .Mounts}}{{.Type}} {{.Destination}}\n{{end}}").split(
        "\n"
    )
    assert sorted(filter(None, kinds)) == ["volume /anonymous", "volume /v"]
    docker.ok("rm", "-f", "-v", "uses")
    assert docker.ok("volume", "ls", "-q") == "tour\n"
    assert docker.ok("volume", "ls", "-f", "label=x", "--format", "{{.Driver}} {{.Name}}") == "local tour\n"
    assert docker.ok("volume", "rm", "tour") == "tour\n"
    assert (
        "No such volume: tour" in docker.run("volume", "rm", "tour").err
        or "no such volume" in docker.run("volume", "rm", "tour").err
    )


def test_the_system_contexts_plugins(docker: Cli, target: Target, tmp_path: Path) -> None:
    assert docker.ok("info", "-f", "{{.OSType}} {{.Swarm.LocalNodeState}}") == "linux inactive\n"
    assert docker.ok("version", "-f", "{{.Server.Os}}") == "linux\n"
    assert docker.ok("system", "df").splitlines()[0].split()[:2] == ["TYPE", "TOTAL"]
    assert "Total reclaimed space" in docker.ok("system", "prune", "-f")
    assert docker.ok("plugin", "ls", "-q") == ""
    outside = Cli(target.url, docker.client, DOCKER_CONFIG=str(tmp_path))
    outside.environment = {k: v for k, v in outside.environment.items() if k != "DOCKER_HOST"}
    outside.ok("context", "create", "there", "--docker", f"host={target.url}")
    outside.ok("context", "use", "there")
    assert outside.ok("run", "--rm", "hello", "echo", "by context") == "by context\n"
    assert outside.ok("-H", target.url, "ps", "-q") == ""


def test_events_are_told_in_order(docker: Cli) -> None:
    since = docker.ok("info", "-f", "{{.SystemTime}}").strip()
    docker.ok("run", "--rm", "--label", "seen=yes", "hello", "true")
    until = docker.ok("info", "-f", "{{.SystemTime}}").strip()
    words = (
        "events",
        "--since",
        since,
        "--until",
        until,
        "--filter",
        "label=seen",
        "--format",
        "{{.Action}}",
    )
    assert docker.ok(*words).split() == ["create", "attach", "start", "die", "destroy"]


def test_what_is_missing_is_named(docker: Cli) -> None:
    for kind, words in (
        ("object", ("inspect",)),
        ("container", ("container", "inspect")),
        ("image", ("image", "inspect")),
    ):
        missing = docker.run(*words, "nosuch")
        assert (missing.code, missing.out) == (1, "[]\n") and f"o such {kind}: nosuch" in missing.err
    for words in ("logs", "attach", "export", "start", "stop", "port", "top", "diff", "wait"):
        assert "No such container: nosuch" in docker.run(words, "nosuch").err, words
    for words in ("node", "service", "secret", "config", "stack"):
        assert "This node is not a swarm manager." in docker.run(words, "ls").err, words
