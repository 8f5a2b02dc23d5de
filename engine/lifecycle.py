"""The life of a container once it exists: start, stop, exit, restart, remove, and everybody who waits for it.

Invariants: what a caller asks for is recorded before it is acknowledged; what has happened by itself (a start, an
exit) is true also when the disk refuses the record, which is then written as soon as it can be, and until then the
supervisor remembers; exits are handled under the container's lock, so a start that is still being recorded comes
first; a released network is released exactly once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from engine.attach import AttachSession, FramedSession, PendingSession
from engine.background import BackgroundTasks
from engine.completion import carried
from engine.container import Container, Status
from engine.containers import Containers
from engine.errors import (
    Conflict,
    EngineError,
    EngineFailure,
    InvalidParameter,
    NotFound,
    NotModified,
    StartFailed,
)
from engine.events import EventBus
from engine.restart import restart_decision
from engine.runtime.client import ContainerStart, ExitEvent, RuntimeClient, SpawnError
from engine.signals import parse_signal

logger = logging.getLogger(__name__)

STOP_TIMEOUT_DEFAULT_S = 10
KILLED_WITHIN_S = 5.0
RECORD_RETRY_S = 1.0
KILL_WAIT_S = 30.0


class ContainerExit(msgspec.Struct, frozen=True):
    exit_code: int
    error: str = ""


class Preparation(Protocol):
    """Everything around the process: files, network, root file system. `prepare` is undone by `release`."""

    async def prepare(self, container: Container) -> ContainerStart: ...

    async def release(self, container: Container) -> None: ...

    async def destroy(self, container: Container, *, volumes: bool) -> None: ...


class Lifecycle:
    """Owns the state machine of all containers of this host."""

    def __init__(
        self,
        containers: Containers,
        runtime: RuntimeClient,
        preparation: Preparation,
        events: EventBus,
        background: BackgroundTasks,
    ) -> None:
        self._containers = containers
        self._runtime = runtime
        self._preparation = preparation
        self._events = events
        self._background = background
        self._waiters: dict[str, list[tuple[str, asyncio.Future[ContainerExit]]]] = {}
        self._pending: dict[str, list[PendingSession]] = {}
        self._unrecorded: set[str] = set()
        self._restarting: set[str] = set()
        self._is_shutting_down = False
        self.health_watch: HealthWatch | None = None
        self.on_started: Callable[[Container], None] = lambda _container: None

    # ---- verbs --------------------------------------------------------------------------------------------

    async def start(self, container: Container) -> None:
        """NotModified when it runs. StartFailed carries the exit code for a command that cannot run."""
        async with self._containers.lock(container):
            if container.state.status is Status.PAUSED:
                raise Conflict("cannot start a paused container, try unpause instead")
            if container.is_running:
                raise NotModified(f"container {container.name} is already started")
            if container.state.status in (Status.REMOVING, Status.DEAD):
                raise Conflict(f"container {container.name} is marked for removal and cannot be started")
            container.state.stopped_by_user = False
            container.state.restart_count = container.state.quick_exits = 0
            await carried(self._start_locked(container))

    async def stop(self, container: Container, timeout_s: int | None = None, signal: str = "") -> None:
        """Stop signal, grace, then SIGKILL. NotModified when it does not run."""
        if not container.is_running:
            if container.state.status is Status.RESTARTING:
                container.state.stopped_by_user = True
                container.state.status = Status.EXITED
                self._record(container)
                self._finish_waiters(container)
                return
            raise NotModified(f"container {container.name} is already stopped")
        number = parse_signal(signal or container.config.stop_signal or "SIGTERM")
        grace_s = _grace_s(container) if timeout_s is None else timeout_s
        container.state.stopped_by_user = True
        await self._stop_process(container, number, None if grace_s < 0 else grace_s)
        self._publish(container, "stop")

    async def shut_down(self, within_s: float) -> None:
        """The machine stops: end all containers, each with its grace but at most `within_s`, and start none again.

        Nobody asked for their end: what has to run again after the next boot is recorded as restarting.
        """
        self._is_shutting_down = True
        running = [container for container in self._containers.all() if container.is_running]
        ends = [self._shut_down_one(container, within_s) for container in running]
        try:
            async with asyncio.timeout(within_s + KILLED_WITHIN_S):
                results = await asyncio.gather(*ends, return_exceptions=True)
        except TimeoutError:
            logger.error("some containers have not ended %.0f s after the machine began to stop", within_s)
            return
        for container, result in zip(running, results, strict=True):
            if isinstance(result, BaseException):
                logger.error("container %s was not stopped in order: %s", container.name, result)

    async def _shut_down_one(self, container: Container, within_s: float) -> None:
        grace_s = _grace_s(container)
        gone = self.wait(container, "removed" if container.host_config.auto_remove else "next-exit")
        number = parse_signal(container.config.stop_signal or "SIGTERM")
        await self._stop_process(container, number, within_s if grace_s < 0 else min(grace_s, within_s))
        await gone
        async with self._containers.lock(container):
            logger.info("container %s was stopped with the machine", container.name)

    async def kill(self, container: Container, signal: str = "") -> None:
        if not container.is_running:
            raise Conflict(
                f"cannot kill container: {container.name}: container {container.id} is not running"
            )
        number = parse_signal(signal or "SIGKILL")
        if number in (9, parse_signal(container.config.stop_signal or "SIGTERM")):
            container.state.stopped_by_user = True
        if number == 9:
            exited = self.wait(container, "next-exit")
            await self._thaw(container)
            await self._kill_and_wait(container, exited)
        else:
            await self._signal(container, number)

    async def restart(self, container: Container, timeout_s: int | None, signal: str = "") -> None:
        """A container that is removed when it exits stays: this is not its end."""
        self._restarting.add(container.id)
        try:
            if container.is_running:
                await self.stop(container, timeout_s, signal)
            await self.start(container)
        finally:
            self._restarting.discard(container.id)
        self._publish(container, "restart")

    async def pause(self, container: Container) -> None:
        async with self._containers.lock(container):
            if container.state.status is Status.PAUSED:
                raise Conflict(f"Container {container.id} is already paused")
            if not container.is_running:
                raise Conflict(f"Container {container.id} is not running")
            await self._runtime.pause(container.id)
            container.state.status = Status.PAUSED
            self._record(container)
        self._publish(container, "pause")

    async def unpause(self, container: Container) -> None:
        async with self._containers.lock(container):
            if container.state.status is not Status.PAUSED:
                raise Conflict(f"Container {container.id} is not paused")
            await self._runtime.resume(container.id)
            container.state.status = Status.RUNNING
            self._record(container)
        self._publish(container, "unpause")

    async def remove(self, container: Container, *, force: bool, volumes: bool) -> None:
        """Conflict while it runs, unless forced. Everything it had on this host goes with it."""
        if container.state.status.is_up and not force:
            raise Conflict(
                f'cannot remove container "/{container.name}": container is {container.state.status}: '
                "stop the container before removing or force remove"
            )
        if container.is_running:
            await self.kill(container)
        async with self._containers.lock(container):
            if container.id not in self._containers.state.containers:
                return
            state = container.state
            state.removes_volumes = volumes or (state.removes_volumes and state.status is Status.REMOVING)
            state.status = Status.REMOVING
            state.stopped_by_user = True
            self._record(container)
            try:
                await self._preparation.release(container)
                await self._preparation.destroy(container, volumes=state.removes_volumes)
            except (OSError, EngineError) as error:
                state.status = Status.DEAD
                state.error = str(error)
                self._record(container)
                raise EngineFailure(f"cannot remove container {container.name}: {error}") from error
            self._containers.forget(container)
        for session in self._pending.pop(container.id, []):
            session.abandon()
        self._publish(container, "destroy")
        self._wake(container, ("next-exit", "not-running", "removed"))

    def wait(self, container: Container, condition: str) -> asyncio.Future[ContainerExit]:
        """A future of the exit. Conditions: not-running (may be done at once), next-exit, removed."""
        if condition not in ("", "not-running", "next-exit", "removed"):
            raise InvalidParameter(f'invalid condition: "{condition}"')
        future: asyncio.Future[ContainerExit] = asyncio.get_running_loop().create_future()
        running = container.is_running or container.state.status is Status.RESTARTING
        if condition in ("", "not-running") and not running:
            future.set_result(ContainerExit(container.state.exit_code, container.state.error))
        else:
            self._waiters.setdefault(container.id, []).append((condition or "not-running", future))
        return future

    async def attach(self, container: Container, *, stdin: bool, streams: frozenset[int]) -> AttachSession:
        """Now when it runs, else as soon as it starts."""
        tty = container.config.tty
        if container.state.status is Status.PAUSED:
            raise Conflict(f"container {container.name} is paused, unpause the container before attach")
        if container.is_running:
            return await self._open_session(container, stdin=stdin, streams=streams)
        session = PendingSession(tty=tty, stdin=stdin, streams=streams)
        sessions = self._pending.setdefault(container.id, [])
        sessions[:] = [known for known in sessions if known.is_waiting]
        sessions.append(session)
        return session

    # ---- exits --------------------------------------------------------------------------------------------

    def exited(self, event: ExitEvent) -> None:
        """Called by the runtime for the first process of a container; handled in the background."""
        container = self._containers.state.containers.get(event.id)
        if container is None:
            self._background.start(self._runtime.forget(event.id), f"forget {event.id[:12]}")
            return
        self._background.start(self._handle_exit(container, event), f"exit of {container.name}")

    async def _handle_exit(self, container: Container, event: ExitEvent) -> None:
        async with self._containers.lock(container):
            state = container.state
            if not state.status.has_process or state.pid != event.pid:
                await self._runtime.forget(event.id)
                return
            ran_s = event.finished_at - state.started_at
            state.exit_code, state.oom_killed = event.exit_code, event.oom_killed
            state.finished_at, state.pid, state.start_ticks = event.finished_at, 0, 0
            decision = restart_decision(container, ran_s)
            state.status = Status.RESTARTING if decision.restart else Status.EXITED
            state.quick_exits = decision.quick_exits
            if self.health_watch is not None:
                self.health_watch.stopped(container)
            recorded = self._record(container)
            if state.oom_killed:
                self._publish(container, "oom")
            duration_s = max(int(ran_s), 0)
            self._publish(container, "die", execDuration=str(duration_s), exitCode=str(state.exit_code))
            self._finish_waiters(container, restarting=decision.restart)
            await self._preparation.release(container)
            if recorded:
                await self._runtime.forget(event.id)
        if decision.restart:
            if not self._is_shutting_down:
                self._background.start(
                    self._restart_later(container, decision.delay_s), f"restart of {container.name}"
                )
        elif container.host_config.auto_remove and container.id not in self._restarting:
            await self.remove(container, force=True, volumes=True)

    async def _restart_later(self, container: Container, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        async with self._containers.lock(container):
            if container.state.status is not Status.RESTARTING or container.state.stopped_by_user:
                return
            if self._is_shutting_down:
                return
            container.state.restart_count += 1
            try:
                await carried(self._start_locked(container))
            except EngineError as error:
                logger.warning("container %s does not restart: %s", container.name, error)

    async def recover(self, container: Container, live: ExitEvent | None, *, running: bool) -> None:
        """After a restart of the daemon: `running` in the supervisor, else `live` tells how it ended.

        Containers that are to start again do so in the background; everything else is done on return.
        """
        state = container.state
        if state.status.has_process and running:
            if self.health_watch is not None:
                self.health_watch.started(container)
            return
        if state.status.has_process:
            event = live or ExitEvent(
                id=container.id,
                exec_id=None,
                pid=state.pid,
                exit_code=255,
                oom_killed=False,
                finished_at=time.time(),
            )
            if live is None:
                state.error = "the container was lost: its supervisor ended"
            await self._handle_exit(container, event)
        elif state.status is Status.REMOVING:
            await self.remove(container, force=True, volumes=False)
        elif state.status is Status.RESTARTING or _starts_at_boot(container):
            state.status, state.stopped_by_user = Status.RESTARTING, False
            self._background.start(self._restart_later(container, 0.0), f"restart of {container.name}")
        else:
            await self._preparation.release(container)

    # ---- inside -------------------------------------------------------------------------------------------

    async def _start_locked(self, container: Container) -> None:
        """Never cancelled: a process that the supervisor may have made by then would belong to nobody."""
        state = container.state
        if container.id in self._unrecorded:
            await self._runtime.forget(container.id)
        try:
            request = await self._preparation.prepare(container)
            waiting = [session for session in self._pending.get(container.id, ()) if session.is_waiting]
            request.attachments = len(waiting)
            started = await self._runtime.start(request)
        except (SpawnError, EngineError, OSError) as error:
            await self._preparation.release(container)
            await self._start_failed(container, error)
        state.status = Status.RUNNING
        state.pid, state.start_ticks, state.started_at = started.pid, started.start_ticks, started.started_at
        state.exit_code, state.error, state.oom_killed = 0, "", False
        self._record(container)
        for pending in waiting:
            session = await self._open_session(container, stdin=pending.stdin, streams=pending.streams)
            if pending.is_waiting:
                pending.begin(session)
            else:
                await session.close()
        self._pending.pop(container.id, None)
        if self.health_watch is not None:
            self.health_watch.started(container)
        self.on_started(container)
        self._publish(container, "start")

    async def _start_failed(self, container: Container, error: Exception) -> None:
        state = container.state
        code = error.exit_code if isinstance(error, SpawnError) else 128
        state.status = Status.EXITED if state.started_at else Status.CREATED
        state.exit_code, state.error = code, str(error)
        state.finished_at = time.time()
        self._record(container)
        for session in self._pending.pop(container.id, []):
            session.abandon()
        self._wake(container, ("next-exit", "not-running"))
        if container.host_config.auto_remove:
            self._background.start(
                self.remove(container, force=True, volumes=True), f"removal of {container.name}"
            )
        if isinstance(error, SpawnError):
            raise StartFailed(
                f"failed to create task for container: failed to create shim task: OCI runtime create failed: {error}",
                code,
            ) from error
        if isinstance(error, OSError):
            raise EngineFailure(f"cannot start container {container.name}: {error}") from error
        raise error

    def _record(self, container: Container) -> bool:
        """Write down what has happened: at once, or (False) as soon as the disk takes it."""
        try:
            self._containers.save(container)
        except EngineFailure as error:
            logger.error("%s; trying again until it can be written", error)
            if container.id not in self._unrecorded:
                self._unrecorded.add(container.id)
                self._background.start(self._record_later(container), f"record of {container.name}")
            return False
        return True

    async def _record_later(self, container: Container) -> None:
        while container.id in self._unrecorded:
            await asyncio.sleep(RECORD_RETRY_S)
            async with self._containers.lock(container):
                try:
                    if container.id in self._containers.state.containers:
                        self._containers.save(container)
                except EngineFailure:
                    continue
                self._unrecorded.discard(container.id)
                if not container.is_running:
                    await self._runtime.forget(container.id)

    async def _open_session(
        self, container: Container, *, stdin: bool, streams: frozenset[int]
    ) -> AttachSession:
        attachment = await self._runtime.attach(container.id, stdin=stdin)
        return FramedSession(
            tty=container.config.tty,
            stdin_fd=attachment.stdin_fd,
            output_fd=attachment.output_fd,
            streams=streams,
            since_ns=attachment.since_ns,
        )

    async def _stop_process(self, container: Container, number: int, grace_s: float | None) -> None:
        """Signal `number`, then SIGKILL after `grace_s`; None waits for ever."""
        exited = self.wait(container, "next-exit")
        await self._thaw(container)
        await self._signal(container, number)
        try:
            async with asyncio.timeout(grace_s):
                await asyncio.shield(exited)
        except TimeoutError:
            await self._kill_and_wait(container, exited)

    async def _signal(self, container: Container, number: int) -> None:
        try:
            await self._runtime.kill(container.id, number)
        except (ProcessLookupError, NotFound):
            logger.debug("container %s ended before signal %d", container.name, number)
        else:
            self._publish(container, "kill", signal=str(number))

    async def _kill_and_wait(self, container: Container, exited: asyncio.Future[ContainerExit]) -> None:
        await self._signal(container, 9)
        try:
            async with asyncio.timeout(KILL_WAIT_S):
                await asyncio.shield(exited)
        except TimeoutError as error:
            raise EngineFailure(
                f"container {container.name} did not end within {KILL_WAIT_S:.0f} s of SIGKILL: a process of it "
                "hangs in the kernel (see its state in /proc)"
            ) from error

    async def _thaw(self, container: Container) -> None:
        if container.state.status is Status.PAUSED:
            await self.unpause(container)

    def _finish_waiters(self, container: Container, *, restarting: bool = False) -> None:
        self._wake(container, ("next-exit",) if restarting else ("next-exit", "not-running"))

    def _wake(self, container: Container, conditions: tuple[str, ...]) -> None:
        """Why a start failed is not said again: whoever started it was told, and clients print both."""
        result = ContainerExit(container.state.exit_code, "")
        remaining = []
        for condition, future in self._waiters.pop(container.id, []):
            if condition not in conditions:
                remaining.append((condition, future))
            elif not future.done():
                future.set_result(result)
        if remaining:
            self._waiters[container.id] = remaining

    def _publish(self, container: Container, action: str, **extra: str) -> None:
        self._events.publish("container", action, container.id, {**container.event_attributes(), **extra})


class HealthWatch(Protocol):
    """Told of starts and ends, so that probes run only while the container does."""

    def started(self, container: Container) -> None: ...

    def stopped(self, container: Container) -> None: ...


def _grace_s(container: Container) -> int:
    """Between the stop signal and SIGKILL; negative for ever."""
    timeout_s = container.config.stop_timeout
    return STOP_TIMEOUT_DEFAULT_S if timeout_s is None else timeout_s


def _starts_at_boot(container: Container) -> bool:
    policy = container.host_config.restart_policy
    if policy is None or container.state.status is Status.CREATED:
        return False
    if policy.name == "always":
        return True
    return policy.name == "unless-stopped" and not container.state.stopped_by_user
