"""Connections that may be taken over (attach, exec start): what a client sends behind its request is not HTTP.

The HTTP server would read it as the next request, or drop it. So for these requests it gets the head and the body and no
byte more; the rest waits here for whoever takes the connection over, also when the client has closed its side already.
Invariant: for every other request the bytes go to the HTTP server as they come.
"""

from __future__ import annotations

import re
from typing import Any

from aiohttp import web

EARLY_BYTES_MAX = 1 << 20
_TAKEN = re.compile(rb"POST [^ ?]*/(?:containers/[^/ ?]+/attach|exec/[^/ ?]+/start)[ ?]")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,9})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_END = b"\r\n\r\n"


class TakeoverHandler(web.RequestHandler):
    """aiohttp's side of one connection."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._early = bytearray()
        self._holds = False
        self._is_over = False  # the client sends no more
        self._is_paused = False
        self._has_begun = False

    def data_received(self, data: bytes) -> None:
        if self._holds and not self._is_answering():
            # It was not taken over (an error was answered): what follows is HTTP again.
            self._holds = False
            data = bytes(self._early) + data
            self._early.clear()
        if self._holds:
            self._hold(data)
        elif (end := _end_of_request(data)) and not self._is_answering():
            self._holds = True
            super().data_received(data[:end])
            self._hold(data[end:])
        else:
            super().data_received(data)
        self._has_begun = True

    def eof_received(self) -> bool:  # type: ignore[override]  # what asyncio makes of it
        """True keeps our side open."""
        self._is_over = True
        return self._holds and self._is_answering()

    def take_early(self) -> tuple[bytes, bool]:
        """(what came behind the request, whether it is all that will come). Once, by who takes over."""
        early = bytes(self._early)
        self._early.clear()
        if self._is_paused and self.transport is not None:
            self.transport.resume_reading()
        return early, self._is_over

    def _hold(self, data: bytes) -> None:
        self._early += data
        if len(self._early) > EARLY_BYTES_MAX and not self._is_paused and self.transport is not None:
            self._is_paused = True
            self.transport.pause_reading()

    def _is_answering(self) -> bool:
        """From the first byte of a request until the server waits for the next one."""
        return self._has_begun if self._waiter is None else self._waiter.done()


def _end_of_request(data: bytes) -> int:
    """Where the request ends that begins here, when it is one to be taken over; 0 otherwise, or when it is not whole."""
    if not _TAKEN.match(data):
        return 0
    end = data.find(_END)
    head = data[: end + len(_END)]
    if end < 0 or _CHUNKED.search(head):
        return 0
    length = _LENGTH.search(head)
    whole = len(head) + (int(length[1]) if length else 0)
    return whole if len(data) >= whole else 0


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return TakeoverHandler(self, loop=self._loop, **self._kwargs)


class TakeoverRunner(web.AppRunner):
    """Whatever it listens on, its connections may be taken over."""

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        server.__class__ = _Server  # aiohttp has no other way in
        return server
