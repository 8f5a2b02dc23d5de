"""The frame of the scenarios: what a client counts, what an expectation says, how the machines are saved."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any, cast

import pytest

VAGRANT = Path(__file__).resolve().parents[3] / "vagrant"
sys.path.insert(0, str(VAGRANT))

import scenarios.__main__ as scenarios_main  # noqa: E402
from machines.lab import Lab  # noqa: E402
from machines.machine import Image, Machine, MachineError  # noqa: E402
from scenarios.__main__ import NAMES, Result, scenario, table  # noqa: E402
from scenarios.swarm import Swarm, Unexpected  # noqa: E402
from scenarios.traffic import Answer, Traffic, parse  # noqa: E402


class PlayedMachine:
    """Notes what is asked of it in a list that all machines share."""

    def __init__(self, number: int, asked: list[str], *, on: bool = True, full: bool = False) -> None:
        self.name = f"node{number}"
        self.address = f"10.77.0.{number}"
        self._asked, self._on, self._full = asked, on, full

    def is_on(self) -> bool:
        return self._on

    def pause(self) -> None:
        self._asked.append(f"pause {self.name}")

    def go_on(self) -> None:
        self._asked.append(f"go on {self.name}")

    def save(self) -> None:
        if self._full:
            raise MachineError("the disk is full")
        self._asked.append(f"save {self.name}")


class PlayedLab(Lab):
    def __init__(self, folder: Path, machines: list[PlayedMachine]) -> None:
        super().__init__(folder, Image(folder))
        self._machines = machines

    def machines(self) -> list[Any]:
        return self._machines


def played(tmp_path: Path, **third: bool) -> tuple[PlayedLab, list[str]]:
    asked: list[str] = []
    machines = [
        PlayedMachine(1, asked),
        PlayedMachine(2, asked),
        PlayedMachine(3, asked, **third),
    ]
    return PlayedLab(tmp_path, machines), asked


def test_no_machine_is_saved_while_another_runs(tmp_path: Path) -> None:
    lab, asked = played(tmp_path)
    lab.save()
    assert [line.rpartition(" ")[0] for line in asked] == ["pause"] * 3 + ["save"] * 3 + ["go on"] * 3


def test_a_save_that_fails_leaves_all_machines_running(tmp_path: Path) -> None:
    lab, asked = played(tmp_path, full=True)
    with pytest.raises(MachineError, match="full"):
        lab.save()
    assert asked[-3:] == ["go on node1", "go on node2", "go on node3"]


def test_machines_without_power_are_not_saved(tmp_path: Path) -> None:
    lab, asked = played(tmp_path, on=False)
    with pytest.raises(MachineError, match="node3 is off"):
        lab.save()
    assert asked == []


def test_an_answer_is_what_came_before_its_mark() -> None:
    assert parse("hello from web.1", [], 1.0) is None
    assert parse("@answer 0 200 0.125 ", ["hello from web.1", ""], 2.0) == Answer(
        2.0, True, 0.125, "hello from web.1"
    )


def test_failures_say_why() -> None:
    refused = parse("@answer 7 000 0.001 Failed to connect to 10.77.0.1", [], 2.0)
    assert refused is not None and not refused.ok
    assert refused.said == "Failed to connect to 10.77.0.1 (curl 7, after 0.0 s)"
    unavailable = parse("@answer 0 503 0.2 ", ["no backend"], 2.0)
    assert unavailable is not None and not unavailable.ok
    assert "status 503: no backend" in unavailable.said


def client(tmp_path: Path, *answers: Answer) -> Traffic:
    machine = Machine(1, tmp_path, Image(tmp_path), 20_000, 448)
    return Traffic(machine, "http://10.77.0.1:8080/", answers=list(answers))


def good(at_s: float) -> Answer:
    return Answer(at_s, True, 0.1, "hello")


def bad(at_s: float, took_s: float) -> Answer:
    return Answer(at_s, False, took_s, "timed out")


def test_the_bad_window_begins_with_the_request_and_ends_with_the_last_failure(tmp_path: Path) -> None:
    assert client(tmp_path, good(1), good(2)).bad_window_s() == 0
    asking = client(tmp_path, good(1), bad(6, 4), good(7), bad(9, 1), good(10))
    assert asking.bad_window_s() == 7
    assert len(asking.failures(since_s=8)) == 1
    assert "5 requests, 2 failed within 7.0 s; the first: timed out" in asking.summary()


def test_one_failed_request_is_too_many(tmp_path: Path) -> None:
    swarm = Swarm(played(tmp_path)[0])
    swarm.expect_no_failure([client(tmp_path, good(1))])
    with pytest.raises(Unexpected, match="1 failed"):
        swarm.expect_no_failure([client(tmp_path, good(1)), client(tmp_path, good(1), bad(2, 0.5))])
    with pytest.raises(Unexpected, match="0 requests"):
        swarm.expect_no_failure([client(tmp_path)])


def test_what_is_not_seen_in_time_is_told_with_what_was_seen(tmp_path: Path) -> None:
    swarm = Swarm(played(tmp_path)[0])
    with pytest.raises(Unexpected, match=r"all ready: not within 0 s, expected 3; last seen 2"):
        swarm.wait("all ready", 0, lambda: 2, 3)
    seen = iter((1, 2, 3))
    assert swarm.wait("all ready", 60, lambda: next(seen), lambda count: count == 3) > 0
    with pytest.raises(Unexpected, match=r"copies: expected \['node1'\], seen \[\]"):
        swarm.expect("copies", [], ["node1"])
    with pytest.raises(Unexpected, match=r"at most 2 s, seen 2.5 s"):
        swarm.expect_at_most("a failure", 2.5, 2)


@pytest.mark.parametrize("name", NAMES)
def test_every_scenario_says_what_it_shows_and_what_it_needs(name: str) -> None:
    module = scenario(name)
    first, *_ = inspect.getdoc(module).splitlines()  # type: ignore[union-attr]
    assert first.endswith(".")
    assert module.MACHINES in range(1, 10)
    assert isinstance(module.NEEDS_SWARM, bool)
    assert isinstance(module.QUICK, bool)
    assert callable(module.play)


def test_no_scenario_is_left_out() -> None:
    frame = {"__init__", "__main__", "suite", "swarm", "traffic"}
    assert {path.stem for path in (VAGRANT / "scenarios").glob("*.py")} - frame == set(NAMES)


def test_the_table_says_what_failed() -> None:
    assert table([Result("join", "", 61.4), Result("spread", "expected 3, seen 2", 9.9)]).splitlines()[
        2:
    ] == [
        "| join | passed | 61 |",
        "| spread | FAILED: expected 3, seen 2 | 10 |",
    ]


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ("", "passed (played again; at first: expected 3, seen 2)"),
        ("expected 3, seen 1", "FAILED: expected 3, seen 1 (played again; at first: expected 3, seen 2)"),
    ],
)
def test_what_is_played_again_tells_both(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, second: str, told: str
) -> None:
    monkeypatch.setattr(scenarios_main, "play", lambda name, stage, evidence: Result(name, second, 7.0))
    first = Result("spread", "expected 3, seen 2\nmore of it", 5.0)
    result = scenarios_main.play_again(first, cast(scenarios_main.Stage, None), tmp_path)
    assert (str(result), result.failure, result.seconds) == (told, second, 12.0)
