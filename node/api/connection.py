"""What stands between a client's socket and the HTTP server: it keeps the input of sessions apart from requests.

A client may send a session's input right behind the request that asks for the session (attach, exec start),
before it has seen the answer. An HTTP server takes such bytes for the next request; here they wait until the
session takes them, or until it is clear that there will be none and they are a request after all.
"""

from __future__ import annotations

import asyncio
import re

from aiohttp import web

from node.api.framing import RequestFraming

HELD_BYTES_MAX = 1 << 20  # then the client waits
_SESSION = re.compile(rb"POST (?:/v[0-9.]+)?/(?:containers/[^/? ]+/attach|exec/[^/? ]+/start)(?:\?[^ ]*)? ")


class HttpConnection(asyncio.Protocol):
    """One connection of the API; `server` is aiohttp's protocol for it."""

    def __init__(self, server: web.RequestHandler) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._framing = RequestFraming(lambda head: _SESSION.match(head) is not None)
        self._held = bytearray()
        self.ended = False  # the client has closed its side while a session was asked for

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport), "a stream has a two-way transport"
        self._transport = transport
        self._server.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if not self._framing.stopped:
            end = self._framing.feed(data)
            self._server.data_received(data[:end])
            data = data[end:]
        self._held += data
        if len(self._held) > HELD_BYTES_MAX and self._transport is not None:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """True keeps the connection open for the answer."""
        if self._framing.stopped:
            self.ended = True
        else:
            self._server.eof_received()
        return self.ended

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._server.connection_lost(exc)

    def pause_writing(self) -> None:
        self._server.pause_writing()

    def resume_writing(self) -> None:
        self._server.resume_writing()

    def hand_over(self, successor: asyncio.Protocol) -> None:
        """`successor` gets what has arrived behind the request, and the connection from now on."""
        if self._transport is None:
            raise ConnectionResetError("the client has gone")
        self._transport.set_protocol(successor)
        self._transport.resume_reading()
        if self._held:
            successor.data_received(bytes(self._held))
        if self.ended:
            successor.eof_received()

    def resume(self) -> None:
        """There was no session: what has arrived behind the request is the next request."""
        if not self._framing.stopped or self._transport is None:
            return
        self._framing.restart()
        held = bytes(self._held)
        self._held.clear()
        self._transport.resume_reading()
        if held:
            self.data_received(held)


def connection_of(request: web.Request) -> HttpConnection | None:
    """None once the client has gone or a session has taken over."""
    transport = request.transport
    protocol = transport.get_protocol() if transport is not None else None
    return protocol if isinstance(protocol, HttpConnection) else None
