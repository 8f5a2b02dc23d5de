"""Which supervisor a daemon asks to change, and which it can live with."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import Unavailable
from engine.runtime.launch import Installation
from engine.runtime.renewal import Renewal
from engine.runtime.wire import PROTOCOL, Hello, Message


def hello(pid: int = 10, build: str = "old", protocol: int = PROTOCOL, oldest: int = 0) -> Hello:
    return Hello(pid=pid, protocol=protocol, oldest=oldest, build=build)


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    (tmp_path / "engine/runtime").mkdir(parents=True)
    (tmp_path / "engine/runtime/supervisor.py").write_text("one")
    return Installation("/usr/bin/python3", (str(tmp_path), "/site-packages"), "2.0")


def test_a_build_changes_with_its_files_only(installation: Installation) -> None:
    build = installation.release().build
    assert build.startswith("2.0+")
    file = Path(installation.folders[0], "engine/runtime/supervisor.py")
    file.with_suffix(".pyc").write_text("compiled")
    assert installation.release().build == build
    file.write_text("two")
    assert installation.release().build != build


def test_the_command_line_ends_as_every_supervisors(installation: Installation) -> None:
    release = installation.release()
    assert release.command[0] == "/usr/bin/python3"
    assert installation.folders[0] in release.command[-1]
    assert release.arguments("/run/x", "--resume", "5")[len(release.command) :] == [
        *("/run/x", "--build", release.build, "--resume", "5", "swarmctl-supervisor")
    ]


def test_our_own_build_is_left_alone(installation: Installation) -> None:
    renewal = Renewal(installation)
    ours = hello(build=installation.release().build)
    assert not renewal.is_due(ours)
    renewal.met(ours)
    assert (renewal.facts.pid, renewal.facts.problem) == (10, "")


def test_a_refusal_is_kept_logged_and_not_asked_for_again(
    installation: Installation, caplog: pytest.LogCaptureFixture
) -> None:
    renewal = Renewal(installation)
    assert renewal.is_due(hello())
    renewal.answered(hello(), hello(), Message(2, "refused", {"message": "it does not load"}))
    renewal.met(hello())
    assert renewal.facts.problem == "it does not load"
    assert "stays build old, not 2.0+" in caplog.text and "it does not load" in caplog.text
    assert not renewal.is_due(hello())
    assert renewal.is_due(hello(pid=11))


def test_a_change_back_by_another_daemon_is_not_fought(installation: Installation) -> None:
    renewal = Renewal(installation)
    ours = hello(build=installation.release().build)
    renewal.answered(hello(), ours, None)
    renewal.met(ours)
    assert renewal.facts.problem == ""
    assert not renewal.is_due(hello())
    renewal.met(hello())
    assert "another daemon" in renewal.facts.problem


def test_a_supervisor_that_ended_instead_is_replaced(
    installation: Installation, caplog: pytest.LogCaptureFixture
) -> None:
    renewal = Renewal(installation)
    now = hello(pid=12, build=installation.release().build)
    renewal.answered(hello(), now, None)
    renewal.met(now)
    assert "(pid 10) ended" in caplog.text
    assert renewal.facts.problem == ""


@pytest.mark.parametrize(
    ("oldest", "newest"), [(0, PROTOCOL), (PROTOCOL, PROTOCOL + 7), (1, PROTOCOL), (PROTOCOL, PROTOCOL)]
)
def test_a_common_protocol_is_enough(installation: Installation, oldest: int, newest: int) -> None:
    renewal = Renewal(installation)
    renewal.met(hello(protocol=newest, oldest=oldest))
    assert renewal.facts.protocol == newest


@pytest.mark.parametrize(("oldest", "newest"), [(PROTOCOL + 1, PROTOCOL + 2), (0, PROTOCOL + 1), (1, 1)])
def test_no_common_protocol_says_what_to_do(installation: Installation, oldest: int, newest: int) -> None:
    renewal = Renewal(installation)
    renewal.answered(hello(), hello(), Message(2, "refused", {"message": "its state is too new"}))
    with pytest.raises(Unavailable) as refusal:
        renewal.met(hello(protocol=newest, oldest=oldest))
    for said in ("pid 10, build old", "its state is too new", "install the version of swarmctl", "kill 10"):
        assert said in str(refusal.value)
