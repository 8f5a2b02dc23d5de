"""Health checks: a command run in the container from time to time, and what its results mean.

Defaults as Docker's: interval 30 s, timeout 30 s, 3 retries, no start period, start interval 5 s. Failures
in the start period do not count; the first success ends it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Protocol

import msgspec

from engine.background import BackgroundTasks
from engine.config import ExecConfig, HealthConfig
from engine.container import Container, Health, HealthProbe
from engine.containers import Containers
from engine.errors import EngineError
from engine.events import EventBus
from engine.execs import Execs

logger = logging.getLogger(__name__)

PROBES_KEPT = 5
OUTPUT_BYTES_MAX = 4096
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


def probe_command(config: HealthConfig | None, shell: Sequence[str] = ("/bin/sh", "-c")) -> list[str] | None:
    """The command to run, or None when the container has no health check."""
    test = list(config.test or ()) if config else []
    if not test or test[0] == "NONE":
        return None
    if test[0] == "CMD":
        return test[1:]
    if test[0] == "CMD-SHELL":
        return [*shell, *test[1:]]
    return test


def after_probe(health: Health, probe: HealthProbe, *, starting: bool, retries: int) -> Health:
    """The health after one more result. Pure."""
    log = [*health.log, probe][-PROBES_KEPT:]
    if probe.exit_code == 0:
        return Health(status="healthy", failing_streak=0, log=log)
    if starting:
        return Health(status=health.status, failing_streak=health.failing_streak, log=log)
    streak = health.failing_streak + 1
    status = "unhealthy" if streak >= retries else health.status
    return Health(status=status, failing_streak=streak, log=log)


class Prober(Protocol):
    """Runs one probe: (exit code, output). Exit code -1: it did not end within the time."""

    async def probe(self, container: Container, command: list[str], timeout_s: float) -> tuple[int, str]: ...


class ExecProber:
    """Probes by exec in the container."""

    def __init__(self, execs: Execs) -> None:
        self._execs = execs

    async def probe(self, container: Container, command: list[str], timeout_s: float) -> tuple[int, str]:
        exec_id = self._execs.create(
            container.id, ExecConfig(cmd=command, attach_stdout=True, attach_stderr=True)
        )
        session = await self._execs.start(exec_id, detach=False, tty=False, console_size=None)
        assert session is not None, "an attached exec has a session"
        output = bytearray()
        try:
            async with asyncio.timeout(timeout_s):
                while (item := await session.read()) is not None:
                    output += item[1][: OUTPUT_BYTES_MAX - len(output)]
                code = await self._execs.wait(exec_id)
        except TimeoutError:
            return -1, f"Health check exceeded timeout ({timeout_s:g}s)"
        finally:
            await session.close()
        return code, output.decode(errors="replace")


class HealthMonitor:
    """One probing task per running container that has a health check."""

    def __init__(
        self, prober: Prober, containers: Containers, events: EventBus, background: BackgroundTasks
    ) -> None:
        self._prober = prober
        self._containers = containers
        self._events = events
        self._background = background
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def started(self, container: Container) -> None:
        command = probe_command(container.config.healthcheck)
        if command is None:
            return
        assert container.config.healthcheck is not None, "a probe command comes from a health check"
        container.state.health = Health()
        self._containers.save(container)
        timing = Timing.of(container.config.healthcheck)
        self._tasks[container.id] = self._background.start(
            self._watch(container, command, timing), f"health of {container.name}"
        )

    def stopped(self, container: Container) -> None:
        task = self._tasks.pop(container.id, None)
        if task is not None:
            task.cancel()

    async def _watch(self, container: Container, command: list[str], timing: Timing) -> None:
        begun = time.monotonic()
        while container.is_running:
            starting = time.monotonic() - begun < timing.start_period_s
            healthy = container.state.health is not None and container.state.health.status == "healthy"
            pause_s = timing.start_interval_s if starting and not healthy else timing.interval_s
            await asyncio.sleep(pause_s)
            if not container.is_running:
                return
            await self._probe_once(container, command, timing, starting=starting)

    async def _probe_once(
        self, container: Container, command: list[str], timing: Timing, *, starting: bool
    ) -> None:
        start = time.time()
        try:
            code, output = await self._prober.probe(container, command, timing.timeout_s)
        except EngineError as error:
            code, output = -1, str(error)
        probe = HealthProbe(start=start, end=time.time(), exit_code=code, output=output)
        before = container.state.health or Health()
        container.state.health = after_probe(before, probe, starting=starting, retries=timing.retries)
        self._containers.save(container)
        if container.state.health.status != before.status:
            status = container.state.health.status
            self._events.publish(
                "container", f"health_status: {status}", container.id, container.event_attributes()
            )
