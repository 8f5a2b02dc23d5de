"""Just enough of gRPC over HTTP/2 to call a method with bytes, many at a time on one connection.

A client in Python costs more than the server that it measures; this one writes frames that were made before
and looks only for what ends a call. Headers that come back are not decoded: an answer with a message is
success, one without is not. Flow control, pings and settings are answered as the protocol wants.
"""

from __future__ import annotations

import asyncio
import ssl
import struct

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_INITIAL_WINDOW = 4
_WINDOW_BYTES = 1 << 24
_UPDATE_AFTER_BYTES = 1 << 20


class GrpcError(Exception):
    """The call had no answer."""


class Connection(asyncio.Protocol):
    """Made by `connect`. Keys on the wire are literal headers, so that no table has to be kept."""

    def __init__(self) -> None:
        self._calls: dict[int, tuple[asyncio.Future[bytes], bytearray]] = {}
        self._next_stream = 1
        self._buffer = bytearray()
        self._received = 0
        self._send_window = 65535
        self._waiting: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        settings = struct.pack(">HI", _INITIAL_WINDOW, _WINDOW_BYTES)
        transport.write(
            _PREFACE
            + _frame(_SETTINGS, 0, 0, settings)
            + _frame(_WINDOW, 0, 0, struct.pack(">I", _WINDOW_BYTES))
        )

    def close(self) -> None:
        self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        for answer, _ in self._calls.values():
            if not answer.done():
                answer.set_exception(GrpcError(f"connection lost: {error}"))
        self._calls.clear()

    def call(self, headers: bytes, message: bytes) -> asyncio.Future[bytes]:
        """`headers` from `header_block`. The result is the answer's message; GrpcError when there is none."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._calls[stream] = answer, bytearray()
        body = b"\0" + struct.pack(">I", len(message)) + message
        frames = _frame(_HEADERS, _END_HEADERS, stream, headers) + _frame(_DATA, _END_STREAM, stream, body)
        if self._waiting or len(body) > self._send_window:
            self._waiting.append(frames)
        else:
            self._write(frames, len(body))
        return answer

    def _write(self, frames: bytes, body_bytes: int) -> None:
        self._send_window -= body_bytes
        self._transport.write(frames)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        position = 0
        while position + 9 <= len(buffer):
            length = int.from_bytes(buffer[position : position + 3], "big")
            end = position + 9 + length
            if end > len(buffer):
                break
            kind, flags = buffer[position + 3], buffer[position + 4]
            stream = int.from_bytes(buffer[position + 5 : position + 9], "big") & 0x7FFFFFFF
            self._take(kind, flags, stream, bytes(buffer[position + 9 : end]))
            position = end
        del buffer[:position]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _DATA:
            self._count(len(payload))
            if stream in self._calls:
                self._calls[stream][1].extend(payload)
        elif kind == _SETTINGS and not flags & _ACK:
            self._transport.write(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self._transport.write(_frame(_PING, _ACK, 0, payload))
        elif kind == _WINDOW and stream == 0:
            self._opened(int.from_bytes(payload, "big"))
        elif kind == _GOAWAY:
            self._transport.close()
        if kind == _RESET or (kind in (_DATA, _HEADERS) and flags & _END_STREAM):
            self._end(stream)

    def _count(self, length: int) -> None:
        self._received += length
        if self._received >= _UPDATE_AFTER_BYTES:
            self._transport.write(_frame(_WINDOW, 0, 0, struct.pack(">I", self._received)))
            self._received = 0

    def _opened(self, more: int) -> None:
        self._send_window += more
        while self._waiting:
            size = len(self._waiting[0])  # a little more than its body
            if size > self._send_window:
                return
            self._write(self._waiting.pop(0), size)

    def _end(self, stream: int) -> None:
        answer, body = self._calls.pop(stream, (None, b""))
        if answer is None or answer.done():
            return
        if len(body) > 5:
            answer.set_result(bytes(body[5:]))
        else:
            answer.set_exception(GrpcError("the call was refused"))


async def connect(host: str, port: int, context: ssl.SSLContext) -> Connection:
    """`context` must offer h2. Raises OSError."""
    _, protocol = await asyncio.get_running_loop().create_connection(
        Connection, host, port, ssl=context, server_hostname=host
    )
    return protocol


def header_block(authority: str, path: str) -> bytes:
    fields = [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", path),
        (":authority", authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)


def _text(text: str) -> bytes:
    assert len(text) < 127, "a longer one has a longer length"
    return bytes([len(text)]) + text.encode()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
