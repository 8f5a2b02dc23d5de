from __future__ import annotations

from pathlib import Path

import pytest

from node import machine


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / "systemctl"


def answers(systemctl: Path, script: str) -> None:
    systemctl.write_text(f"#!/bin/sh\n{script}\n")
    systemctl.chmod(0o755)


@pytest.mark.parametrize(
    ("script", "stops"),
    [
        ('[ "$*" = is-system-running ] && echo stopping; exit 1', True),
        ("echo running", False),
        ("echo degraded; exit 1", False),
        ("echo offline; exit 1", False),
        ("exit 1", False),
    ],
)
async def test_what_systemd_says(systemctl: Path, script: str, stops: bool) -> None:
    answers(systemctl, script)
    assert await machine.is_stopping() is stops


async def test_without_systemd_only_the_daemon_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert await machine.is_stopping() is False


async def test_systemd_that_does_not_answer_is_not_waited_for(
    systemctl: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(machine, "ANSWER_S_MAX", 0.05)
    answers(systemctl, "exec sleep 1000")
    assert await machine.is_stopping() is False
    assert "does not say" in caplog.text
