from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.background import BackgroundTasks
from engine.config import ContainerConfig, HealthConfig, HostConfig
from engine.container import Container, Health, HealthProbe, Status
from engine.containers import Containers
from engine.creation import checked_host_config
from engine.errors import Conflict, InvalidParameter
from engine.events import EventBus
from engine.health import (
    OUTPUT_BYTES_MAX,
    PROBES_KEPT,
    HealthMonitor,
    Timing,
    after_probe,
    probe_command,
    shown_duration,
    shown_output,
)
from engine.runtime.limit_support import LimitSupport
from engine.state import StateStore
from tests.records import container_record, running

MS = 1_000_000
SECOND = 1000 * MS


def probe(code: int, number: int = 0) -> HealthProbe:
    return HealthProbe(start=number, end=number, exit_code=code, output="")


def after(codes: list[int], *, in_start_period: int = 0, retries: int = 3) -> Health:
    """The health after these exit codes, of which the first ones fall in the start period."""
    health = Health()
    for number, code in enumerate(codes):
        health = after_probe(
            health, probe(code, number), in_start_period=number < in_start_period, retries=retries
        )
    return health


@pytest.mark.parametrize(
    ("codes", "in_start_period", "status", "streak"),
    [
        ([], 0, "starting", 0),
        ([1, 1], 0, "starting", 2),
        ([1, 1, 1], 0, "unhealthy", 3),
        ([1, 1, -1, 1], 0, "unhealthy", 4),
        ([1, 1, 0], 0, "healthy", 0),
        ([1, 1, 1, 0], 0, "healthy", 0),
        ([0, 1, 1], 0, "healthy", 2),
        ([0, 1, 1, 1], 0, "unhealthy", 3),
        ([1, 1, 1, 1], 4, "starting", 0),
        ([1, 1, 1, 1, 1], 3, "starting", 2),
        ([1, 1, 1, 1, 1, 1], 3, "unhealthy", 3),
        ([0, 1, 1, 1], 9, "unhealthy", 3),  # the first success ended the start period
    ],
)
def test_what_results_mean(codes: list[int], in_start_period: int, status: str, streak: int) -> None:
    health = after(codes, in_start_period=in_start_period)
    assert (health.status, health.failing_streak) == (status, streak)


def test_the_last_results_are_kept() -> None:
    kept = after([0] * 9).log
    assert [result.start for result in kept] == [4, 5, 6, 7, 8]
    assert len(kept) == PROBES_KEPT


def test_output_is_bounded_and_says_so() -> None:
    assert shown_output(b"x" * OUTPUT_BYTES_MAX) == "x" * OUTPUT_BYTES_MAX
    assert shown_output(b"x" * (OUTPUT_BYTES_MAX + 1)) == "x" * OUTPUT_BYTES_MAX + "..."
    assert shown_output(b"\xff") == "�"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "500ms"), (1.5, "1.5s"), (30, "30s"), (60, "1m0s"), (90, "1m30s"), (3600, "1h0m0s")],
)
def test_durations_are_written_as_docker_does(seconds: float, text: str) -> None:
    assert shown_duration(seconds) == text


def test_times_that_are_not_given() -> None:
    assert Timing.of(HealthConfig(test=["CMD", "x"])) == Timing(
        interval_s=30.0, timeout_s=30.0, start_period_s=0.0, start_interval_s=5.0, retries=3
    )


@pytest.mark.parametrize(
    ("test", "command"),
    [
        (None, None),
        ([], None),
        (["NONE"], None),
        (["CMD", "check", "-q"], ["check", "-q"]),
        (["CMD-SHELL", "check -q"], ["/bin/sh", "-c", "check -q"]),
    ],
)
def test_what_is_run(test: list[str] | None, command: list[str] | None) -> None:
    assert probe_command(ContainerConfig(healthcheck=HealthConfig(test=test))) == command


def test_the_containers_own_shell_runs_it() -> None:
    config = ContainerConfig(healthcheck=HealthConfig(test=["CMD-SHELL", "x"]), shell=["/bin/ash", "-ec"])
    assert probe_command(config) == ["/bin/ash", "-ec", "x"]


@pytest.mark.parametrize(
    "config",
    [
        HealthConfig(test=["check"]),
        HealthConfig(interval=-1),
        HealthConfig(timeout=MS - 1),
        HealthConfig(start_period=5),
        HealthConfig(start_interval=5),
        HealthConfig(retries=-1),
    ],
)
def test_checks_that_cannot_be(config: HealthConfig) -> None:
    with pytest.raises(InvalidParameter):
        checked_host_config(HostConfig(), ContainerConfig(healthcheck=config), LimitSupport())


class Script:
    """A prober whose results are given. A status is what happens to the container during the probe."""

    def __init__(self, *results: object) -> None:
        self.results = list(results)

    async def probe(self, container: Container, command: list[str], timeout_s: float) -> tuple[int, str]:
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        if isinstance(result, Status):
            container.state.status = result
        return (result if isinstance(result, int) else 1), "said"


