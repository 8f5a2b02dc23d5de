"""docker's CLI plugins: where they are found, and what they are told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cli import plugins


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('#!/bin/sh\necho "$@" "$DOCKER_HOST"\nexit 7\n')
    path.chmod(0o755)
    return path


def test_a_plugin_of_the_user_is_run_with_its_name(tmp_path: Path) -> None:
    path = program(tmp_path / "cli-plugins/docker-buildx")
    assert plugins.find("buildx", {"DOCKER_CONFIG": str(tmp_path)}) == (str(path), ["buildx"])


def test_compose_may_stand_for_itself_in_path(tmp_path: Path) -> None:
    path = program(tmp_path / "bin/docker-compose")
    environment = {"DOCKER_CONFIG": str(tmp_path), "PATH": f"/nowhere:{tmp_path}/bin"}
    assert plugins.find("compose", environment) == (str(path), [])
    assert plugins.find("scout", environment) is None


@pytest.mark.parametrize("words", [["up", "-d", "--help"], ["-f", "x.yml", "ps"]])
def test_it_takes_our_place_with_the_daemon_that_is_meant(tmp_path: Path, words: list[str]) -> None:
    program(tmp_path / "cli-plugins/docker-compose")
    command = ["-m", "cli.main", "--config", str(tmp_path), "-H", "tcp://10.0.0.9:2375", "compose", *words]
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=Path(__file__).parents[3]
    )
    assert (done.returncode, done.stdout) == (7, f"compose {' '.join(words)} tcp://10.0.0.9:2375\n"), (
        done.stderr
    )
