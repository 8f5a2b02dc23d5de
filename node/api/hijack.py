"""Taking over a connection for attach and exec: raw bytes both ways after the response head.

The client's half-close ends the standard input only. Output without a terminal is framed as Docker does
(stream byte, three zero bytes, length as u32 be).
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import web

from engine.errors import EngineError
from node.api.takeover import TakeoverHandler
from node.api.versions import is_before

_HEADER = struct.Struct(">B3xI")
_RAW = "application/vnd.docker.raw-stream"
_MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
INPUT_BUFFER_BYTES = 1 << 20
FIRST_OUTPUT_S = 0.003
HEAD_SENT = web.RequestKey("head-sent", bool)  # in a request whose response head has gone out


class Session(Protocol):
    tty: bool

    async def read(self) -> tuple[int, bytes] | None: ...

    async def write(self, data: bytes) -> None: ...

    async def close_stdin(self) -> None: ...

    async def close(self) -> None: ...


def frame(stream: int, data: bytes) -> bytes:
    return _HEADER.pack(stream, len(data)) + data


class _Connection(asyncio.streams.FlowControlMixin):
    """The client's side after the take-over. Reading is paused while the process does not read."""

    def __init__(
        self, transport: asyncio.Transport, served: asyncio.BaseProtocol, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(loop)
        self._served = served  # the HTTP server's side, which must hear of the end
        self.reader = asyncio.StreamReader(limit=INPUT_BUFFER_BYTES, loop=loop)
        self.reader.set_transport(transport)
        self.gone = asyncio.Event()
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.reader.feed_data(data)

    def eof_received(self) -> bool:
        self.reader.feed_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._served.connection_lost(exc)
        self.gone.set()
        if not self.reader.at_eof():
            self.reader.feed_eof()

    async def write(self, data: bytes) -> None:
        if self._transport.is_closing():
            raise ConnectionResetError("the client has gone")
        self._transport.write(data)
        await self._drain_helper()  # type: ignore[attr-defined]


async def hijack(
    request: web.Request, *, tty: bool, open_session: Callable[[], Awaitable[Session]]
) -> web.StreamResponse:
    """Serve a session over the request's own connection until both sides have ended.

    The head goes out before the session is opened, and output not within FIRST_OUTPUT_S of it: clients read the
    head through a buffer, and what had come along with it would be lost to them. Input that a client sends along
    with its request, before it has seen the head, is kept. A session that cannot be opened is reported in the stream, as
    Docker does.
    """
    transport = request.transport
    if not isinstance(transport, asyncio.Transport):
        raise ConnectionResetError("the client left while its session was opened")
    content_type = _RAW if tty or is_before(request, "1.42") else _MULTIPLEXED
    if request.headers.get("Upgrade"):
        head = f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {content_type}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    else:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n\r\n"
    connection = _taken_over(transport)
    request[HEAD_SENT] = True
    with contextlib.suppress(ConnectionError):
        await connection.write(head.encode())
        earliest = asyncio.get_running_loop().time() + FIRST_OUTPUT_S
        try:
            session = await open_session()
        except EngineError as error:
            text = f"{error}\r\n".encode()
            await connection.write(text if tty else frame(2, text))
        else:
            await asyncio.sleep(earliest - asyncio.get_running_loop().time())
            try:
                await _pump(connection, session)
            finally:
                await session.close()
    transport.close()
    return web.Response()


def _taken_over(transport: asyncio.Transport) -> _Connection:
    """The connection is ours from now on, with what the HTTP server has already read of the raw stream."""
    served = transport.get_protocol()
    connection = _Connection(transport, served, asyncio.get_running_loop())
    transport.set_protocol(connection)
    if isinstance(served, TakeoverHandler):
        early, is_over = served.take_early()
        connection.reader.feed_data(early)
        if is_over:
            connection.reader.feed_eof()
    return connection


async def _pump(connection: _Connection, session: Session) -> None:
    stdin = asyncio.ensure_future(_copy_input(connection, session))
    output = asyncio.ensure_future(_copy_output(connection, session))
    gone = asyncio.ensure_future(connection.gone.wait())
    try:
        await asyncio.wait((output, gone), return_when=asyncio.FIRST_COMPLETED)
        if output.done() and not output.cancelled():
            error = output.exception()
            if isinstance(error, Exception) and not isinstance(error, ConnectionError):
                raise error
    finally:
        for task in (stdin, output, gone):
            task.cancel()
        await asyncio.gather(stdin, output, gone, return_exceptions=True)


async def _copy_input(connection: _Connection, session: Session) -> None:
    while data := await connection.reader.read(65536):
        await session.write(data)
    await session.close_stdin()


async def _copy_output(connection: _Connection, session: Session) -> None:
    while (item := await session.read()) is not None:
        stream, data = item
        await connection.write(data if session.tty else frame(stream, data))
