"""Sessions on the standard streams of a process: bytes in both directions, over file descriptors.

A session owns its descriptors and closes them. Reading is by pull, so a slow client holds back only its own
session. Frames on the runtime's attach socket are Docker's: stream byte, three zero bytes, length (u32 be).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from collections.abc import Sequence
from typing import Protocol

STDOUT, STDERR = 1, 2
READ_BYTES_MAX = 65536
EXIT_WAIT_S = 10.0
_HEADER = struct.Struct(">B3xI")


class AttachSession(Protocol):
    """What the API needs of an attachment. `read` returns None at the end."""

    tty: bool
    since_ns: int  # the moment (Unix time) from which on it hears everything; 0: from the beginning

    async def read(self) -> tuple[int, bytes] | None: ...

    async def write(self, data: bytes) -> None: ...

    async def close_stdin(self) -> None: ...

    async def close(self) -> None: ...


async def _ready(fd: int, *, writing: bool = False) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    add = loop.add_writer if writing else loop.add_reader
    remove = loop.remove_writer if writing else loop.remove_reader

    def wake() -> None:
        if not future.done():
            future.set_result(None)

    add(fd, wake)
    try:
        await future
    finally:
        remove(fd)


async def read_fd(fd: int) -> bytes:
    """Up to 64 KiB; b"" at the end (also when a terminal hangs up)."""
    while True:
        try:
            return os.read(fd, READ_BYTES_MAX)
        except BlockingIOError:
            await _ready(fd)
        except OSError:
            return b""


async def write_fd(fd: int, data: bytes) -> None:
    """All of it. BrokenPipeError when nobody reads any more."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            await _ready(fd, writing=True)


class _Input:
    """The writing side, shared by the session classes; closed at most once."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd

    async def write(self, data: bytes) -> None:
        if self._fd is not None:
            try:
                await write_fd(self._fd, data)
            except OSError:
                self.close()

    def close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


class PipeSession:
    """A process whose output comes over pipes, or over one terminal (`tty`, then the fd is used both ways)."""

    def __init__(
        self,
        *,
        tty: bool,
        stdin_fd: int | None,
        outputs: Sequence[tuple[int, int]],
        wanted: frozenset[int] = frozenset((STDOUT, STDERR)),
        ended: asyncio.Event | None = None,
    ) -> None:
        """`outputs`: (stream, fd). All descriptors are owned by the session from now on.

        `wanted`: streams to be heard of; the others are read, so that the process can go on, and dropped.

        `ended`: set when the exit code is known. A reader sees the end of the output only then, because it asks for
        the code next; but not later than `EXIT_WAIT_S`, for a process may close its output and run on.
        """
        self.tty = tty
        self.since_ns = 0
        self._wanted = wanted
        self._ended = ended
        for fd in [fd for _, fd in outputs] + ([stdin_fd] if stdin_fd is not None else []):
            os.set_blocking(fd, False)
        self._input = _Input(stdin_fd)
        self._queue: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue(8)
        self._open = len(outputs)
        self._pumps = [asyncio.ensure_future(self._pump(stream, fd)) for stream, fd in outputs]

    async def read(self) -> tuple[int, bytes] | None:
        while self._open or not self._queue.empty():
            item = await self._queue.get()
            if item is not None:
                return item
            self._open -= 1
        if self._ended is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EXIT_WAIT_S):
                    await self._ended.wait()
        return None

    async def write(self, data: bytes) -> None:
        await self._input.write(data)

    async def close_stdin(self) -> None:
        self._input.close()

    async def close(self) -> None:
        self._input.close()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _pump(self, stream: int, fd: int) -> None:
        try:
            while data := await read_fd(fd):
                if stream in self._wanted:
                    await self._queue.put((stream, data))
            await self._queue.put(None)
        finally:
            os.close(fd)


class FramedSession:
    """A running container's output as the supervisor relays it: frames, or raw bytes with a terminal."""

    def __init__(
        self,
        *,
        tty: bool,
        stdin_fd: int | None,
        output_fd: int,
        streams: frozenset[int],
        since_ns: int = 0,
    ) -> None:
        self.tty = tty
        self.since_ns = since_ns
        self._streams = streams
        self._output_fd = output_fd
        os.set_blocking(output_fd, False)
        if stdin_fd is not None:
            os.set_blocking(stdin_fd, False)
        self._input = _Input(stdin_fd)
        self._buffer = bytearray()
        self._closed = False

    async def read(self) -> tuple[int, bytes] | None:
        while not self._closed:
            if not self.tty:
                frame = self._next_frame()
                if frame is not None:
                    if frame[0] in self._streams:
                        return frame
                    continue
            data = await read_fd(self._output_fd)
            if not data:
                return None
            if self.tty:
                return STDOUT, data
            self._buffer += data
        return None

    def _next_frame(self) -> tuple[int, bytes] | None:
        if len(self._buffer) < _HEADER.size:
            return None
        stream, length = _HEADER.unpack_from(self._buffer)
        end = _HEADER.size + length
        if len(self._buffer) < end:
            return None
        data = bytes(self._buffer[_HEADER.size : end])
        del self._buffer[:end]
        return stream, data

    async def write(self, data: bytes) -> None:
        await self._input.write(data)

    async def close_stdin(self) -> None:
        self._input.close()

    async def close(self) -> None:
        self._input.close()
        if not self._closed:
            self._closed = True
            os.close(self._output_fd)


class PendingSession:
    """Attached before the start: becomes the real session when the container starts, so no byte is lost."""

    def __init__(self, *, tty: bool, stdin: bool, streams: frozenset[int]) -> None:
        self.tty = tty
        self.since_ns = 0
        self.stdin = stdin
        self.streams = streams
        self._session: asyncio.Future[AttachSession | None] = asyncio.get_running_loop().create_future()

    @property
    def is_waiting(self) -> bool:
        return not self._session.done()

    def begin(self, session: AttachSession) -> None:
        self._session.set_result(session)

    def abandon(self) -> None:
        """The container will not start, or the client went away: readers see the end."""
        if not self._session.done():
            self._session.set_result(None)

    async def read(self) -> tuple[int, bytes] | None:
        session = await asyncio.shield(self._session)
        return await session.read() if session else None

    async def write(self, data: bytes) -> None:
        session = await asyncio.shield(self._session)
        if session:
            await session.write(data)

    async def close_stdin(self) -> None:
        session = await asyncio.shield(self._session)
        if session:
            await session.close_stdin()

    async def close(self) -> None:
        self.abandon()
        session = self._session.result()
        if session:
            await session.close()
