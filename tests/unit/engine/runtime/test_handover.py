"""The state that one build of the supervisor leaves to the next: written, read, refused, and really gone on from."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from engine.runtime import handover
from engine.runtime.birth import Streams
from engine.runtime.handover import (
    STATE_VERSION,
    AttacherState,
    ExecState,
    Handover,
    LogState,
    SupervisedState,
    Unreadable,
)
from engine.runtime.json_log import JsonLog
from engine.runtime.records import Record
from engine.runtime.supervised import Container, Poller
from engine.runtime.wire import ContainerState, Estate, ExitEvent, LogStyle

VERSION_1 = Path(__file__).parents[3] / "data/supervisor_state_1.msgpack"


def estate(**changes: object) -> Estate:
    made = Estate(
        id="web",
        pid=4711,
        start_ticks=99,
        started_at=1_700_000_000.5,
        cgroup="swarmctl/web",
        tty=False,
        outputs=(1, 2),
        has_stdin=True,
        stdin_once=False,
        log_driver="json-file",
        log_path="/var/lib/swarmctl/containers/web/web-json.log",
        log_max_size=1000,
        log_max_file=3,
        seccomp=b"",
    )
    return msgspec.structs.replace(made, **changes)


def state() -> Handover:
    """One of everything."""
    web = SupervisedState(
        estate=estate(),
        filter=0,
        pidfd=10,
        stdin=11,
        outputs=[(1, 12), (2, 13)],
        master=None,
        execs=[ExecState(exec_id="e", pid=4712, pidfd=14, master=15)],
        reaped=False,
        oom_killed=False,
        exit_code=0,
        finished_at=0.0,
        log=LogState(descriptor=16, partial={1: b"half a \xff", 2: b""}, lost_bytes=3),
        attachers=[AttacherState(descriptor=17, waiting=b"\x01frame", blocked_since=5.5)],
        expected=1,
        held_until=123.25,
    )
    terminal = SupervisedState(
        estate=estate(id="tty", tty=True, outputs=(1,), log_driver="none"),
        filter=1,
        pidfd=-1,
        stdin=None,
        outputs=[(1, 18)],
        master=18,
        execs=[],
        reaped=True,
        oom_killed=True,
        exit_code=137,
        finished_at=0.0,
        log=None,
        attachers=[],
        expected=0,
        held_until=0.0,
    )
    return Handover(
        version=1,
        build="0.1.0+0123456789ab",
        lock=3,
        listener=4,
        filters=[b"\x06\x00", b""],
        containers=[web, terminal],
        cgroups={"swarmctl/web": ("swarmctl",)},
        leaving={"gone": "swarmctl/gone"},
        lost=[
            ContainerState(
                id="lost", pid=7, start_ticks=1, started_at=1.0, running=False, exit_code=137, finished_at=2.0
            )
        ],
        orphans=[
            Record(
                id="orphan", pid=8, start_ticks=2, started_at=3.0, cgroup="swarmctl/orphan", cgroup_parents=()
            )
        ],
        strangers={"tty": 77.5},
        exec_ends=[ExitEvent(id="web", exec_id="d", pid=9, exit_code=1, oom_killed=False, finished_at=4.0)],
    )


def test_a_state_is_read_as_it_was_written() -> None:
    assert handover.decode(handover.encode(state()), "any") == state()


def test_the_state_of_version_1_is_still_read() -> None:
    """The file was written by the first build that could hand over; it must never be written anew."""
    assert handover.decode(VERSION_1.read_bytes(), "any") == state()


def test_a_state_has_the_lowest_version_that_reads_it_right() -> None:
    plain = state().containers
    assert handover.version_of(plain) == 1
    styled = estate(log_style=LogStyle(numbered=True))
    web = msgspec.structs.replace(plain[0], estate=styled)
    assert handover.version_of([web, plain[1]]) == 2 == STATE_VERSION


def test_what_a_log_had_not_written_is_part_of_the_state() -> None:
    made = state()
    log = LogState(
        descriptor=16, partial={}, lost_bytes=0, next_number=8, waiting=[(1, 5, b"x"), (1, 6, None)]
    )
    made.containers[0].log = log
    assert handover.decode(handover.encode(made), "any").containers[0].log == log


def test_every_descriptor_is_handed_over_once() -> None:
    assert state().descriptors() == [3, 4, 10, 11, 12, 13, 14, 15, 16, 17, 18]


@pytest.mark.parametrize("version", [0, STATE_VERSION + 1])
def test_another_version_is_refused_by_name(version: int) -> None:
    data = handover.encode(msgspec.structs.replace(state(), version=version))
    with pytest.raises(Unreadable) as refusal:
        handover.decode(data, "0.0.9+aa")
    assert f"the state of build 0.1.0+0123456789ab has version {version}" in str(refusal.value)
    assert "build 0.0.9+aa reads 1 to 2" in str(refusal.value)


def test_a_newer_version_is_refused_whatever_else_it_has() -> None:
    data = msgspec.msgpack.encode({"version": STATE_VERSION + 1, "build": "9+b", "all": "different"})
    with pytest.raises(Unreadable, match="the state of build 9"):
        handover.decode(data, "")


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", handover.encode(state())[:-1], msgspec.msgpack.encode({"version": 1})]
)
def test_a_damaged_state_is_refused(data: bytes) -> None:
    with pytest.raises(Unreadable, match="cannot be read"):
        handover.decode(data, "")


def test_memory_is_read_whole_by_everybody() -> None:
    data = os.urandom(300_000)
    descriptor = handover.store(data, inheritable=False)
    try:
        assert (handover.fetch(descriptor), handover.fetch(descriptor)) == (data, data)
        assert not os.get_inheritable(descriptor)
    finally:
        os.close(descriptor)


class Watched(Poller):
    """Callbacks by descriptor; the test plays the kernel."""

    def __init__(self) -> None:
        self.callbacks: dict[int, Callable[[], None]] = {}

    def watch(self, descriptor: int, on_readable: Callable[[], None]) -> None:
        self.callbacks[descriptor] = on_readable

    def watch_writable(self, descriptor: int, on_writable: Callable[[], None]) -> None:
        self.callbacks[descriptor] = on_writable

    def forget(self, descriptor: int) -> None:
        self.callbacks.pop(descriptor, None)


def test_a_container_goes_on_in_the_middle_of_a_line_and_of_a_full_buffer(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    log = JsonLog(str(tmp_path / "log"), 0, 1)
    before = Watched()
    first = Container(
        estate(outputs=(1,), log_path=str(tmp_path / "log"), tty=True),
        -1,
        Streams(None, [(1, reading)]),
        before,
        0,
        log,
    )
    theirs, _ = first.attach(stdin=False)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    first.pump()
    sent = b"".join(b"%d\n" % n for n in range(120_000)) + b"half"
    for start in range(0, len(sent), 50_000):
        os.write(writing, sent[start : start + 50_000])
        before.callbacks[reading]()

    handed = first.hand_over(0)
    assert handed.log is not None and handed.log.partial == {1: b"half"}
    assert len(handed.attachers[0].waiting) > 100_000
    first._attachers[0].sock.detach()  # what execve does to the object
    after = Watched()
    copied = msgspec.msgpack.decode(msgspec.msgpack.encode(handed), type=SupervisedState)
    second = Container.resumed(copied, b"", after)
    second.go_on()
    os.write(writing, b" a line\n")
    os.close(writing)
    after.callbacks[reading]()
    received = b""
    theirs.setblocking(False)
    while len(received) < len(sent) + len(b" a line\n"):
        try:
            received += theirs.recv(65536)
        except BlockingIOError:
            after.callbacks[handed.attachers[0].descriptor]()
    assert received == sent + b" a line\n"
    after.callbacks[reading]()
    second.reaped = True
    second.finish()
    theirs.setblocking(True)
    assert theirs.recv(1) == b""
    theirs.close()
    assert (tmp_path / "log").read_text().splitlines()[-1].startswith('{"log":"half a line\\n"')
