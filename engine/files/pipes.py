"""Between the event loop and a thread that reads or writes an archive: a pipe, so neither can run ahead of the other.

Invariant: when one side gives up, the other one hears of it (the end, or a broken pipe), and the thread is waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from typing import IO

from engine.attach import read_fd, write_fd

PIPE_BYTES = 1 << 20


async def written_by(pool: Executor, work: Callable[[IO[bytes]], None]) -> AsyncIterator[bytes]:
    """What `work` writes, in pieces; then its error, if any, is raised."""
    reading, writing = _pipe()
    os.set_blocking(reading, False)

    def run() -> None:
        with os.fdopen(writing, "wb") as target:
            work(target)

    done = asyncio.get_running_loop().run_in_executor(pool, run)
    try:
        while piece := await read_fd(reading):
            yield piece
        await asyncio.shield(done)
    finally:
        os.close(reading)
        await _settled(done)


async def read_by(pool: Executor, source: AsyncIterator[bytes], work: Callable[[IO[bytes]], None]) -> None:
    """Let `work` read what comes from `source`; returns when it has returned. Its error counts before the source's."""
    reading, writing = _pipe()
    os.set_blocking(writing, False)

    def run() -> None:
        with os.fdopen(reading, "rb", buffering=PIPE_BYTES) as file:
            work(file)
            while file.read(PIPE_BYTES):  # the padding behind the end of an archive
                pass

    done = asyncio.get_running_loop().run_in_executor(pool, run)
    feeding = asyncio.ensure_future(_feed(source, writing))
    try:
        await asyncio.wait((done, feeding), return_when=asyncio.FIRST_COMPLETED)
    finally:
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        await _settled(done)
    await done
    if not feeding.cancelled():
        feeding.result()


async def _feed(source: AsyncIterator[bytes], writing: int) -> None:
    try:
        with contextlib.suppress(BrokenPipeError):  # the reader has given up, and tells why
            async for piece in source:
                await write_fd(writing, piece)
    finally:
        os.close(writing)


async def _settled(done: asyncio.Future[None]) -> None:
    """The thread has ended, also when we are cancelled meanwhile: it uses what the caller is about to close."""
    cancelled = False
    while not done.done():
        try:
            await asyncio.wait((done,))
        except asyncio.CancelledError:
            cancelled = True
    if not done.cancelled():
        done.exception()
    if cancelled:
        raise asyncio.CancelledError


def _pipe() -> tuple[int, int]:
    reading, writing = os.pipe2(os.O_CLOEXEC)
    with contextlib.suppress(OSError):  # more than this user may have: the common size does as well
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return reading, writing
