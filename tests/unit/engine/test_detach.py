"""Detach keys, and attachments that begin with the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from engine.attach_logs import LoggedSession
from engine.config import LogRecord
from engine.detach import DetachableSession, detach_keys, detachable
from engine.errors import InvalidParameter


class Session:
    """Remembers what is written; its output is what `outputs` holds, then it is silent."""

    def __init__(self, *outputs: bytes, tty: bool = True, since_ns: int = 0) -> None:
        self.tty, self.since_ns = tty, since_ns
        self.outputs = list(outputs)
        self.written = b""
        self.stdin_closed = False

    async def read(self) -> tuple[int, bytes] | None:
        if not self.outputs:
            await asyncio.Event().wait()
        return 1, self.outputs.pop(0)

    async def write(self, data: bytes) -> None:
        self.written += data

    async def close_stdin(self) -> None:
        self.stdin_closed = True

    async def close(self) -> None: ...


@pytest.mark.parametrize(
    ("text", "keys"), [("", b""), ("ctrl-p,ctrl-q", b"\x10\x11"), ("a,ctrl-@", b"a\0"), ("ctrl-[", b"\x1b")]
)
def test_keys_are_the_bytes_that_they_send(text: str, keys: bytes) -> None:
    assert detach_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-1", "ab", "a,,b", "é", "ctrl-ab"])
def test_keys_that_there_are_not_are_named(text: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid detach keys"):
        detach_keys(text)


async def test_the_keys_end_the_reading_and_are_not_passed_on() -> None:
    inner, left = Session(), []
    session = DetachableSession(inner, b"\x10\x11", lambda: left.append(1))
    reading = asyncio.ensure_future(session.read())
    await session.write(b"ab\x10")
    assert inner.written == b"ab"
    await session.write(b"c\x10\x10")
    assert inner.written == b"ab\x10c\x10"
    await session.write(b"\x11rest")
    assert await asyncio.wait_for(reading, 1) is None
    await session.close_stdin()
    assert (inner.written, inner.stdin_closed, left) == (b"ab\x10c\x10", False, [1])


async def test_without_a_terminal_input_is_data() -> None:
    inner = Session(tty=False)
    assert detachable(inner, b"x", lambda: None) is inner


async def test_the_log_comes_first_and_only_as_far_as_the_session_did_not_hear_it() -> None:
    async def batches() -> AsyncGenerator[list[LogRecord], None]:
        yield [LogRecord(1, 5, b"a\n"), LogRecord(2, 9, b"b\n")]
        yield [LogRecord(1, 10, b"c\n")]

    session = LoggedSession(Session(b"c\n", since_ns=10), batches(), follows=True)
    assert [await session.read() for _ in range(3)] == [(1, b"a\n"), (2, b"b\n"), (1, b"c\n")]
    alone = LoggedSession(Session(since_ns=10), batches(), follows=False)
    assert [await alone.read() for _ in range(3)] == [(1, b"a\n"), (2, b"b\n"), None]
