"""TLS in front of the API: a listener whose connections are decrypted and passed on to the HTTP server.

asyncio's own TLS ends a connection when its client ends one direction. Clients of attach and exec do that after
their input and then read on, so both directions are ended apart here: each connection has a pair of sockets, whose
inner end the HTTP server takes for a local client's. Reading waits for writing, so that nothing piles up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl

from aiohttp import web

logger = logging.getLogger(__name__)

HANDSHAKE_S = 10.0
CONNECTIONS_MAX = 1024
_BLOCK = 65536
_NOT_TLS = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"


class TlsDoor:
    """`open` listens, `close` ends the listener and every connection."""

    def __init__(self, server: web.Server, context: ssl.SSLContext) -> None:
        self._http = server
        self._context = context
        self._listener: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def open(self, listening: socket.socket) -> None:
        self._listener = await asyncio.start_server(self._accept, sock=listening)

    async def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        serving = tuple(self._serving)
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        if self._listener is not None:
            await self._listener.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._serving) >= CONNECTIONS_MAX:
            logger.warning("%d TLS clients are connected: another one was sent away", CONNECTIONS_MAX)
            writer.transport.abort()
            return
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(reader, writer, self._context)
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                await connection.shake_hands()
            await self._pass_on(connection)
        except (ssl.SSLError, TimeoutError) as error:
            peer = writer.get_extra_info("peername")
            logger.info("TLS client %s was refused: %s", peer and peer[0], error or "no handshake in time")
        except ConnectionError:
            logger.debug("a TLS client went away")
        finally:
            writer.close()

    async def _pass_on(self, connection: _Connection) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(self._http, theirs)
        except BaseException:
            ours.close()
            theirs.close()
            raise
        inner_reader, inner_writer = await asyncio.open_connection(sock=ours)
        inbound = asyncio.ensure_future(connection.receive_into(inner_writer))
        try:
            await connection.send_from(inner_reader)
        finally:
            inbound.cancel()
            await asyncio.gather(inbound, return_exceptions=True)
            inner_writer.close()


class _Connection:
    """One client: encrypted bytes outside, plain ones inside."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext
    ) -> None:
        self._reader, self._writer = reader, writer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    async def shake_hands(self) -> None:
        """SSLError when the client's certificate is none of ours; it is told so."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                data = await self._reader.read(_BLOCK)
                if not data:
                    raise ConnectionResetError("the client left before TLS was agreed on") from None
                self._incoming.write(data)
            except ssl.SSLError as error:
                with contextlib.suppress(ConnectionError):
                    await self._flush()
                    if error.reason == "HTTP_REQUEST":
                        self._writer.write(_NOT_TLS)
                raise
            else:
                await self._flush()
                return

    async def receive_into(self, inner: asyncio.StreamWriter) -> None:
        """Until the client is gone. The end of its own direction is passed on as such."""
        has_ended = False
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while True:
                while not has_ended:
                    try:
                        data = self._tls.read(_BLOCK)
                    except ssl.SSLWantReadError:
                        break
                    except ssl.SSLZeroReturnError:  # instead of nothing, when we have ended first
                        data = b""
                    if data:
                        inner.write(data)
                        await inner.drain()
                    else:
                        has_ended = True
                        inner.write_eof()
                await self._flush()  # answers of the protocol itself, such as new keys
                encrypted = await self._reader.read(_BLOCK)
                if not encrypted:
                    break
                self._incoming.write(encrypted)
        inner.close()  # gone: whoever serves it hears of the end

    async def send_from(self, inner: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await inner.read(_BLOCK):
                self._tls.write(data)
                await self._flush()
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()  # says that this was all, and wants to hear the same
            await self._flush()

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            self._writer.write(data)
            await self._writer.drain()
