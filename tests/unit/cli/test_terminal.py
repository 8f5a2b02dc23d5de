"""Detach keys, frames, and the pump between a terminal and a container."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from cli.errors import UsageError
from cli.stdcopy import Demultiplexer
from cli.terminal import DetachWatcher, Pump, detach_sequence

KEYS = detach_sequence("ctrl-p,ctrl-q")


def frame(stream: int, payload: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_frames_cut_anywhere(size: int) -> None:
    data = frame(1, b"out") + frame(2, b"") + frame(2, b"error") + frame(1, b"x" * 20)
    demultiplexer = Demultiplexer()
    found = {1: b"", 2: b""}
    for at in range(0, len(data), size):
        for stream, payload in demultiplexer.feed(data[at : at + size]):
            found[stream] += payload
    assert found == {1: b"out" + b"x" * 20, 2: b"error"}


def test_detach_sequences() -> None:
    assert KEYS == b"\x10\x11"
    assert detach_sequence("a,ctrl-[") == b"a\x1b"
    for text in ("", "ctrl-", "ctrl-1", "ab"):
        with pytest.raises(UsageError, match=f'"{text}"'):
            detach_sequence(text)


@pytest.mark.parametrize(
    ("typed", "passed", "detached"),
    [
        ([b"hello"], b"hello", False),
        ([b"x\x10\x11y"], b"x", True),
        ([b"\x10", b"\x11"], b"", True),
        ([b"\x10", b"a"], b"\x10a", False),
        ([b"\x10\x10\x11"], b"\x10", True),
        ([b"\x11\x10"], b"\x11", False),
    ],
)
def test_detach_keys_are_found_and_others_pass(typed: list[bytes], passed: bytes, detached: bool) -> None:
    watcher = DetachWatcher(KEYS)
    out, ended = b"", False
    for piece in typed:
        more, ended = watcher.feed(piece)
        out += more
    assert (out, ended) == (passed, detached)


def test_pump_copies_both_ways_and_ends_with_the_stream(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    ours, theirs = socket.socketpair()
    reader, writer = os.pipe()
    os.write(writer, b"typed")
    os.close(writer)
    saved = os.dup(0)
    os.dup2(reader, 0)
    received = bytearray()

    def container() -> None:
        while data := theirs.recv(100):
            received.extend(data)
        theirs.sendall(frame(1, b"to stdout ") + frame(2, b"to stderr"))
        theirs.close()

    thread = threading.Thread(target=container)
    thread.start()
    try:
        detached = Pump(ours, frame(1, b"first "), stdin=True, frames=True).run()
    finally:
        os.dup2(saved, 0)
        for descriptor in (saved, reader):
            os.close(descriptor)
        thread.join()
        ours.close()
    captured = capfdbinary.readouterr()
    assert not detached
    assert bytes(received) == b"typed"
    assert (captured.out, captured.err) == (b"first to stdout ", b"to stderr")
