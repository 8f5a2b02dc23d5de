"""Frames of calls over a transport that only remembers: order, bounds, reassembly, and what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from node import call_frames
from node.call_frames import (
    ANSWER,
    FRAME_BYTES_MAX,
    PART,
    PART_BYTES,
    FrameConnection,
    FrameError,
    Incoming,
    Outgoing,
    split_total,
)


class Wire(asyncio.Transport):
    """`full`: says after each write that it has enough."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.protocol: FrameConnection | None = None
        self.full = False
        self.aborted = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        assert name == "socket"
        return self

    def setsockopt(self, *option: int) -> None: ...

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def write(self, data: Any) -> None:
        self.written.append(data)
        if self.full and self.protocol is not None:
            self.protocol.pause_writing()

    def abort(self) -> None:
        self.aborted = True


class End(FrameConnection):
    def __init__(self, wire: Wire) -> None:
        super().__init__("the peer")
        self.frames: list[tuple[int, int, bytes]] = []
        self.lost: list[Exception] = []
        self.refuse = False
        wire.protocol = self
        self.connection_made(wire)

    def on_frame(self, kind: int, number: int, data: bytes) -> None:
        if self.refuse:
            raise FrameError("not today")
        self.frames.append((kind, number, data))

    def on_lost(self, error: Exception) -> None:
        self.lost.append(error)


def numbers(wire: Wire) -> list[int]:
    """Of the messages whose frames were written, in order."""
    reader = End(Wire())
    reader.data_received(b"".join(wire.written))
    return [number for _, number, _ in reader.frames]


async def turn() -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_messages_arrive_whatever_the_pieces() -> None:
    wire, bodies = Wire(), {1: b"", 2: b"x", 3: bytes(PART_BYTES), 4: b"y" * (3 * PART_BYTES + 5)}
    sender = End(wire)
    for number, body in bodies.items():
        sender.send(Outgoing(ANSWER, number, body))
    await turn()
    sent = b"".join(wire.written)
    for step in (1000, 7, PART_BYTES, len(sent)):
        reader = End(Wire())
        for start in range(0, len(sent), step):
            reader.data_received(sent[start : start + step])
        incoming: dict[int, Incoming] = {}
        complete = {}
        for kind, number, data in reader.frames:
            if kind == ANSWER:
                total, data = split_total(data)
                incoming[number] = Incoming(kind, total)
            if incoming[number].add(data):
                complete[number] = incoming[number].body()
        assert complete == bodies


async def test_one_turn_of_the_loop_is_one_write() -> None:
    wire = Wire()
    sender = End(wire)
    for number in range(50):
        sender.send(Outgoing(ANSWER, number, b"small"))
    assert wire.written == []
    await turn()
    assert len(wire.written) == 1
    assert numbers(wire) == list(range(50))


async def test_small_ones_pass_large_ones_which_take_turns() -> None:
    wire = Wire()
    wire.full = True
    sender = End(wire)
    for number in (1, 2):
        sender.send(Outgoing(ANSWER, number, bytes(3 * PART_BYTES)))
    await turn()
    assert numbers(wire) == [1]
    sender.send(Outgoing(ANSWER, 3, b"small"))
    await turn()
    assert numbers(wire) == [1], "the transport has enough"
    for _ in range(5):
        sender.resume_writing()
    assert numbers(wire) == [1, 3, 2, 1, 2, 1, 2]
    assert sender.waiting_bytes == 0


async def test_large_ones_do_not_starve() -> None:
    wire = Wire()
    wire.full = True
    sender = End(wire)
    sender.send(Outgoing(ANSWER, 0, bytes(4 * PART_BYTES)))
    for number in range(1, 5):
        sender.send(Outgoing(ANSWER, number, b"small"))
        sender.resume_writing()
    assert numbers(wire).count(0) == 4


async def test_what_waits_is_counted_and_can_be_withdrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_frames, "WAITING_BYTES_MAX", 4 * PART_BYTES)
    wire = Wire()
    wire.full = True
    sender = End(wire)
    begun, waiting = (Outgoing(ANSWER, number, bytes(2 * PART_BYTES)) for number in (1, 2))
    for message in (begun, waiting):
        assert sender.has_room(2 * PART_BYTES)
        sender.send(message)
    assert not sender.has_room(1)
    await turn()
    assert (begun.started, waiting.started) == (True, False)
    assert sender.waiting_bytes == 3 * PART_BYTES
    for message in (begun, waiting):
        sender.withdraw(message)
    assert sender.waiting_bytes == 0
    sender.resume_writing()
    assert numbers(wire) == [1]


async def test_peer_that_never_reads_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_frames, "WAITING_MESSAGES_MAX", 10)
    wire = Wire()
    sender = End(wire)
    sender.pause_writing()
    for number in range(20):
        sender.send(Outgoing(ANSWER, number, b""))
    assert wire.aborted and not sender.is_open
    assert [str(error) for error in sender.lost] == [
        "the connection was closed, since the peer does not read: 10 messages wait"
    ]


async def test_long_frames_are_refused_before_they_are_there() -> None:
    wire = Wire()
    reader = End(wire)
    reader.data_received((FRAME_BYTES_MAX + 1).to_bytes(4, "big") + bytes(5))
    assert wire.aborted and reader.frames == []
    assert f"the limit is {FRAME_BYTES_MAX}" in str(reader.lost[0])


async def test_nothing_is_taken_after_a_refused_frame() -> None:
    wire = Wire()
    reader = End(wire)
    reader.refuse = True
    frame = (0).to_bytes(4, "big") + bytes([PART]) + bytes(4)
    reader.data_received(frame + frame)
    reader.refuse = False
    reader.data_received(frame)
    reader.connection_lost(None)
    assert wire.aborted and reader.frames == [] and len(reader.lost) == 1


def test_more_than_announced_is_refused() -> None:
    incoming = Incoming(ANSWER, 3)
    assert not incoming.add(b"ab")
    with pytest.raises(FrameError, match="1 bytes more than the 3"):
        incoming.add(b"cd")
    with pytest.raises(FrameError):
        split_total(b"abc")
