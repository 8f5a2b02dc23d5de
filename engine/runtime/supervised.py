"""One container under the supervisor: its process, streams, log, attachers and execs.

Owns these descriptors. Output is pumped while somebody wants it or nobody is attached; it is held before the
first attachments that the start announced, and while an attacher's buffer is full.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Sequence

import msgspec

from engine.runtime.birth import Newborn, Streams
from engine.runtime.fanout import Attacher
from engine.runtime.handover import ExecState, LogState, SupervisedState
from engine.runtime.json_log import JsonLog
from engine.runtime.log_buffer import BufferedLog
from engine.runtime.wire import ContainerState, Estate, StartRequest

READ_BYTES = 64 * 1024
HOLD_S = 10.0


class Exec:
    """A further process in a container; the daemon has its streams, `master` is kept for resizing."""

    __slots__ = ("exec_id", "master", "pid", "pidfd")

    def __init__(self, exec_id: str, pid: int, pidfd: int, master: int | None) -> None:
        self.exec_id = exec_id
        self.pid = pid
        self.pidfd = pidfd
        self.master = master

    def hand_over(self) -> ExecState:
        return ExecState(exec_id=self.exec_id, pid=self.pid, pidfd=self.pidfd, master=self.master)

    def close(self) -> None:
        os.close(self.pidfd)
        if self.master is not None:
            os.close(self.master)


class Poller:
    """What a container needs of the event loop: readable and writable callbacks per descriptor."""

    def watch(self, descriptor: int, on_readable: Callable[[], None]) -> None:
        raise NotImplementedError

    def watch_writable(self, descriptor: int, on_writable: Callable[[], None]) -> None:
        raise NotImplementedError

    def forget(self, descriptor: int) -> None:
        raise NotImplementedError


class Container:
    __slots__ = (
        "_attachers",
        "_expected",
        "_held_until",
        "_log",
        "_poller",
        "_watched",
        "cgroup",
        "estate",
        "execs",
        "exit_code",
        "finished_at",
        "id",
        "oom_killed",
        "pid",
        "pidfd",
        "reaped",
        "streams",
    )

    def __init__(
        self,
        estate: Estate,
        pidfd: int,
        streams: Streams,
        poller: Poller,
        attachments: int,
        log: JsonLog | BufferedLog | None,
    ) -> None:
        """`attachments`: that many are announced; output is held until they came. `log`: where output goes, if at all."""
        self.estate = estate
        self.id, self.cgroup = estate.id, estate.cgroup
        self.pid, self.pidfd = estate.pid, pidfd
        self.streams = streams
        self.execs: dict[str, Exec] = {}
        self.reaped = self.oom_killed = False
        self.exit_code, self.finished_at = 0, 0.0
        self._poller = poller
        self._attachers: list[Attacher] = []
        self._watched = False
        self._expected = attachments
        self._held_until = time.monotonic() + HOLD_S
        self._log = log

    @classmethod
    def started(cls, request: StartRequest, newborn: Newborn, seccomp: bytes, poller: Poller) -> Container:
        estate = Estate(
            id=request.id,
            pid=newborn.pid,
            start_ticks=newborn.start_ticks,
            started_at=newborn.started_at,
            cgroup=request.cgroup,
            tty=request.tty,
            outputs=tuple(stream for stream, _ in newborn.streams.outputs),
            has_stdin=newborn.streams.stdin is not None and not request.stdin_once,
            stdin_once=request.stdin_once,
            log_driver=request.log_driver,
            log_path=request.log_path,
            log_max_size=request.log_max_size,
            log_max_file=request.log_max_file,
            log_style=request.log_style,
            seccomp=seccomp,
        )
        return cls(estate, newborn.pidfd, newborn.streams, poller, request.attachments, _opened_log(estate))

    @classmethod
    def adopted(cls, estate: Estate, descriptors: Sequence[int], poller: Poller) -> Container:
        """Of a supervisor that ended. The descriptors are `estate`'s and belong to the container from now on."""
        pidfd, *rest = descriptors
        outputs = list(zip(estate.outputs, rest, strict=False))
        stdin = rest[len(outputs)] if estate.has_stdin else None
        master = outputs[0][1] if estate.tty and outputs else None
        log = _opened_log(estate)
        if log is not None:
            log.mend()
        return cls(estate, pidfd, Streams(stdin, outputs, master), poller, 0, log)

    @classmethod
    def resumed(cls, state: SupervisedState, seccomp: bytes, poller: Poller) -> Container:
        """Of this very process before it went on as other code (`reexec`). Nothing is watched yet."""
        estate = msgspec.structs.replace(state.estate, seccomp=seccomp)
        streams = Streams(state.stdin, state.outputs, state.master)
        log = None if state.log is None else _opened_log(estate, state.log)
        container = cls(estate, state.pidfd, streams, poller, state.expected, log)
        container.execs = {e.exec_id: Exec(e.exec_id, e.pid, e.pidfd, e.master) for e in state.execs}
        container.reaped, container.oom_killed = state.reaped, state.oom_killed
        container.exit_code, container.finished_at = state.exit_code, state.finished_at
        container._attachers = [Attacher.resumed(a, raw=estate.tty) for a in state.attachers]
        container._held_until = state.held_until
        return container

    def go_on(self) -> None:
        """Watch what `resumed` did not."""
        for attacher in self._attachers:
            if attacher.has_output:
                self._poller.watch_writable(attacher.sock.fileno(), self._writer(attacher))
        self.pump()

    def hand_over(self, filter_number: int) -> SupervisedState:
        """For `resumed`; the descriptors stay this container's."""
        return SupervisedState(
            estate=msgspec.structs.replace(self.estate, seccomp=b""),
            filter=filter_number,
            pidfd=-1 if self.reaped else self.pidfd,
            stdin=self.streams.stdin,
            outputs=list(self.streams.outputs),
            master=self.streams.master,
            execs=[made.hand_over() for made in self.execs.values()],
            reaped=self.reaped,
            oom_killed=self.oom_killed,
            exit_code=self.exit_code,
            finished_at=self.finished_at,
            log=None if self._log is None else self._log.hand_over(),
            attachers=[attacher.hand_over() for attacher in self._attachers],
            expected=self._expected,
            held_until=self._held_until,
        )

    def let_go(self) -> None:
        """What `hand_over` stopped goes on here."""
        if isinstance(self._log, BufferedLog):
            self._log.let_go()

    def bequest(self) -> tuple[Estate, tuple[int, ...]]:
        """The estate as it is now, with new descriptors."""
        outputs = self.streams.outputs
        estate = msgspec.structs.replace(self.estate, outputs=tuple(stream for stream, _ in outputs))
        chosen = [self.pidfd, *(descriptor for _, descriptor in outputs)]
        if estate.has_stdin and self.streams.stdin is not None:
            chosen.append(self.streams.stdin)
        return estate, tuple(os.dup(descriptor) for descriptor in chosen)

    @property
    def running(self) -> bool:
        """Until its end was reported."""
        return self.finished_at == 0.0

    @property
    def is_drained(self) -> bool:
        return not self.streams.outputs

    def state(self) -> ContainerState:
        return ContainerState(
            id=self.id,
            pid=self.pid,
            start_ticks=self.estate.start_ticks,
            started_at=self.estate.started_at,
            running=self.running,
            exit_code=self.exit_code,
            oom_killed=self.oom_killed,
            finished_at=self.finished_at,
        )

    # ---- output -------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Start or stop reading, whichever is right now."""
        wanted = not self._is_held()
        if wanted == self._watched:
            return
        self._watched = wanted
        for stream, descriptor in self.streams.outputs:
            if wanted:
                self._poller.watch(descriptor, self._reader(stream, descriptor))
            else:
                self._poller.forget(descriptor)

    def is_logged(self) -> bool:
        """Once everything was read: whether the log has it too, as far as it ever will."""
        return not isinstance(self._log, BufferedLog) or self._log.is_written(time.monotonic())

    def needs_clock(self) -> bool:
        """Whether `tick` has to be called now and then."""
        is_ending = self.reaped and self.running and self.is_drained
        return self._expected > 0 or is_ending or any(attacher.has_output for attacher in self._attachers)

    def tick(self, now: float) -> None:
        """Time-outs: announced attachments that never came, attachers that take nothing."""
        if self._expected and now > self._held_until:
            self._expected = 0
        for attacher in [attacher for attacher in self._attachers if attacher.is_stalled(now)]:
            self._detach(attacher)
        self.pump()

    def drain(self) -> None:
        """After the last process: what is left in the pipes, then their end."""
        if self._is_held():
            return
        for stream, descriptor in tuple(self.streams.outputs):
            while (stream, descriptor) in self.streams.outputs and not self._is_held():
                if not self._read(stream, descriptor):
                    if not self._is_held():
                        self._end(stream, descriptor)
                    break

    def _is_held(self) -> bool:
        return self._expected > 0 or any(attacher.is_full for attacher in self._attachers)

    def _reader(self, stream: int, descriptor: int) -> Callable[[], None]:
        return lambda: (self._read(stream, descriptor), None)[1]

    def _read(self, stream: int, descriptor: int) -> bool:
        """One portion. False when there is nothing more for now, or for ever."""
        try:
            data = os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""  # a terminal that was hung up
        if not data:
            self._end(stream, descriptor)
            return False
        if self._log is not None:
            self._log.write(stream, data)
        if self._attachers:
            self._fan_out(stream, data)
        return True

    def _end(self, stream: int, descriptor: int) -> None:
        if (stream, descriptor) not in self.streams.outputs:
            return
        if self._watched:
            self._poller.forget(descriptor)
        self.streams.outputs.remove((stream, descriptor))
        if self._log is not None:
            self._log.finish(stream)
        if descriptor != self.streams.master:
            os.close(descriptor)

    def _fan_out(self, stream: int, data: bytes) -> None:
        for attacher in tuple(self._attachers):
            try:
                attacher.put(stream, data)
            except OSError:
                self._detach(attacher)
                continue
            if attacher.has_output:
                self._poller.watch_writable(attacher.sock.fileno(), self._writer(attacher))
        self.pump()

    # ---- attachers ----------------------------------------------------------------------------------------

    def attach(self, *, stdin: bool) -> tuple[socket.socket, int | None]:
        """(the attacher's end of the output, a descriptor for input); both belong to the caller."""
        ours, theirs = socket.socketpair()
        self._attachers.append(Attacher(ours, raw=self.estate.tty))
        self._expected = max(self._expected - 1, 0)
        descriptor = self._input() if stdin else None
        if self.is_drained:
            self._detach(self._attachers[-1])
        self.pump()
        return theirs, descriptor

    def _input(self) -> int | None:
        if self.streams.master is not None:
            return os.dup(self.streams.master)
        if self.streams.stdin is None:
            return None
        if not self.estate.stdin_once:
            return os.dup(self.streams.stdin)
        # Given away: the process sees the end of its input when this attacher closes it.
        given, self.streams.stdin = self.streams.stdin, None
        return given

    def _writer(self, attacher: Attacher) -> Callable[[], None]:
        def write() -> None:
            try:
                attacher.flush()
            except OSError:
                self._detach(attacher)
                self.pump()
                return
            if not attacher.has_output:
                self._poller.forget(attacher.sock.fileno())
                if self.is_drained and self.reaped:
                    self._detach(attacher)
            self.pump()

        return write

    def _detach(self, attacher: Attacher) -> None:
        if attacher in self._attachers:
            self._attachers.remove(attacher)
            self._poller.forget(attacher.sock.fileno())
            attacher.sock.close()

    # ---- the end ------------------------------------------------------------------------------------------

    def finish(self) -> int:
        """Everything was read: attachers see the end as soon as they have taken what is left.

        Returns how many bytes of output the log could not take.
        """
        assert self.is_drained
        lost_bytes = 0
        if self._log is not None:
            self._log.close()
            lost_bytes = self._log.lost_bytes
            self._log = None
        for attacher in tuple(self._attachers):
            if not attacher.has_output:
                self._detach(attacher)
        for descriptor in (self.streams.stdin, self.streams.master):
            if descriptor is not None:
                os.close(descriptor)
        self.streams.stdin = self.streams.master = None
        return lost_bytes

    def discard(self) -> None:
        """The record goes: attachers that have not taken everything by now lose the rest."""
        for attacher in tuple(self._attachers):
            with contextlib.suppress(OSError):
                attacher.flush()
            self._detach(attacher)


def _opened_log(estate: Estate, state: LogState | None = None) -> JsonLog | BufferedLog | None:
    """`state`: of one that is open already."""
    if estate.log_driver != "json-file":
        return None
    style = estate.log_style
    log = JsonLog(estate.log_path, estate.log_max_size, estate.log_max_file, state, style)
    return BufferedLog(log, style.buffer_bytes, state) if style.buffer_bytes else log
