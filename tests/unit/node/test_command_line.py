"""`swarmd` itself, as far as it goes without a daemon."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from node.config import ConfigError
from node.main import parse_arguments

ROOT = Path(__file__).resolve().parents[3]


def test_no_daemon_without_its_assertions() -> None:
    done = subprocess.run(
        [sys.executable, "-O", "-m", "node.main"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "without -O" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--label", "x"], "--label x: must be KEY=VALUE"),
        (["--listen-port", "0"], "--listen-port 0"),
        (["--host", "tcp://1.2.3.4:1"], "only unix:///"),
    ],
)
def test_wrong_settings_are_named(arguments: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_arguments(arguments)