class Pauses:
    """Stands for sleeping: writes down how long, passes `count` times at once, then not again."""

    def __init__(self, count: int) -> None:
        self.asked_s: list[float] = []
        self.passed = asyncio.Event()
        self._count = count

    async def __call__(self, seconds: float) -> None:
        if len(self.asked_s) == self._count:
            self.passed.set()
            await asyncio.Event().wait()
        self.asked_s.append(seconds)
        await asyncio.sleep(0)


class Setup:
    def __init__(self, folder: Path) -> None:
        self.store = StateStore(folder / "engine.db")
        self.containers = Containers(self.store)
        self.events = EventBus()
        self.background = BackgroundTasks()

    def container(self, started_s_ago: float = 0.0, **check: int) -> Container:
        wish = HealthConfig(test=["CMD", "x"], interval=20 * SECOND, **check)
        state = running()
        state.started_at = time.time() - started_s_ago
        made = container_record(config=ContainerConfig(healthcheck=wish), state=state)
        self.store.add(made)
        return made

    async def watch(self, container: Container, *results: object, pauses: int = 0) -> list[float]:
        """Probe until the results are used up; returns how long it waited before each."""
        sleep = Pauses(pauses or len(results))
        script = Script(*results)
        monitor = HealthMonitor(script, self.containers, self.events, self.background, sleep)
        monitor.started(container)
        await asyncio.wait_for(sleep.passed.wait(), 10)
        await self.background.close()
        return sleep.asked_s

    def told(self) -> list[str]:
        return [event.action for event in self.events._history]


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[Setup]:
    made = Setup(tmp_path)
    yield made
    await made.background.close()
    made.store.close()


async def test_changes_are_told_once_and_recorded(setup: Setup, tmp_path: Path) -> None:
    container = setup.container(retries=2)
    assert await setup.watch(container, 1, 1, 1, 0, 0) == [20.0] * 5
    assert setup.told() == ["health_status: unhealthy", "health_status: healthy"]
    setup.store.close()
    again = StateStore(tmp_path / "engine.db")
    health = again.containers[container.id].state.health
    again.close()
    assert health is not None
    assert [result.exit_code for result in health.log] == [1, 1, 1, 0, 0]
    assert health.log[0].output == "said"


async def test_what_has_ended_is_not_healthy(setup: Setup) -> None:
    container = setup.container()
    await setup.watch(container, 0)
    HealthMonitor(Script(), setup.containers, setup.events, setup.background).stopped(container)
    health = container.state.health
    assert health is not None
    assert (health.status, [result.exit_code for result in health.log]) == ("unhealthy", [0])
    assert setup.told() == ["health_status: healthy"]


async def test_a_probe_that_cannot_run_has_failed(setup: Setup) -> None:
    container = setup.container(retries=1)
    await setup.watch(container, Conflict("no such command"))
    health = container.state.health
    assert health is not None
    assert (health.status, health.log[0].output) == ("unhealthy", "no such command")


async def test_the_result_of_a_probe_that_a_pause_cut_short_says_nothing(setup: Setup) -> None:
    container = setup.container(retries=1)
    await setup.watch(container, 0, Status.PAUSED)
    health = container.state.health
    assert health is not None
    assert (health.status, len(health.log)) == ("healthy", 1)


async def test_a_paused_container_is_not_probed(setup: Setup) -> None:
    container = setup.container(retries=1)
    container.state.status = Status.PAUSED
    await setup.watch(container, pauses=5)
    assert container.state.health == Health()


async def test_the_start_period_counts_from_the_start_of_the_container(setup: Setup) -> None:
    container = setup.container(started_s_ago=60.0, start_period=30 * SECOND, retries=1)
    assert await setup.watch(container, 1) == [20.0]
    assert setup.told() == ["health_status: unhealthy"]


async def test_in_the_start_period_the_start_interval_holds_until_the_first_success(setup: Setup) -> None:
    container = setup.container(start_period=3600 * SECOND, start_interval=2 * SECOND, retries=1)
    assert await setup.watch(container, 1, 1, 0, 0, 1) == [2.0, 2.0, 2.0, 20.0, 20.0]
    assert setup.told() == ["health_status: healthy", "health_status: unhealthy"]


async def test_a_new_run_starts_anew_and_remembers_the_last_results(setup: Setup) -> None:
    container = setup.container()
    container.state.health = Health(status="unhealthy", failing_streak=4, log=[probe(1)])
    await setup.watch(container, pauses=0)
    assert container.state.health == Health(status="starting", failing_streak=0, log=[probe(1)])


async def test_without_a_check_there_is_no_health(setup: Setup) -> None:
    container = container_record(state=running())
    HealthMonitor(Script(), setup.containers, setup.events, setup.background).started(container)
    assert container.state.health is None
