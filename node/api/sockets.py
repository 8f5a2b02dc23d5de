"""A session over a WebSocket: raw bytes in messages, both ways. The socket is closed when the session ends.

The client's closing ends its standard input; a WebSocket has no half-close, so it ends the output as well.
"""

from __future__ import annotations

import asyncio
import contextlib

from aiohttp import WSMsgType, web

from node.api.hijack import Session
from node.api.versions import is_before

MESSAGE_BYTES_MAX = 4 << 20
CLOSE_WAIT_S = 5.0
BINARY_SINCE = "1.28"


async def serve_socket(request: web.Request, session: Session) -> web.StreamResponse:
    socket = web.WebSocketResponse(max_msg_size=MESSAGE_BYTES_MAX, timeout=CLOSE_WAIT_S, compress=False)
    await socket.prepare(request)
    is_binary = not is_before(request, BINARY_SINCE)
    receiving = asyncio.ensure_future(_receive(socket, session))
    sending = asyncio.ensure_future(_send(socket, session, is_binary=is_binary))
    try:
        await asyncio.wait((receiving, sending), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (receiving, sending):
            task.cancel()
        await asyncio.gather(receiving, sending, return_exceptions=True)
        with contextlib.suppress(ConnectionError):
            await socket.close()
    return socket


async def _receive(socket: web.WebSocketResponse, session: Session) -> None:
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await session.write(message.data.encode())
        elif message.type is WSMsgType.BINARY:
            await session.write(message.data)
    await session.close_stdin()


async def _send(socket: web.WebSocketResponse, session: Session, *, is_binary: bool) -> None:
    """Text messages for old clients, in which bytes that are no text are replaced."""
    while (item := await session.read()) is not None:
        if is_binary:
            await socket.send_bytes(item[1])
        else:
            await socket.send_str(item[1].decode(errors="replace"))
