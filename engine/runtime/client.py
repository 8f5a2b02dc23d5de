"""The daemon's side of the runtime: plans containers, asks the supervisor to start them, hears of their ends.

Everything is asynchronous and nothing blocks the event loop. The supervisor outlives this client: `connect`
adopts one that runs already, and whatever it holds is in `list` until it is forgotten.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import itertools
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from engine.background import BackgroundTasks
from engine.errors import EngineError, NotFound, Unavailable
from engine.runtime import host, launch, plan, program, seccomp, syscalls, wire
from engine.runtime.custody import Custody, RunningExec, reap_forgotten
from engine.runtime.launch import Installation, this_installation
from engine.runtime.plan import Plan, RootfsLike, StreamWishes
from engine.runtime.renewal import Renewal, SupervisorFacts
from engine.runtime.replies import FAILED, SpawnError, checked, foreign_error, spawn_error
from engine.runtime.wire import (
    Channel,
    ContainerState,
    Estate,
    ExecRequest,
    ExitEvent,
    ForeignStart,
    Hello,
    LogStyle,
    Message,
    Started,
    StartRequest,
)

__all__ = [
    "Attachment",
    "ContainerStart",
    "ContainerState",
    "ExecStarted",
    "ExitEvent",
    "Installation",
    "RuntimeClient",
    "SpawnError",
    "Started",
    "SupervisorFacts",
]

logger = logging.getLogger(__name__)

REQUEST_TIMEOUT_S = 60.0
LOST_EXIT_CODE = 137
Numbers: TypeAlias = list[int]  # inside the class, `list` is a verb
Reply: TypeAlias = "asyncio.Future[tuple[Message, Numbers]]"
_TELLS_MAX, _TELL_AGAIN_S = 20, 0.05


class ContainerStart(msgspec.Struct, kw_only=True):
    """`spec` is an OCI config.json. `netns`: path, "" for a new empty one, "host". `cgroup`: below each
    controller. `attachments`: output is held until that many `attach` calls came (at most 10 s), so that
    nothing is lost. `console_size`: (rows, columns). `log_max_size` in bytes, 0 is unlimited."""

    id: str
    spec: dict[str, Any]
    rootfs: RootfsLike
    netns: str = ""
    cgroup: str
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False
    attachments: int = 0
    log_driver: str = "json-file"
    log_path: str = ""
    log_max_size: int = 0
    log_max_file: int = 1
    log_style: LogStyle = LogStyle()
    console_size: tuple[int, int] | None = None
    foreign: ForeignStart | None = None


class ExecStarted(msgspec.Struct, frozen=True):
    """Numbers belong to the caller. With a terminal `stdout_fd` is its master, for both directions."""

    pid: int
    stdin_fd: int | None
    stdout_fd: int
    stderr_fd: int | None


class Attachment(msgspec.Struct, frozen=True):
    """Numbers belong to the caller. `output_fd` is a socket with Docker's stdcopy frames, or the raw
    bytes of a terminal; it ends when the container has. `since_ns`: what the log has from before that moment
    (Unix time) is not in it."""

    stdin_fd: int | None
    output_fd: int
    since_ns: int = 0


class RuntimeClient:
    """One connection to the supervisor of `run_dir`."""

    def __init__(self, run_dir: Path, facts: host.HostFacts, installation: Installation) -> None:
        """Use `connect`."""
        self._run_dir = run_dir
        self._facts = facts
        self._renewal = Renewal(installation)
        self._channel: Channel | None = None
        self._connecting = asyncio.Lock()
        self._serials = itertools.count(1)
        self._waiting: dict[int, tuple[Reply, Callable[[Any, Numbers], None]]] = {}
        self._callbacks: list[Callable[[ExitEvent], None]] = []
        self._filters: dict[str, bytes] = {}
        self._custody = Custody()
        self._background = BackgroundTasks()
        self._pids: dict[str, int] = {}  # of containers that were started here and have not ended
        self._reconnecting: asyncio.Task[None] | None = None
        self._greeter: asyncio.Task[Any] | None = None  # who makes a new connection usable
        self._closed = False
        self.supervisor_pid = 0

    @classmethod
    async def connect(cls, run_dir: Path, installation: Installation | None = None) -> RuntimeClient:
        """Adopt the supervisor of `run_dir`, or start one; one of another build is asked to go on as `installation`.

        Unavailable when it does not come up, or speaks no protocol of ours.
        """
        run_dir.mkdir(mode=0o710, parents=True, exist_ok=True)
        syscalls.allow_many_files()
        client = cls(run_dir, host.gather(run_dir), installation or this_installation(""))
        await client._connected()
        client._background.start(reap_forgotten(), "reaping")
        return client

    # ---- containers ---------------------------------------------------------------------------------------

    async def start(self, req: ContainerStart) -> Started:
        """Run a container's first process. SpawnError when it cannot be made."""
        linux = req.spec.get("linux") or {}
        compiled = seccomp.compiled(linux.get("seccomp"))
        try:
            made = plan.plan_container(
                req.spec,
                req.rootfs,
                self._facts,
                netns=req.netns,
                cgroup=req.cgroup,
                streams=StreamWishes(terminal=req.tty, stdin=req.stdin),
                seccomp=compiled,
            )
        except ValueError as error:
            raise SpawnError("plan", errno.EINVAL, str(error), FAILED) from error
        request = StartRequest(
            id=req.id,
            program=b"" if req.foreign else program.pack(made.ops),
            clone_flags=made.clone_flags,
            pid_namespace=made.pid_namespace,
            cgroup=req.cgroup,
            resources=linux.get("resources") or {},
            tty=req.tty,
            stdin=req.stdin,
            stdin_once=req.stdin_once,
            attachments=req.attachments,
            log_driver=req.log_driver,
            log_path=req.log_path,
            log_max_size=req.log_max_size,
            log_max_file=req.log_max_file,
            log_style=req.log_style,
            console_size=req.console_size,
            seccomp=compiled,
            foreign=req.foreign,
        )

        def started(body: Any, descriptors: Numbers) -> None:
            estate = msgspec.structs.replace(msgspec.convert(body, Estate), seccomp=compiled)
            self._custody.keep(estate, descriptors[:])
            descriptors.clear()
            self._filters[req.id], self._pids[req.id] = compiled, estate.pid

        body, _ = await self._spawn("start", request, made, started)
        return Started(body["pid"], body["start_ticks"], body["started_at"])

    async def exec(
        self,
        id: str,
        exec_id: str,
        process: Mapping[str, Any],
        *,
        tty: bool,
        stdin: bool,
        console_size: tuple[int, int] | None = None,
    ) -> ExecStarted:
        """A further process in a running container, with its cgroup, namespaces and seccomp filter."""
        compiled = self._filters.get(id)
        if compiled is None:
            compiled = self._filters[id] = (await self._request("filter", {"id": id}))[0]
        if id not in self._pids:
            await self.list()
        made = plan.plan_exec(
            process,
            self._facts,
            pid=self._pids.get(id, 0),
            streams=StreamWishes(terminal=tty, stdin=stdin),
            seccomp=compiled,
        )
        request = ExecRequest(
            id=id,
            exec_id=exec_id,
            program=program.pack(made.ops),
            tty=tty,
            stdin=stdin,
            console_size=console_size,
        )

        def started(body: Any, descriptors: Numbers) -> None:
            self._custody.keep_exec(exec_id, RunningExec(id, body["pid"], descriptors.pop(0)))

        body, streams = await self._spawn("exec", request, made, started)
        outputs, rest = streams[: body["outputs"]], streams[body["outputs"] :]
        return ExecStarted(
            pid=body["pid"],
            stdin_fd=rest[0] if rest else None,
            stdout_fd=outputs[0],
            stderr_fd=outputs[1] if len(outputs) > 1 else None,
        )

    async def kill(self, id: str, signal: int) -> None:
        """ProcessLookupError when it has ended, NotFound when it is unknown."""
        await self._request("kill", {"id": id, "signal": int(signal)})

    async def attach(self, id: str, *, stdin: bool = True) -> Attachment:
        """Output from now on. With `stdin_once`, the first attachment that asks gets standard input for good:
        closing it is the end of the container's input."""
        asked_ns = time.time_ns()
        body, descriptors = await self._request("attach", {"id": id, "stdin": stdin})
        # A supervisor of an older build does not say when it was.
        since_ns = int(body["since_ns"]) if body else asked_ns
        return Attachment(descriptors[1] if len(descriptors) > 1 else None, descriptors[0], since_ns)

    async def resize(self, id: str, exec_id: str | None, rows: int, cols: int) -> None:
        body = {"id": id, "exec_id": exec_id, "rows": rows, "columns": cols}
        await self._request("resize", body)

    async def pause(self, id: str) -> None:
        """Returns when every process of the container is stopped."""
        await self._request("pause", {"id": id})

    async def resume(self, id: str) -> None:
        await self._request("resume", {"id": id})

    async def update(self, id: str, resources: Mapping[str, Any]) -> None:
        """Put limits of an OCI `linux.resources` in force; what is not named stays."""
        await self._request("update", {"id": id, "resources": dict(resources)})

    async def stats(self, id: str) -> dict[str, Any]:
        """Raw counters, see `cgroup.Cgroups.stats`."""
        return dict((await self._request("stats", {"id": id}))[0])

    async def pids(self, id: str) -> Numbers:
        """Processes of the container as the host numbers them."""
        return [int(pid) for pid in (await self._request("pids", {"id": id}))[0]]

    async def list(self) -> list[ContainerState]:
        """What runs, and what ended and was not forgotten."""
        body, _ = await self._request("list", {})
        states = msgspec.convert(body, list[ContainerState])
        self._pids.update((state.id, state.pid) for state in states if state.running)
        return states

    async def forget(self, id: str) -> None:
        """Drop the record of a container that has ended; an unknown one is fine."""
        self._filters.pop(id, None)
        await self._request("forget", {"id": id})

    @property
    def supervisor(self) -> SupervisorFacts:
        return self._renewal.facts

    def on_exit(self, callback: Callable[[ExitEvent], None]) -> None:
        """Called in the event loop for every process that ends from now on."""
        self._callbacks.append(callback)

    async def close(self) -> None:
        """Leave; the supervisor and its containers go on."""
        self._closed = True
        if self._reconnecting is not None:
            self._reconnecting.cancel()
        self._disconnect(self._channel)
        await self._background.close()
        self._custody.close()

    async def shutdown(self) -> None:
        """Kill what runs and end the supervisor."""
        await self._connected()
        self._closed = True
        await self._request("shutdown", {})
        self._disconnect(self._channel)
        await self._background.close()
        self._custody.close()
        await asyncio.to_thread(launch.reap, self.supervisor_pid)

    # ---- requests -----------------------------------------------------------------------------------------

    async def _spawn(
        self,
        verb: str,
        request: StartRequest | ExecRequest,
        made: Plan,
        started: Callable[[Any, Numbers], None],
    ) -> tuple[Any, Numbers]:
        """`started`: called with the reply before any event after it, which may be the end of the process."""
        message, descriptors = await self._ask(verb, request, arrived=started)
        if message.name == "failed":
            raise spawn_error(made, message.body["index"], message.body["errno"])
        if message.name == "os":
            raise SpawnError(
                verb,
                message.body["errno"],
                f"unable to start container process: {message.body['message']}",
                FAILED,
            )
        if message.name == "refused" and isinstance(request, StartRequest) and request.foreign:
            raise foreign_error(message.body["message"])
        return checked(message), descriptors

    async def _request(self, verb: str, body: object) -> tuple[Any, Numbers]:
        message, descriptors = await self._ask(verb, body)
        return checked(message), descriptors

    async def _ask(
        self,
        verb: str,
        body: object,
        given: tuple[int, ...] = (),
        arrived: Callable[[Any, Numbers], None] = lambda body, descriptors: None,
    ) -> tuple[Message, Numbers]:
        """The reply with its descriptors. `given`: descriptors to send along, closed here."""
        return await self._ask_on(await self._connected(), verb, body, given, arrived)

    async def _ask_on(
        self,
        channel: Channel,
        verb: str,
        body: object,
        given: tuple[int, ...] = (),
        arrived: Callable[[Any, Numbers], None] = lambda body, descriptors: None,
    ) -> tuple[Message, Numbers]:
        serial = next(self._serials)
        future: Reply = asyncio.get_running_loop().create_future()
        self._waiting[serial] = future, arrived
        try:
            self._send(channel, Message(serial, verb, body), given)
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                return await future
        except TimeoutError as error:
            raise Unavailable(
                f"the supervisor does not answer {verb} within {REQUEST_TIMEOUT_S} s"
            ) from error
        finally:
            self._waiting.pop(serial, None)

    def _send(self, channel: Channel, message: Message, given: tuple[int, ...]) -> None:
        try:
            channel.send(message, given)
        except OSError as error:
            self._disconnect(channel)
            raise Unavailable(f"the supervisor has gone: {error}") from error
        if channel.has_output:
            loop = asyncio.get_running_loop()
            loop.add_writer(channel.sock.fileno(), self._flush, channel)

    def _flush(self, channel: Channel) -> None:
        try:
            channel.flush()
        except OSError:
            self._disconnect(channel)
            return
        if not channel.has_output:
            asyncio.get_running_loop().remove_writer(channel.sock.fileno())

    def _receive(self, channel: Channel) -> None:
        try:
            messages = channel.receive()
        except (OSError, msgspec.MsgspecError):
            messages = None
        if messages is None:
            self._disconnect(channel)
            return
        for message, descriptors in messages:
            if message.serial == 0:
                self._notify(msgspec.convert(message.body, ExitEvent))
                continue
            future, arrived = self._waiting.pop(message.serial, (None, None))
            if message.name == "ok" and arrived is not None:
                arrived(message.body, descriptors)
            if future is None or future.done():
                for descriptor in descriptors:
                    os.close(descriptor)
            else:
                future.set_result((message, descriptors))

    def _notify(self, event: ExitEvent) -> None:
        if event.exec_id is None:
            self._pids.pop(event.id, None)
            self._custody.drop(event.id)
        else:
            self._custody.drop_exec(event.exec_id)
        for callback in self._callbacks:
            callback(event)

    # ---- the connection -----------------------------------------------------------------------------------

    async def _connected(self) -> Channel:
        if self._channel is not None:
            return self._channel
        if asyncio.current_task() is self._greeter:
            raise Unavailable("the supervisor has gone")
        if self._closed:
            raise Unavailable("the runtime client is closed")
        async with self._connecting:
            if self._channel is None:
                self._greeter = asyncio.current_task()
                try:
                    return await self._meet()
                finally:
                    self._greeter = None
            return self._channel

    async def _meet(self) -> Channel:
        """A connection to a supervisor that runs our build, or to one that we can speak with."""
        channel = await self._open()
        try:
            hello = await self._hello(channel)
            if self._renewal.is_due(hello):
                reply = await self._ask_to_renew(channel)
                if reply is None:
                    channel = await self._open()
                before, hello = hello, await self._hello(channel)
                self._renewal.answered(before, hello, reply)
            self._renewal.met(hello)
        except BaseException:
            self._disconnect(channel)
            raise
        self._channel = channel
        await self._greet(hello)
        return channel

    async def _open(self) -> Channel:
        """To the supervisor that is there, or to a new one."""
        sock = launch.dial(self._run_dir)
        if sock is None:
            await launch.launch(self._run_dir, self._renewal.release())
            sock = launch.dial(self._run_dir)
        if sock is None:
            raise Unavailable(f"the supervisor does not start: see {self._run_dir / wire.LOG_NAME}")
        channel = Channel(sock)
        asyncio.get_running_loop().add_reader(sock.fileno(), self._receive, channel)
        return channel

    async def _hello(self, channel: Channel) -> Hello:
        message, _ = await self._ask_on(channel, "hello", {})
        return msgspec.convert(checked(message), Hello)

    async def _ask_to_renew(self, channel: Channel) -> Message | None:
        """None when it went on as the new build, which ends the connection; else the reply says why not."""
        try:
            reply, _ = await self._ask_on(channel, "reexec", self._renewal.release())
        except Unavailable:
            if channel.is_open:
                raise
            return None
        return reply

    async def _greet(self, hello: Hello) -> None:
        former, self.supervisor_pid = self.supervisor_pid, hello.pid
        if hello.orphans:
            await self._hand_over(hello.orphans)
        if former not in (0, hello.pid):
            self._custody.watch_execs(self._exec_lost)
        for event in hello.exec_ends:
            if event.exec_id is not None and self._custody.has_exec(event.exec_id):
                self._notify(event)
        if former:
            await self._report_missed()
        await self._take_custody()

    async def _hand_over(self, orphans: Iterable[str]) -> None:
        """A new supervisor: it adopts the containers whose descriptors are here and ends the others."""
        for container_id in orphans:
            left = self._custody.duplicate(container_id)
            if left is None:
                logger.error("container %s ends with its supervisor: its output has no reader", container_id)
                continue
            try:
                message, _ = await self._ask("adopt", left[0], left[1])
                checked(message)
            except (EngineError, OSError) as error:
                logger.error("container %s was not adopted: %s", container_id, error)
            else:
                logger.warning("container %s was adopted by a new supervisor", container_id)
                self._custody.watch(container_id, functools.partial(self._tell_exit, container_id))
        await self._request("settle", {})

    def _tell_exit(self, container_id: str, exit_code: int) -> None:
        body = {"id": container_id, "pid": self._pids.get(container_id, 0), "exit_code": exit_code}

        async def tell() -> None:
            for _ in range(_TELLS_MAX):
                with contextlib.suppress(Unavailable):  # it goes on as another build, or was killed
                    await self._request("reaped", body)
                    return
                await asyncio.sleep(_TELL_AGAIN_S)

        self._background.start(tell(), f"exit code of {container_id[:12]}")

    def _exec_lost(self, exec_id: str, running: RunningExec, exit_code: int) -> None:
        self._notify(
            ExitEvent(
                id=running.container_id,
                exec_id=exec_id,
                pid=running.pid,
                exit_code=exit_code,
                oom_killed=False,
                finished_at=time.time(),
            )
        )

    async def _take_custody(self) -> None:
        """Duplicates of what this daemon did not start itself."""
        for state in await self.list():
            if state.running and not self._custody.has(state.id):
                with contextlib.suppress(NotFound):  # it ended in the meantime
                    body, descriptors = await self._request("estate", {"id": state.id})
                    self._custody.keep(msgspec.convert(body, Estate), descriptors)

    async def _report_missed(self) -> None:
        """What ended while there was no connection, or with the supervisor."""
        states = {state.id: state for state in await self.list()}
        for container_id, pid in tuple(self._pids.items()):
            state = states.get(container_id)
            if state is None or not state.running:
                self._notify(
                    ExitEvent(
                        id=container_id,
                        exec_id=None,
                        pid=pid,
                        exit_code=state.exit_code if state else LOST_EXIT_CODE,
                        oom_killed=state is not None and state.oom_killed,
                        finished_at=state.finished_at if state else time.time(),
                    )
                )

    def _disconnect(self, channel: Channel | None) -> None:
        if channel is None or not channel.is_open:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(channel.sock.fileno())
        loop.remove_writer(channel.sock.fileno())
        channel.close()
        for future, _ in self._waiting.values():
            if not future.done():
                future.set_exception(Unavailable("the supervisor has gone"))
        self._waiting.clear()
        if channel is self._channel:
            self._channel = None
            if not self._closed:
                # At once, because the ends of its containers have to be reported.
                self._reconnecting = asyncio.ensure_future(self._reconnect())

    async def _reconnect(self) -> None:
        try:
            await self._connected()
        except (Unavailable, OSError) as error:
            logger.error("the supervisor was lost and cannot be replaced: %s", error)
