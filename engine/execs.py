"""Further processes in running containers (`docker exec`): made, started once, inspected.

Execs live in memory: they end with the daemon's session, as Docker's do. One that does not run can be
inspected until EXECS_KEPT_MAX newer ones came.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import itertools
import os
import secrets
import signal

import msgspec

from engine.attach import STDERR, STDOUT, AttachSession, PipeSession
from engine.background import BackgroundTasks
from engine.bundle import SecurityOptions, process_capabilities
from engine.config import ExecConfig
from engine.container import Container, Status
from engine.containers import Containers
from engine.detach import detach_keys, detachable
from engine.errors import Conflict, InvalidParameter, NotFound, StartFailed
from engine.events import EventBus
from engine.preparation import HostPreparation
from engine.process import merged_environment, runtime_environment
from engine.runtime import capabilities
from engine.runtime.client import ExitEvent, RuntimeClient, SpawnError
from engine.runtime.user_namespaces import running_remapping

EXECS_KEPT_MAX = 1000


class Exec(msgspec.Struct, kw_only=True):
    id: str
    container_id: str
    config: ExecConfig
    keys: bytes = b""
    started: bool = False
    running: bool = False
    exit_code: int | None = None
    pid: int = 0
    ended: asyncio.Event = msgspec.field(default_factory=asyncio.Event)


class Execs:
    def __init__(
        self,
        containers: Containers,
        runtime: RuntimeClient,
        preparation: HostPreparation,
        events: EventBus,
        background: BackgroundTasks,
    ) -> None:
        self._containers = containers
        self._background = background
        self._runtime = runtime
        self._preparation = preparation
        self._events = events
        self._execs: dict[str, Exec] = {}  # oldest first

    def create(self, ref: str, config: ExecConfig) -> str:
        container = self._running(ref)
        if not config.cmd:
            raise InvalidParameter("No exec command specified")
        if config.console_size is not None and len(config.console_size) != 2:
            raise InvalidParameter("ConsoleSize must be [height, width]")
        made = Exec(
            keys=detach_keys(config.detach_keys),
            id=secrets.token_hex(32),
            container_id=container.id,
            config=config,
        )
        self._execs[made.id] = made
        self._forget_oldest()
        self._publish(container, f"exec_create: {' '.join(config.cmd)}", made)
        return made.id

    async def start(
        self, exec_id: str, *, detach: bool, tty: bool, console_size: list[int] | None
    ) -> AttachSession | None:
        """Run it. Returns the session, or None when detached. StartFailed carries 126 or 127."""
        made = self._find(exec_id)
        container = self._running(made.container_id)
        if made.started:
            raise Conflict(f"Exec {exec_id} has already run: create a new one")
        made.started = True
        config = made.config
        use_tty = config.tty or tty
        size = console_size or config.console_size
        # Said before: a quick one has ended when its start is answered.
        self._publish(container, f"exec_start: {' '.join(config.cmd or ())}", made)
        try:
            started = await self._runtime.exec(
                container.id,
                made.id,
                self._process(container, config, use_tty),
                tty=use_tty,
                stdin=config.attach_stdin and not detach,
                console_size=(size[0], size[1]) if size else None,
            )
        except SpawnError as error:
            made.exit_code = error.exit_code
            raise StartFailed(f"OCI runtime exec failed: exec failed: {error}", error.exit_code) from error
        made.running, made.pid = made.exit_code is None, started.pid
        outputs = [(STDOUT, started.stdout_fd)]
        if started.stderr_fd is not None:
            outputs.append((STDERR, started.stderr_fd))
        session = PipeSession(
            tty=use_tty,
            stdin_fd=started.stdin_fd,
            outputs=outputs,
            wanted=_attached(config),
            ended=made.ended,
        )
        if not detach:
            left = functools.partial(self._publish, container, "exec_detach", made)
            return detachable(session, made.keys, left)
        self._drain(session)
        return None

    async def wait(self, exec_id: str) -> int:
        """The exit code, once it has ended."""
        made = self._find(exec_id)
        await made.ended.wait()
        return made.exit_code or 0

    async def kill(self, exec_id: str) -> None:
        """End it at once; nothing happens when it has ended."""
        made = self._find(exec_id)
        if made.running and made.pid in await self._runtime.pids(made.container_id):
            with contextlib.suppress(ProcessLookupError):
                os.kill(made.pid, signal.SIGKILL)

    def ids_of(self, container_id: str) -> list[str] | None:
        """Those that run in a container; None for none, as inspect shows it."""
        return [m.id for m in self._execs.values() if m.running and m.container_id == container_id] or None

    def discard(self, exec_id: str) -> None:
        """Forget one that nobody will ask for."""
        self._execs.pop(exec_id, None)

    def inspect(self, exec_id: str) -> dict[str, object]:
        made = self._find(exec_id)
        config = made.config
        command = config.cmd or [""]
        return {
            "ID": made.id,
            "Running": made.running,
            "ExitCode": made.exit_code,
            "ProcessConfig": {
                "tty": config.tty,
                "entrypoint": command[0],
                "arguments": command[1:],
                "privileged": config.privileged,
                "user": config.user,
            },
            "OpenStdin": config.attach_stdin,
            "OpenStderr": config.attach_stderr,
            "OpenStdout": config.attach_stdout,
            "CanRemove": made.exit_code is not None,
            "ContainerID": made.container_id,
            "DetachKeys": base64.b64encode(made.keys).decode(),
            "Pid": made.pid,
        }

    async def resize(self, exec_id: str, rows: int, cols: int) -> None:
        made = self._find(exec_id)
        if not made.running:
            raise Conflict(f"Exec {exec_id} is not running")
        await self._runtime.resize(made.container_id, made.id, rows, cols)

    def exited(self, event: ExitEvent) -> None:
        made = self._execs.get(event.exec_id or "")
        if made is None:
            return
        made.running, made.exit_code = False, event.exit_code
        made.ended.set()
        container = self._containers.state.containers.get(made.container_id)
        if container is not None:
            self._publish(container, "exec_die", made, exitCode=str(event.exit_code))

    def _process(self, container: Container, config: ExecConfig, tty: bool) -> dict[str, object]:
        host = container.host_config
        user = self._preparation.exec_user(container, config.user)
        environment = runtime_environment(container.config, container.config.hostname or container.short_id)
        if tty and not any(entry.startswith("TERM=") for entry in environment):
            environment.append("TERM=xterm")
        environment = merged_environment(environment, config.env or ())
        if not any(entry.startswith("HOME=") for entry in environment):
            environment.append(f"HOME={user.home or '/'}")
        caps = capabilities.container_capabilities(
            add=host.cap_add or (), drop=host.cap_drop or (), privileged=host.privileged or config.privileged
        )
        remapping = running_remapping(container.state.pid)
        ids = {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)}
        return {
            "terminal": tty,
            "user": ids | ({"hostID": remapping.uid} if remapping else {}),
            "args": config.cmd or [],
            "env": environment,
            "cwd": config.working_dir or container.config.working_dir or "/",
            "capabilities": process_capabilities(caps, user.uid),
            "noNewPrivileges": SecurityOptions.parse(host).no_new_privileges,
        }

    def _forget_oldest(self) -> None:
        excess = len(self._execs) - EXECS_KEPT_MAX
        idle = (made.id for made in self._execs.values() if not made.running)
        for exec_id in list(itertools.islice(idle, max(0, excess))):
            del self._execs[exec_id]

    def _drain(self, session: PipeSession) -> None:
        async def drain() -> None:
            while await session.read() is not None:
                pass
            await session.close()

        self._background.start(drain(), "output of a detached exec")

    def _running(self, ref: str) -> Container:
        container = self._containers.find(ref)
        if container.state.status is Status.PAUSED:
            raise Conflict(f"Container {container.name} is paused, unpause the container before exec")
        if not container.is_running:
            raise Conflict(f"container {container.id} is not running")
        return container

    def _find(self, exec_id: str) -> Exec:
        made = self._execs.get(exec_id)
        if made is None:
            raise NotFound(f"No such exec instance: {exec_id}")
        return made

    def _publish(self, container: Container, action: str, made: Exec, **extra: str) -> None:
        self._events.publish(
            "container", action, container.id, {**container.event_attributes(), "execID": made.id, **extra}
        )


def _attached(config: ExecConfig) -> frozenset[int]:
    """The streams that the client asked for; a terminal has only one."""
    wanted = (
        (STDOUT, config.attach_stdout or (config.tty and config.attach_stderr)),
        (STDERR, config.attach_stderr),
    )
    return frozenset(stream for stream, is_wanted in wanted if is_wanted)
