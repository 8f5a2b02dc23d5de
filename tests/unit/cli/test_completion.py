"""What is offered for the next word; the daemon is a thread that answers with what a test says."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.completion import complete
from cli.completion_scripts import SCRIPTS
from cli.main import main

ANSWERS: dict[str, Any] = {
    "/containers/json": [
        {"Names": ["/web"], "Image": "hello", "Status": "Up"},
        {"Names": ["/db"], "Image": "x", "Status": "Up"},
    ],
    "/images/json": [{"RepoTags": ["hello:latest", "base:1"]}],
    "/networks": [{"Name": "front", "Driver": "bridge"}],
    "/volumes": {"Volumes": [{"Name": "data", "Driver": "local"}]},
    "/services": [{"Spec": {"Name": "shop_web", "Labels": {"com.docker.stack.namespace": "shop"}}}],
    "/nodes": [{"ID": "n1", "Description": {"Hostname": "host1"}}],
}  # fmt: skip


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Request lines that the daemon got."""
    lines: list[str] = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as reader:
                line = reader.readline().decode()
                lines.append(line)
                body = json.dumps(ANSWERS[line.split()[1].partition("?")[0]]).encode()
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
                )

    threading.Thread(target=serve, daemon=True).start()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/s")
    monkeypatch.delenv("SWARMCTL_HOST", raising=False)
    yield lines
    listener.close()


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARMCTL_HOST", "unix:///nobody/listens")


def words(*line: str) -> list[str]:
    return [value for value, _ in complete(line)]


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["sta"], ["stack", "start", "stats"]),
        (["container", "re"], ["rename", "restart"]),
        (["-H", "unix:///x", "vers"], ["version"]),
        (["run", "--network-"], ["--network-alias"]),
        (["run", "--restart", "on"], ["on-failure"]),
        (["run", "--restart=al"], ["--restart=always"]),
        (["update", "--restart", ""], ["always", "no", "on-failure", "unless-stopped"]),
        (["swarm", "join-token", ""], ["manager", "worker"]),
        (["rm", ""], []),
        (["nonsense", "rm", ""], []),
        (["rename", "a", "b", ""], []),
    ],
)
def test_words_that_need_no_daemon(line: list[str], expected: list[str]) -> None:
    assert words(*line) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["rm", ""], ["db", "web"]),
        (["rm", "-f", "w"], ["web"]),
        (["rm", "web", ""], ["db"]),
        (["run", "-it", "hel"], ["hello", "hello:latest"]),
        (["run", "--network", ""], ["front"]),
        (["run", "--network=f"], ["--network=front"]),
        (["network", "connect", "front", ""], ["db", "web"]),
        (["network", "rm", ""], ["front"]),
        (["volume", "inspect", ""], ["data"]),
        (["service", "update", "--force", ""], ["shop_web"]),
        (["stack", "rm", ""], ["shop"]),
        (["node", "inspect", ""], ["host1", "self"]),
        (["inspect", "d"], ["data", "db"]),
    ],
)
@pytest.mark.usefixtures("asked")
def test_names_that_the_daemon_knows(line: list[str], expected: list[str]) -> None:
    assert words(*line) == expected


def test_exec_offers_what_runs_and_start_what_does_not(asked: list[str]) -> None:
    complete(["exec", ""])
    complete(["start", ""])
    assert "%22running%22" in asked[0] and "%22exited%22" in asked[1]


@pytest.mark.usefixtures("asked")
def test_candidates_carry_their_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["__complete", "rm", "w"]) == 0
    assert capsys.readouterr().out == "web\thello, Up\n"


def test_the_script_of_bash_offers_words(tmp_path: Path) -> None:
    program = tmp_path / "swarmctl"
    program.write_text('#!/bin/sh\necho "$@" >&2\nprintf "hello:latest\\thint\\nhello:1\\n"\n')
    program.chmod(0o755)
    line = "swarmctl run hello:"
    script = (
        f'{SCRIPTS["bash"]}\nCOMP_LINE="{line}"; COMP_POINT={len(line)}; _swarmctl; echo "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        capture_output=True,
        text=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )
    assert done.stdout == "latest 1\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_its_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "swarmctl __complete" in capsys.readouterr().out
    assert main(["completion", "tcsh"]) == 1
