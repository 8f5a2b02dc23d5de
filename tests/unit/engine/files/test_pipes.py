"""Between the event loop and a thread: ends, errors and cancellation on both sides."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pytest

from engine.files.pipes import PIPE_BYTES, read_by, written_by


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with ThreadPoolExecutor(1) as made:
        yield made
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


async def test_what_a_thread_writes_comes_out(pool: ThreadPoolExecutor) -> None:
    data = os.urandom(3 * PIPE_BYTES)
    got = b"".join([piece async for piece in written_by(pool, lambda file: file.write(data) and None)])
    assert got == data


async def test_an_error_of_the_writer_is_raised_behind_its_data(pool: ThreadPoolExecutor) -> None:
    def work(file: IO[bytes]) -> None:
        file.write(b"some")
        raise OSError("disk")

    got = b""
    with pytest.raises(OSError, match="disk"):
        async for piece in written_by(pool, work):
            got += piece
    assert got == b"some"


async def test_a_reader_that_leaves_ends_the_writer(pool: ThreadPoolExecutor) -> None:
    ended: list[BaseException] = []

    def work(file: IO[bytes]) -> None:
        try:
            while True:
                file.write(bytes(65536))
        except BrokenPipeError as error:
            ended.append(error)
            raise

    stream = written_by(pool, work)
    assert await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    assert len(ended) == 1


async def test_what_comes_in_is_read_to_its_end(pool: ThreadPoolExecutor) -> None:
    got: list[bytes] = []
    await read_by(pool, pieces(b"ab", b"cd", bytes(2 * PIPE_BYTES)), lambda file: got.append(file.read(3)))
    assert got == [b"abc"]


async def test_an_error_of_the_thread_ends_a_sender_that_never_ends(pool: ThreadPoolExecutor) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    def work(file: IO[bytes]) -> None:
        raise ValueError(file.read(1).decode())

    with pytest.raises(ValueError, match="x"):
        await asyncio.wait_for(read_by(pool, endless(), work), 5)


async def test_a_sender_that_breaks_off_is_an_error_also_when_the_thread_was_content(
    pool: ThreadPoolExecutor,
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        await read_by(pool, broken(), lambda file: None)


async def test_cancelling_waits_for_the_thread(pool: ThreadPoolExecutor) -> None:
    done: list[bytes] = []

    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    task = asyncio.ensure_future(read_by(pool, slow(), lambda file: done.append(file.read())))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [b"x"]
