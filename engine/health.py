"""Health checks: a command run in the container from time to time, and what its results mean.

Defaults as Docker's: interval 30 s, timeout 30 s, 3 retries, no start period, start interval 5 s. Failures
in the start period do not count; the first success ends it. A paused container is not probed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from engine.background import BackgroundTasks
from engine.config import ContainerConfig, ExecConfig, HealthConfig
from engine.container import Container, Health, HealthProbe, Status
from engine.containers import Containers
from engine.errors import EngineError, InvalidParameter
from engine.events import EventBus
from engine.execs import Execs

PROBES_KEPT = 5
OUTPUT_BYTES_MAX = 4096
DURATION_MIN_NS = 1_000_000
_SECOND_NS = 1_000_000_000


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds, with defaults filled in."""

    interval_s: float
    timeout_s: float
    start_period_s: float
    start_interval_s: float
    retries: int

    @classmethod
    def of(cls, config: HealthConfig) -> Timing:
        return cls(
            interval_s=(config.interval or 30 * _SECOND_NS) / _SECOND_NS,
            timeout_s=(config.timeout or 30 * _SECOND_NS) / _SECOND_NS,
            start_period_s=config.start_period / _SECOND_NS,
            start_interval_s=(config.start_interval or 5 * _SECOND_NS) / _SECOND_NS,
            retries=config.retries or 3,
        )


def checked_health(config: HealthConfig | None) -> None:
    """InvalidParameter for a kind of test that does not exist, a negative number or a time below 1 ms."""
    if config is None:
        return
    if config.test and config.test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        raise InvalidParameter(f'Unknown Type "{config.test[0]}" in Healthcheck (try "CMD" or "CMD-SHELL")')
    for name, value in (
        ("Interval", config.interval),
        ("Timeout", config.timeout),
        ("StartPeriod", config.start_period),
        ("StartInterval", config.start_interval),
    ):
        if value and value < DURATION_MIN_NS:
            raise InvalidParameter(f"{name} in Healthcheck cannot be less than 1ms")
    if config.retries < 0:
        raise InvalidParameter("Retries in Healthcheck cannot be negative")


def probe_command(config: ContainerConfig) -> list[str] | None:
    """The command to run, or None when the container has no health check."""
    test = (config.healthcheck.test if config.healthcheck else None) or ["NONE"]
    if test[0] == "CMD":
        return test[1:]
    if test[0] == "CMD-SHELL":
        return [*(config.shell or ("/bin/sh", "-c")), *test[1:]]
    return None


def after_probe(health: Health, probe: HealthProbe, *, in_start_period: bool, retries: int) -> Health:
    """The health after one more result. Pure."""
    log = [*health.log, probe][-PROBES_KEPT:]
    if probe.exit_code == 0:
        return Health(status="healthy", failing_streak=0, log=log)
    if in_start_period and health.status == "starting":
        return Health(status="starting", failing_streak=health.failing_streak, log=log)
    streak = health.failing_streak + 1
    status = "unhealthy" if streak >= retries else health.status
    return Health(status=status, failing_streak=streak, log=log)


class Prober(Protocol):
    """Runs one probe: (exit code, output). Exit code -1: it did not end within the time."""

    async def probe(self, container: Container, command: list[str], timeout_s: float) -> tuple[int, str]: ...


class ExecProber:
    """Probes by exec in the container; one that takes too long is killed."""

    def __init__(self, execs: Execs) -> None:
        self._execs = execs

    async def probe(self, container: Container, command: list[str], timeout_s: float) -> tuple[int, str]:
        exec_id = self._execs.create(
            container.id, ExecConfig(cmd=command, attach_stdout=True, attach_stderr=True)
        )
        try:
            return await self._run(exec_id, timeout_s)
        finally:
            self._execs.discard(exec_id)

    async def _run(self, exec_id: str, timeout_s: float) -> tuple[int, str]:
        session = await self._execs.start(exec_id, detach=False, tty=False, console_size=None)
        assert session is not None, "an attached exec has a session"
        output = bytearray()
        try:
            async with asyncio.timeout(timeout_s):
                while (item := await session.read()) is not None:
                    output += item[1][: OUTPUT_BYTES_MAX + 1 - len(output)]
                code = await self._execs.wait(exec_id)
        except TimeoutError:
            await self._execs.kill(exec_id)
            said = f": {shown_output(output)}" if output else ""
            return -1, f"Health check exceeded timeout ({shown_duration(timeout_s)}){said}"
        finally:
            await session.close()
        return code, shown_output(output)


def shown_output(output: bytes | bytearray) -> str:
    """At most OUTPUT_BYTES_MAX bytes of a probe's output, with dots where more was written."""
    text = output[:OUTPUT_BYTES_MAX].decode(errors="replace")
    return f"{text}..." if len(output) > OUTPUT_BYTES_MAX else text


def shown_duration(seconds: float) -> str:
    """As Docker (Go) writes it: 500ms, 1.5s, 1m30s, 1h0m0s."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    whole_minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(whole_minutes), 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{rest:g}s"


class HealthMonitor:
    """One probing task per running container that has a health check."""

    def __init__(
        self,
        prober: Prober,
        containers: Containers,
        events: EventBus,
        background: BackgroundTasks,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._sleep = sleep
        self._prober = prober
        self._containers = containers
        self._events = events
        self._background = background
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def started(self, container: Container) -> None:
        """Also after a restart of the daemon: the start period goes on from the start of the container."""
        command = probe_command(container.config)
        if command is None:
            return
        assert container.config.healthcheck is not None, "a probe command comes from a health check"
        known = container.state.health
        container.state.health = Health(log=known.log if known else [])
        self._containers.save(container)
        timing = Timing.of(container.config.healthcheck)
        self._tasks[container.id] = self._background.start(
            self._watch(container, command, timing), f"health of {container.name}"
        )

    def stopped(self, container: Container) -> None:
        """What does not run is not healthy, as with Docker. The caller saves the record."""
        task = self._tasks.pop(container.id, None)
        if task is not None:
            task.cancel()
        if container.state.health is not None:
            container.state.health.status = "unhealthy"

    async def _watch(self, container: Container, command: list[str], timing: Timing) -> None:
        ran_s = max(0.0, time.time() - container.state.started_at)
        start_period_ends = time.monotonic() + timing.start_period_s - ran_s
        while container.is_running:
            is_starting = container.state.health is None or container.state.health.status == "starting"
            hurries = is_starting and time.monotonic() < start_period_ends
            await self._sleep(timing.start_interval_s if hurries else timing.interval_s)
            if container.state.status is Status.RUNNING:
                in_start_period = time.monotonic() < start_period_ends
                await self._probe_once(container, command, timing, in_start_period=in_start_period)

    async def _probe_once(
        self, container: Container, command: list[str], timing: Timing, *, in_start_period: bool
    ) -> None:
        start = time.time()
        try:
            code, output = await self._prober.probe(container, command, timing.timeout_s)
        except EngineError as error:
            code, output = -1, str(error)
        if container.state.status is not Status.RUNNING:
            return  # paused meanwhile: the result says nothing
        probe = HealthProbe(start=start, end=time.time(), exit_code=code, output=output)
        before = container.state.health or Health()
        after = after_probe(before, probe, in_start_period=in_start_period, retries=timing.retries)
        container.state.health = after
        self._containers.save(container)
        if after.status != before.status:
            attributes = container.event_attributes()
            self._events.publish("container", f"health_status: {after.status}", container.id, attributes)
