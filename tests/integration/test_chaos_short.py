"""A short life of three real managers under faults: what their clients saw is what one register would give."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SECONDS_MAX = 100.0
END_SECONDS_MAX = 60.0

pytestmark = [pytest.mark.root, pytest.mark.timeout(200)]


def chaos(lab: str, folder: Path, *words: str) -> tuple[int, str]:
    """Its exit status and what it said. It removes its lab also when it is told to end."""
    command = [sys.executable, "-m", "chaos", "--lab", lab, "--history", str(folder), *words]
    environment = {name: value for name, value in os.environ.items() if name != "DOCKER_HOST"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=environment
    ) as process:
        try:
            out, _ = process.communicate(timeout=SECONDS_MAX)
        except BaseException:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=END_SECONDS_MAX)
            raise
    return process.returncode, out


def test_killed_and_cut_off_leaders_break_no_promise(tmp_path: Path) -> None:
    lab = f"short{uuid.uuid4().hex[:6]}"
    code, said = chaos(lab, tmp_path, "SECONDS=6", "NEMESIS=kill-leader,leader-alone", "MANAGERS=3")
    assert code == 0, said
    rows = [line.split("|") for line in said.splitlines() if line.startswith("| 3 ")]
    assert [row[2].strip() for row in rows] == ["kill-leader", "leader-alone"]
    for row in rows:
        rounds, acknowledged = int(row[3]), int(row[5].replace(",", ""))
        assert rounds >= 1 and acknowledged > 100, said
    assert list(tmp_path.iterdir()) == [], "a history is kept only of a violation"
    assert not Path(f"/run/swarmctl/labs/{lab}-3").exists()
