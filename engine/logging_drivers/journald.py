"""Lines as entries of systemd's journal, over its native protocol (systemd.io, "Native Journal Protocol").

One datagram is one entry: fields as NAME=value, or, where the value has a newline, as NAME, a 64-bit length and the bytes.
"""

from __future__ import annotations

import asyncio
import datetime
import re
import socket
import struct
from collections.abc import Mapping

from engine.config import LogRecord
from engine.logging_drivers.message import Source

SOCKET = "/run/systemd/journal/socket"
SEND_S_MAX = 30.0
_ERROR, _INFO = b"3", b"6"
_LENGTH = struct.Struct("<Q")
_NOT_IN_NAMES = re.compile(r"[^A-Z0-9]")


class JournaldSink:
    """Of one container. See `message.Sink`."""

    def __init__(self, source: Source, path: str = SOCKET) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._partial = _Partial()
        self._fixed = entry(
            {
                "CONTAINER_ID": source.container_id[:12],
                "CONTAINER_ID_FULL": source.container_id,
                "CONTAINER_NAME": source.container_name,
                "CONTAINER_TAG": source.tag,
                "IMAGE_NAME": source.image_name,
                "SYSLOG_IDENTIFIER": source.tag,
            }
            | {field_name(name): value for name, value in source.attributes.items() if field_name(name)}
        )

    portion = 1

    async def check(self) -> None:
        self._connect()

    async def send(self, record: LogRecord) -> None:
        sock = self._connect()
        moment = datetime.datetime.fromtimestamp(record.timestamp_ns // 1_000_000_000, datetime.UTC)
        stamp = f"{moment:%Y-%m-%dT%H:%M:%S}.{record.timestamp_ns % 1_000_000_000:09d}Z"
        own: dict[str, str | bytes] = {
            "MESSAGE": record.data.removesuffix(b"\n"),
            "PRIORITY": _ERROR if record.stream == 2 else _INFO,
            "SYSLOG_TIMESTAMP": stamp,
        }
        data = entry(own | self._partial.fields(record)) + self._fixed
        try:
            async with asyncio.timeout(SEND_S_MAX):
                await asyncio.get_running_loop().sock_sendall(sock, data)
        except (OSError, TimeoutError) as error:
            self.close()
            raise OSError(f"journald: {error or 'takes nothing'}") from error
        self._partial.sent(record)

    async def flush(self) -> None:
        """A datagram has left with `send`."""

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connect(self) -> socket.socket:
        if self._socket is None:
            sock = socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
            )
            try:
                sock.connect(self._path)
            except OSError as error:
                sock.close()
                raise OSError(
                    f"journald is not enabled on this host: {self._path}: {error.strerror}"
                ) from error
            self._socket = sock
        return self._socket


class _Partial:
    """Which part of a long line comes next, per stream: parts without a newline, then the last with one."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[str, int]] = {}

    def fields(self, record: LogRecord) -> dict[str, str]:
        is_last = record.data.endswith(b"\n")
        line_id, ordinal = self._next(record)
        if is_last and ordinal == 1:
            return {}
        shown = {
            "CONTAINER_PARTIAL_ID": line_id,
            "CONTAINER_PARTIAL_ORDINAL": str(ordinal),
            "CONTAINER_PARTIAL_LAST": "true" if is_last else "false",
        }
        return shown | ({} if is_last else {"CONTAINER_PARTIAL_MESSAGE": "true"})

    def sent(self, record: LogRecord) -> None:
        if record.data.endswith(b"\n"):
            self._open.pop(record.stream, None)
        else:
            line_id, ordinal = self._next(record)
            self._open[record.stream] = (line_id, ordinal + 1)

    def _next(self, record: LogRecord) -> tuple[str, int]:
        return self._open.get(record.stream, (f"{record.number:x}-{record.timestamp_ns:x}", 1))


def entry(fields: Mapping[str, str | bytes]) -> bytes:
    """Fields as the protocol has them."""
    parts = []
    for name, value in fields.items():
        data = value.encode() if isinstance(value, str) else value
        if b"\n" in data:
            parts.append(name.encode() + b"\n" + _LENGTH.pack(len(data)) + data + b"\n")
        else:
            parts.append(name.encode() + b"=" + data + b"\n")
    return b"".join(parts)


def field_name(name: str) -> str:
    """A label's or a variable's name as the journal takes it: capitals, digits, underscores, none in front."""
    return _NOT_IN_NAMES.sub("_", name.upper()).lstrip("_")
