"""Starting processes: descriptors, terminal, control group, then the program. Runs in spawn threads.

Invariant: whatever fails, nothing of it is left: no descriptor, no control group, no process.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

import msgspec

from engine.runtime import spawn, terminal
from engine.runtime.cgroup import Cgroups, Membership
from engine.runtime.wire import ExecRequest, ForeignStart, StartRequest

PIPE_BYTES = 256 * 1024
_F_SETPIPE_SZ = 1031


class Streams(msgspec.Struct):
    """Our ends: `stdin` to write to (or None), `outputs` (stream, descriptor); `master` is a terminal."""

    stdin: int | None
    outputs: list[tuple[int, int]]
    master: int | None = None

    def close(self) -> None:
        for descriptor in {*(fd for _, fd in self.outputs), self.stdin, self.master} - {None}:
            assert descriptor is not None
            os.close(descriptor)


class Newborn(msgspec.Struct):
    pid: int
    pidfd: int
    start_ticks: int
    started_at: float
    streams: Streams


class Midwife:
    """Owns what all starts share: the control groups, /dev/null and this process's own pid namespace."""

    def __init__(self, cgroups: Cgroups) -> None:
        self.cgroups = cgroups
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._own_pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)

    def start(self, request: StartRequest) -> Newborn:
        if request.foreign is not None:
            return self._start_foreign(request, request.foreign)
        with contextlib.ExitStack() as undo, contextlib.ExitStack() as always:
            membership = self.cgroups.create(request.cgroup, request.resources)
            undo.callback(self.cgroups.remove, request.cgroup)
            always.callback(membership.close)
            pid_namespace = -1
            if request.pid_namespace:
                pid_namespace = os.open(request.pid_namespace, os.O_RDONLY | os.O_CLOEXEC)
                always.callback(os.close, pid_namespace)
            made = terminal.new_terminal(request.console_size) if request.tty else None
            streams, theirs = self._streams(made, stdin=request.stdin, always=always)
            undo.callback(streams.close)
            registers = [*theirs, made.mount if made else -1]
            newborn = self._born(
                request.program, registers, request.clone_flags, membership, pid_namespace, streams
            )
            undo.pop_all()
            return newborn

    def _start_foreign(self, request: StartRequest, start: ForeignStart) -> Newborn:
        """The runtime sets the limits in the control group, which is ours from the beginning to the end."""
        from engine.runtime import foreign  # most supervisors never need it

        with contextlib.ExitStack() as undo, contextlib.ExitStack() as always:
            self.cgroups.create(request.cgroup, {}).close()
            undo.callback(self.cgroups.remove, request.cgroup)
            if request.tty:
                streams, theirs = Streams(None, []), [self._null] * 3
            else:
                streams, theirs = self._streams(None, stdin=request.stdin, always=always)
            undo.callback(streams.close)
            started_at = time.time()
            pid, pidfd, master = foreign.run(request.id, start, theirs, request.console_size, tty=request.tty)
            if master is not None:
                streams = Streams(None, [(1, master)], master)
            undo.pop_all()
            return Newborn(pid, pidfd, start_ticks(pid), started_at, streams)

    def exec(self, request: ExecRequest, cgroup: str, pid: int, pidfd: int) -> Newborn:
        """`pid` and `pidfd` are the container's first process, which the caller has not reaped yet."""
        with contextlib.ExitStack() as undo, contextlib.ExitStack() as always:
            membership = self.cgroups.membership(cgroup)
            always.callback(membership.close)
            made = terminal.terminal_in(pid, request.console_size) if request.tty else None
            streams, theirs = self._streams(made, stdin=request.stdin, always=always)
            undo.callback(streams.close)
            registers = [*theirs, -1, pidfd]
            newborn = self._born(request.program, registers, 0, membership, pidfd, streams)
            undo.pop_all()
            return newborn

    def _born(
        self,
        program: bytes,
        registers: list[int],
        clone_flags: int,
        membership: Membership,
        pid_namespace: int,
        streams: Streams,
    ) -> Newborn:
        started_at = time.time()
        born = spawn.spawn(
            program,
            registers,
            clone_flags=clone_flags,
            join=membership.join,
            cgroup=membership.into,
            pid_namespace=pid_namespace,
            own_pid_namespace=self._own_pid_namespace,
        )
        return Newborn(born.pid, born.pidfd, start_ticks(born.pid), started_at, streams)

    def _streams(
        self, made: terminal.Terminal | None, *, stdin: bool, always: contextlib.ExitStack
    ) -> tuple[Streams, list[int]]:
        """Our ends, and the three that the process gets (closed here when it has them)."""
        if made is not None:
            always.callback(os.close, made.slave)
            if made.mount >= 0:
                always.callback(os.close, made.mount)
            os.set_blocking(made.master, False)
            return Streams(None, [(1, made.master)], made.master), [made.slave] * 3
        source, sink = os.pipe2(os.O_CLOEXEC) if stdin else (self._null, None)
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        error_read, error_write = os.pipe2(os.O_CLOEXEC)
        if stdin:
            always.callback(os.close, source)
        always.callback(os.close, out_write)
        always.callback(os.close, error_write)
        for descriptor in (out_read, error_read):
            os.set_blocking(descriptor, False)
        return Streams(sink, [(1, out_read), (2, error_read)]), [source, out_write, error_write]


def start_ticks(pid: int) -> int:
    """Start time of a process in clock ticks since boot; 0 when it has gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[19])
    except OSError:
        return 0


def exit_code_of(info: Any) -> int:
    """Docker's exit code from the result of waitid."""
    return int(info.si_status) if info.si_code == os.CLD_EXITED else 128 + int(info.si_status)
