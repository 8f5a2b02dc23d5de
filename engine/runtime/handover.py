"""A supervisor's whole state as bytes, for the code that goes on in its place (`reexec`).

The process stays the same, so descriptors are plain numbers, pids stay children and CLOCK_MONOTONIC goes on. A state
carries the version of its format: this code reads STATE_VERSION_MIN to STATE_VERSION. A field that is added has a
default; the version rises with anything that an earlier reader would get wrong by ignoring it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import msgspec

from engine.runtime.records import Record
from engine.runtime.wire import ContainerState, Estate, ExitEvent, LogStyle

STATE_VERSION, STATE_VERSION_MIN = 2, 1


class Unreadable(Exception):
    """This code cannot go on from that state; the message says why."""


class LogState(msgspec.Struct, kw_only=True):
    """`partial`: stream -> a line that has not ended yet. `next_number`: of a line, 0 where they are not counted.

    `waiting`: (stream, time in ns, what was read and not written; None where the stream ended).
    """

    descriptor: int
    partial: dict[int, bytes]
    lost_bytes: int
    next_number: int = 0
    waiting: list[tuple[int, int, bytes | None]] = []


class AttacherState(msgspec.Struct, kw_only=True):
    """`waiting`: framed output that the attacher has not taken; `blocked_since` on CLOCK_MONOTONIC, 0.0 never."""

    descriptor: int
    waiting: bytes
    blocked_since: float


class ExecState(msgspec.Struct, kw_only=True):
    exec_id: str
    pid: int
    pidfd: int
    master: int | None


class SupervisedState(msgspec.Struct, kw_only=True):
    """One container. `estate` is without its filter, which is number `filter` of the supervisor's.

    `pidfd` is -1 once the process was reaped. `outputs`: (stream, descriptor), of a terminal its master.
    `expected` attachments are waited for until `held_until` (CLOCK_MONOTONIC).
    """

    estate: Estate
    filter: int
    pidfd: int
    stdin: int | None
    outputs: list[tuple[int, int]]
    master: int | None
    execs: list[ExecState]
    reaped: bool
    oom_killed: bool
    exit_code: int
    finished_at: float
    log: LogState | None
    attachers: list[AttacherState]
    expected: int
    held_until: float

    def descriptors(self) -> Iterator[int | None]:
        yield from (None if self.reaped else self.pidfd, self.stdin, self.master)
        yield from (descriptor for _, descriptor in self.outputs)
        yield None if self.log is None else self.log.descriptor
        yield from (attacher.descriptor for attacher in self.attachers)
        for made in self.execs:
            yield from (made.pidfd, made.master)


class Handover(msgspec.Struct, kw_only=True):
    """`lock` and `listener` are descriptors. `cgroups`: path -> parents that were made for it. `leaving`: container ->
    group that is not empty yet. `strangers`: ended and not our child -> until when its exit code is waited for.
    """

    version: int
    build: str
    lock: int
    listener: int
    filters: list[bytes]
    containers: list[SupervisedState]
    cgroups: dict[str, tuple[str, ...]]
    leaving: dict[str, str]
    lost: list[ContainerState]
    orphans: list[Record]
    strangers: dict[str, float]
    exec_ends: list[ExitEvent]

    def descriptors(self) -> list[int]:
        """All that the next code needs, each once."""
        found = [self.lock, self.listener]
        for container in self.containers:
            found += [descriptor for descriptor in container.descriptors() if descriptor is not None]
        return sorted(set(found))


def version_of(containers: Iterable[SupervisedState]) -> int:
    """The lowest that reads this right: version 1 knows no style of a log, and would write it in another."""
    return 2 if any(container.estate.log_style != LogStyle() for container in containers) else 1


class _Header(msgspec.Struct):
    version: int
    build: str = ""


def encode(state: Handover) -> bytes:
    return msgspec.msgpack.encode(state)


def decode(data: bytes, build: str) -> Handover:
    """`build`: of the code that reads. Unreadable for another version's state, or a damaged one."""
    try:
        header = msgspec.msgpack.decode(data, type=_Header)
        if not STATE_VERSION_MIN <= header.version <= STATE_VERSION:
            raise Unreadable(
                f"the state of build {header.build or 'unknown'} has version {header.version}, build "
                f"{build or 'unknown'} reads {STATE_VERSION_MIN} to {STATE_VERSION}"
            )
        return msgspec.msgpack.decode(data, type=Handover)
    except msgspec.MsgspecError as error:
        raise Unreadable(f"the state cannot be read: {error}") from error


def store(data: bytes, *, inheritable: bool) -> int:
    """A descriptor of memory that holds `data`."""
    descriptor = os.memfd_create("supervisor-state", 0 if inheritable else os.MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    return descriptor


def fetch(descriptor: int) -> bytes:
    """What `store` wrote, whoever has read it before."""
    size = os.fstat(descriptor).st_size
    data = b""
    while len(data) < size:
        data += os.pread(descriptor, size - len(data), len(data))
    return data
