"""The supervisor: one lean process per node, the parent of all its containers.

It spawns, pumps output, reaps, and answers the daemon on a unix socket; the daemon may come and go. No
asyncio and no third-party module but msgspec, because everything here is paid for on every node.
Invariants: only this process reaps containers that it started; a record stays until the daemon forgets it, so no exit is
lost; the main thread never blocks on a container.
"""

from __future__ import annotations

import collections
import fcntl
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from engine.runtime import handover, reexec, spawn, syscalls, terminal, wire
from engine.runtime.birth import Midwife, Newborn, exit_code_of
from engine.runtime.cgroup import choose_cgroups
from engine.runtime.connections import Connections, Missing, Refused, log
from engine.runtime.event_loop import EpollPoller, SpawnThreads
from engine.runtime.records import Record, Records
from engine.runtime.succession import Succession
from engine.runtime.supervised import Container, Exec
from engine.runtime.wire import Channel, ExecRequest, ExitEvent, Message, StartRequest

SPAWN_THREADS = 4
TICK_S = 0.02
RUN_DIR_CHECK_S = 5.0
SHUTDOWN_S = 10.0
EXEC_ENDS_KEPT = 64


class Supervisor:
    """The event loop and the verbs."""

    def __init__(self, run_dir: Path, build: str, state: handover.Handover | None = None) -> None:
        """`state`: go on from there; without one, from the records of a predecessor that died, if there was one."""
        self._run_dir = run_dir
        self._build = build
        self._poller = EpollPoller()
        self._connections = Connections(self._poller, self._dispatch)
        self._midwife = Midwife(choose_cgroups())
        count = SPAWN_THREADS if spawn.is_parallel() else 0
        self._threads = SpawnThreads(self._poller, count)
        self._containers: dict[str, Container] = {}
        self._records = Records(run_dir)
        orphans, strangers = (self._records.read(), {}) if state is None else (state.orphans, state.strangers)
        self._succession = Succession(self._records, self._midwife.cgroups, orphans, strangers)
        self._lost: dict[str, wire.ContainerState] = {}
        self._starting: set[str] = set()
        self._leaving: dict[str, str] = {}  # container id -> control group that is not empty yet
        self._filters: dict[bytes, bytes] = {}
        self._exec_ends: collections.deque[ExitEvent] = collections.deque(maxlen=EXEC_ENDS_KEPT)
        self._lock = -1
        self._change: reexec.Change | None = None
        self._stopping = self._terminating = False
        self._verbs: dict[str, Callable[[Channel, int, dict[str, Any]], None]] = {
            "hello": self._hello,
            "reexec": self._reexec,
            "settle": self._settle,
            "estate": self._estate,
            "reaped": self._reaped,
            "start": self._start,
            "exec": self._exec,
            "kill": self._kill,
            "attach": self._attach,
            "resize": self._resize,
            "pause": self._pause,
            "resume": self._resume,
            "update": self._update,
            "stats": self._stats,
            "pids": self._pids,
            "list": self._list,
            "filter": self._filter,
            "forget": self._forget,
            "shutdown": self._shutdown,
        }
        if state is not None:
            self._take_over(state)

    # ---- the loop -----------------------------------------------------------------------------------------

    def serve(self, listener: socket.socket, lock: int) -> None:
        """`lock`: the descriptor that makes this the only supervisor of its folder."""
        self._lock = lock
        self._threads.start()
        self.let_go()
        self._connections.serve(listener)
        next_check = time.monotonic() + RUN_DIR_CHECK_S
        while not self._stopping:
            if self._terminating:
                self._end_containers()
                return
            busy = (
                self._leaving
                or self._change is not None
                or self._succession.is_waiting
                or any(c.needs_clock() for c in self._containers.values())
            )
            self._poller.run_once(TICK_S if busy else RUN_DIR_CHECK_S)
            now = time.monotonic()
            if busy:
                self._tick(now)
            if now >= next_check:
                next_check = now + RUN_DIR_CHECK_S
                self._stopping = self._stopping or self._is_orphaned()

    def _tick(self, now: float) -> None:
        for container, exit_code in self._succession.statuses(self._containers, now):
            self._bury(container, exit_code)
        for container in tuple(self._containers.values()):
            container.tick(now)
            self._try_finish(container)
        for container_id, cgroup in tuple(self._leaving.items()):
            self._midwife.cgroups.kill(cgroup)
            if self._midwife.cgroups.remove(cgroup):
                del self._leaving[container_id]
        if self._change is not None:
            self._change.advance(now)

    def _is_orphaned(self) -> bool:
        """Its folder was removed and nothing runs: nobody can ever reach it again."""
        gone = not (self._run_dir / wire.SOCKET_NAME).exists()
        return (
            gone
            and not self._starting
            and not self._succession.orphans
            and not any(c.running for c in self._containers.values())
        )

    def _dispatch(self, channel: Channel, message: Message, descriptors: list[int]) -> None:
        verb = self._verbs.get(message.name)
        try:
            if message.name == "adopt":
                self._adopt(channel, message.serial, message.body, descriptors)
                return
            if verb is None:
                raise Refused(f"unknown request {message.name}: the daemon is of another version")
            verb(channel, message.serial, message.body or {})
        except Exception as error:  # noqa: BLE001 - one bad request must not end every container's supervisor
            self._connections.fail(channel, message.serial, error)

    # ---- verbs --------------------------------------------------------------------------------------------

    def _hello(self, channel: Channel, serial: int, body: dict[str, Any]) -> None:
        hello = wire.Hello(
            pid=os.getpid(),
            protocol=wire.PROTOCOL,
            oldest=wire.PROTOCOL_MIN,
            build=self._build,
            orphans=self._succession.orphans,
            exec_ends=list(self._exec_ends),
        )
        self._connections.reply(channel, serial, hello)

    def _adopt(self, channel: Channel, serial: int, body: dict[str, Any], descriptors: list[int]) -> None:
        estate = msgspec.convert(body, wire.Estate)
        shared = self._filters.setdefault(estate.seccomp, estate.seccomp)
        container = self._succession.adopt(
            msgspec.structs.replace(estate, seccomp=shared), descriptors, self._poller
        )
        if container is None:
            raise Missing(f"no such orphan: {estate.id}")
        self._containers[container.id] = container
        self._connections.reply(channel, serial)
        self._watch_end(container)
        container.pump()

    def _settle(self, channel: Channel, serial: int, body: dict[str, Any]) -> None:
        self._lost.update((state.id, state) for state in self._succession.settle())
        self._connections.reply(channel, serial)

    def _estate(self, channel: Channel, serial: int, body: dict[str, Any]) -> None:
        estate, descriptors = self._running(body["id"]).bequest()
        self._connections.reply(channel, serial, estate, descriptors)

    def _reaped(self, channel: Channel, serial: int, body: dict[str, Any]) -> None:
        """The daemon turned out to be the parent of an adopted process, and tells how it ended."""
        container = self._find(body["id"])
        if container.pid == body["pid"] and not container.reaped:
            self._poller.forget(container.pidfd)
            self._succession.told(container.id)
            self._bury(container, body["exit_code"])
        self._connections.reply(channel, serial)

    def _start(self, channel: Channel, serial: int, body: dict[str, Any]) -> None:
        request = msgspec.convert(body, StartRequest)
        if request.id in self._starting or request.id in self._containers:
            known = self._containers.get(request.id)
            if known is None or known.running:
                raise Refused(f"container {request.id} runs already")
            self._remove(known)
        if request.id in self._leaving:
            self._midwife.cgroups.remove(self._leaving.pop(request.id))
        self._starting.add(request.id)

        def job() -> Callable[[], None]:
            try:
                newborn = self._midwife.start(request)
            except BaseException as failure:  # noqa: BLE001 - carried to the main thread
                error = failure
                return lambda: self._start_failed(channel, serial, request, error)
            return lambda: self._started(channel, serial, request, newborn)

        self._threads.submit(job)

    def _start_failed(
        self, channel: Channel, serial: int, request: StartRequest, error: BaseException
    ) -> None:
        self._starting.discard(request.id)
        self._connections.fail(channel, serial, error)

    def _started(self, channel: Channel, serial: int, request: StartRequest, newborn: Newborn) -> None:
        self._starting.discard(request.id)
        seccomp = self._filters.setdefault(request.seccomp, request.seccomp)
        container = Container.started(request, newborn, seccomp, self._poller)
        self._containers[request.id] = container
        self._lost.pop(request.id, None)
        self._records.add(
            Record(
                id=request.id,
                pid=container.pid,
                start_ticks=newborn.start_ticks,
                started_at=newborn.started_at,
                cgroup=container.cgroup,
                cgroup_parents=self._midwife.cgroups.made_parents(container.cgroup),
            )
        )
        estate, descriptors = container.bequest()
        self._connections.reply(channel, serial, msgspec.structs.replace(estate, seccomp=b""), descriptors)
        self._watch_end(container)
        container.pump()

    def _exec(self, channel: Channel, serial: int, body: dict[str, Any]) -> None:
        request = msgspec.convert(body, ExecRequest)
        container = self._running(request.id)
        if request.exec_id in container.execs:
            raise Refused(f"exec {request.exec_id} runs already")
        pidfd = os.dup(container.pidfd)

        def job() -> Callable[[], None]:
            try:
                newborn = self._midwife.exec(request, container.cgroup, container.pid, pidfd)
            except BaseException as failure:  # noqa: BLE001 - carried to the main thread
                error = failure
                return lambda: self._connections.fail(channel, serial, error)
            finally:
                os.close(pidfd)
            return lambda: self._exec_started(channel, serial, container, request.exec_id, newborn)

        self._threads.submit(job)

    def _exec_started(
        self, channel: Channel, serial: int, container: Container, exec_id: str, newborn: Newborn
    ) -> None:
        streams = newborn.streams
        master = None if streams.master is None else os.dup(streams.master)
        made = Exec(exec_id, newborn.pid, newborn.pidfd, master)
        container.execs[exec_id] = made
        outputs = [descriptor for _, descriptor in streams.outputs]
        pidfd = os.dup(newborn.pidfd)
        given = (pidfd, *outputs, *(() if streams.stdin is None else (streams.stdin,)))
        self._connections.reply(channel, serial, {"pid": newborn.pid, "outputs": len(outputs)}, given)
        self._watch_exec(container, made)

    def _kill(self, channel: Channel, serial: int, body: dict[str, Any]) -> None:
        container = self._running(body["id"])
        signal.pidfd_send_signal(container.pidfd, body["signal"])
        self._connections.reply(channel, serial)

    def _attach(self, channel: Channel, serial: int, body: dict[str, Any]) -> None:
        container = self._find(body["id"])
        theirs, stdin = container.attach(stdin=body["stdin"])
        given = (theirs.detach(), *(() if stdin is None else (stdin,)))
        self._connections.reply(channel, serial, {"since_ns": time.time_ns()}, given)
        self._try_finish(container)

    def _resize(self, channel: Channel, serial: int, body: dict[str, Any]) -> None:
        container = self._running(body["id"])
        if body["exec_id"] is None:
            master = container.streams.master
        else:
            made = container.execs.get(body["exec_id"])
            if made is None:
                raise Missing(f"no such exec: {body['exec_id']}")
            master = made.master
        if master is not None:  # without a terminal there is no size to set, as Docker has it
            terminal.set_size(master, body["rows"], body["columns"])
        self._connections.reply(channel, serial)

    def _pause(self, channel: Channel, serial: int, body: dict[str, Any]) -> None:
        container = self._running(body["id"])

        def job() -> Callable[[], None]:
            try:
                self._midwife.cgroups.freeze(container.cgroup)
            except OSError as failure:
                error = failure
                return lambda: self._connections.fail(channel, serial, error)
            return lambda: self._connections.reply(channel, serial)

        self._threads.submit(job)

    def _resume(self, channel: Channel, serial: int, body: dict[str, Any]) -> None:
        self._midwife.cgroups.thaw(self._running(body["id"]).cgroup)
        self._connections.reply(channel, serial)

    def _update(self, channel: Channel, serial: int, body: dict[str, Any]) -> None:
        self._midwife.cgroups.update(self._running(body["id"]).cgroup, body["resources"])
        self._connections.reply(channel, serial)

    def _stats(self, channel: Channel, serial: int, body: dict[str, Any]) -> None:
        self._connections.reply(
            channel, serial, self._midwife.cgroups.stats(self._running(body["id"]).cgroup)
        )

    def _pids(self, channel: Channel, serial: int, body: dict[str, Any]) -> None:
        self._connections.reply(channel, serial, self._midwife.cgroups.pids(self._running(body["id"]).cgroup))

    def _list(self, channel: Channel, serial: int, body: dict[str, Any]) -> None:
        states = [container.state() for container in self._containers.values()]
        self._connections.reply(channel, serial, [*states, *self._lost.values()])

    def _filter(self, channel: Channel, serial: int, body: dict[str, Any]) -> None:
        self._connections.reply(channel, serial, self._find(body["id"]).estate.seccomp)

    def _forget(self, channel: Channel, serial: int, body: dict[str, Any]) -> None:
        self._lost.pop(body["id"], None)
        container = self._containers.get(body["id"])
        if container is not None:
            if container.running:
                raise Refused(f"container {container.id} still runs: kill it before it can be forgotten")
            self._remove(container)
        self._connections.reply(channel, serial)

    def _shutdown(self, channel: Channel, serial: int, body: dict[str, Any]) -> None:
        """Kill what runs, then end. The reply comes before the end."""
        self._end_containers()
        self._connections.reply(channel, serial)
        self._stopping = True

    def _end_containers(self) -> None:
        for container in self._containers.values():
            if not container.reaped:
                signal.pidfd_send_signal(container.pidfd, signal.SIGKILL)
        deadline = time.monotonic() + SHUTDOWN_S
        while any(c.running for c in self._containers.values()) or self._starting or self._leaving:
            if time.monotonic() > deadline:
                log("some containers do not end: their processes hang in the kernel")
                break
            self._poller.run_once(TICK_S)
            self._tick(time.monotonic())

    def terminate(self) -> None:
        """SIGTERM: end with everything that runs, as a service manager expects it."""
        self._terminating = True
        self._threads.wake()

    # ---- other code ---------------------------------------------------------------------------------------

    def _reexec(self, channel: Channel, serial: int, body: dict[str, Any]) -> None:
        """Go on as another program: the answer is the end of the connection, or why not. Requests wait meanwhile."""
        release = msgspec.convert(body, wire.Release)
        if release.build == self._build:
            raise Refused(f"it runs build {release.build} already")
        if self._change is not None:
            raise Refused("it is going on as another build already: ask again")

        def failed(reason: Refused) -> None:
            self._change = None
            self._connections.release()
            self._connections.fail(channel, serial, reason)

        self._change = reexec.Change(release, self._run_dir, self._poller, self, failed)
        self._connections.hold()

    @property
    def is_quiet(self) -> bool:
        """No process is being started, no exit code is on its way from somebody else."""
        return self._threads.is_idle and not self._succession.is_waiting

    @property
    def is_ending(self) -> bool:
        return self._terminating or self._stopping

    def snapshot(self) -> handover.Handover:
        """Everything, while it is quiet, and as it stays until `let_go`. The descriptors stay ours."""
        assert not self._starting, "nothing starts while it is quiet"
        known = tuple(self._containers.values())
        filters = {seccomp: n for n, seccomp in enumerate(dict.fromkeys(c.estate.seccomp for c in known))}
        groups = (*(c.cgroup for c in known if c.running), *self._leaving.values())
        orphans, strangers = self._succession.waiting()
        containers = [container.hand_over(filters[container.estate.seccomp]) for container in known]
        return handover.Handover(
            version=handover.version_of(containers),
            build=self._build,
            lock=self._lock,
            listener=self._connections.listener,
            filters=list(filters),
            containers=containers,
            cgroups={group: self._midwife.cgroups.made_parents(group) for group in groups},
            leaving=dict(self._leaving),
            lost=list(self._lost.values()),
            orphans=orphans,
            strangers=strangers,
            exec_ends=list(self._exec_ends),
        )

    def let_go(self) -> None:
        for container in self._containers.values():
            container.let_go()

    def _take_over(self, state: handover.Handover) -> None:
        for group, parents in state.cgroups.items():
            self._midwife.cgroups.adopt(group, parents)
        for known in state.containers:
            seccomp = state.filters[known.filter]
            container = Container.resumed(known, self._filters.setdefault(seccomp, seccomp), self._poller)
            self._containers[container.id] = container
            if not container.reaped and container.id not in state.strangers:
                self._watch_end(container)
            for made in container.execs.values():
                self._watch_exec(container, made)
            container.go_on()
        self._leaving = state.leaving
        self._lost = {ended.id: ended for ended in state.lost}
        self._exec_ends.extend(state.exec_ends)

    # ---- ends ---------------------------------------------------------------------------------------------

    def _watch_end(self, container: Container) -> None:
        self._poller.watch(container.pidfd, lambda: self._ended(container))

    def _watch_exec(self, container: Container, made: Exec) -> None:
        self._poller.watch(made.pidfd, lambda: self._exec_ended(container, made))

    def _exec_ended(self, container: Container, made: Exec) -> None:
        info = os.waitid(os.P_PIDFD, made.pidfd, os.WEXITED | os.WNOHANG)
        if info is None:
            return
        self._poller.forget(made.pidfd)
        container.execs.pop(made.exec_id, None)
        made.close()
        event = ExitEvent(
            id=container.id,
            exec_id=made.exec_id,
            pid=made.pid,
            exit_code=exit_code_of(info),
            oom_killed=False,
            finished_at=time.time(),
        )
        self._exec_ends.append(event)
        self._connections.publish(event)

    def _ended(self, container: Container) -> None:
        try:
            info = os.waitid(os.P_PIDFD, container.pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:  # adopted
            self._poller.forget(container.pidfd)
            self._succession.await_status(container)
            return
        if info is None:
            return
        self._poller.forget(container.pidfd)
        self._bury(container, exit_code_of(info))

    def _bury(self, container: Container, exit_code: int) -> None:
        os.close(container.pidfd)
        container.reaped = True
        container.exit_code = exit_code
        container.oom_killed = self._midwife.cgroups.oom_kills(container.cgroup) > 0
        # Without a pid namespace of its own, other processes of the container live on and hold its pipes.
        self._midwife.cgroups.kill(container.cgroup)
        self._try_finish(container)

    def _try_finish(self, container: Container) -> None:
        """Report the end once all output was read, so that a log is complete when the exit is known."""
        if not container.reaped or not container.running:
            return
        container.drain()
        if not container.is_drained or not container.is_logged():
            return
        lost_bytes = container.finish()
        if lost_bytes:
            log(f"container {container.id}: its log could not take {lost_bytes} bytes of its output")
        self._records.remove(container.id)
        container.finished_at = time.time()
        self._connections.publish(
            ExitEvent(
                id=container.id,
                exec_id=None,
                pid=container.pid,
                exit_code=container.exit_code,
                oom_killed=container.oom_killed,
                finished_at=container.finished_at,
            )
        )
        if not self._midwife.cgroups.remove(container.cgroup):
            self._leaving[container.id] = container.cgroup

    def _remove(self, container: Container) -> None:
        container.discard()
        self._containers.pop(container.id, None)

    def _find(self, container_id: str) -> Container:
        container = self._containers.get(container_id)
        if container is None:
            raise Missing(f"no such container: {container_id}")
        return container

    def _running(self, container_id: str) -> Container:
        container = self._find(container_id)
        if container.reaped:
            raise Missing(f"container {container_id} is not running")
        return container


def listen(run_dir: Path) -> tuple[socket.socket, int] | None:
    """The listening socket and the lock, or None when another supervisor serves this folder."""
    descriptor = os.open(run_dir / wire.LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # Held, on purpose, until this process ends.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    path = run_dir / wire.SOCKET_NAME
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(16)
    return listener, descriptor


def main(arguments: list[str]) -> int:
    """`arguments`: the run folder, options with a value each, the marker. Options: --build, and --resume or
    --check-state with the descriptor of a state. Without these, a byte on standard output says that the socket is there.
    """
    run_dir, options = Path(arguments[0]), dict(zip(arguments[1:-1:2], arguments[2:-1:2], strict=True))
    build = options.get("--build", "")
    if "--check-state" in options:
        try_state(run_dir, build, int(options["--check-state"]))
    state = None
    if "--resume" in options:
        state = reexec.resumed(int(options["--resume"]), build)
        listener, lock = socket.socket(fileno=state.listener), state.lock
    else:
        place = listen(run_dir)
        os.write(1, b"1" if place else b"0")
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, 1)
        os.close(null)
        if place is None:
            return 0
        listener, lock = place
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    sys.setswitchinterval(0.0005)
    # An exec's child shares this memory until execve, and a container's processes can see it by then.
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    syscalls.allow_many_files()
    os.chdir("/")
    supervisor = Supervisor(run_dir, build, state)
    signal.signal(signal.SIGTERM, lambda *_: supervisor.terminate())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))  # blocked by who executed this program
    supervisor.serve(listener, lock)
    return 0


def try_state(run_dir: Path, build: str, descriptor: int) -> NoReturn:
    """Take over a copy of the state and end: 0, or 1 with the reason on the last line of standard output."""
    code = 0
    try:
        Supervisor(run_dir, build, reexec.resumed(descriptor, build))
    except handover.Unreadable as error:
        sys.stdout.write(f"{error}\n")
        code = 1
    except Exception:  # noqa: BLE001 - whatever it is, the present supervisor has to hear of it
        traceback.print_exc(file=sys.stdout)
        code = 1
    sys.stdout.flush()
    os._exit(code)  # no destructor runs: what was taken over is shared with the process that goes on
