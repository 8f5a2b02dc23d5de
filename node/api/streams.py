"""Log lines as the API streams them: framed or raw, with timestamps and details."""

from __future__ import annotations

import datetime
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Protocol
from urllib.parse import quote_plus

from aiohttp import web

from engine.config import LogOptions
from engine.errors import InvalidParameter
from node.api.hijack import frame
from node.api.query import closing, flag, moment
from node.api.versions import is_before

FLUSH_BYTES = 256 * 1024
_SECONDS = re.compile(r"(\d{1,12})(?:\.(\d+))?", re.ASCII)


class LogEntry(Protocol):
    @property
    def stream(self) -> int: ...

    @property
    def timestamp_ns(self) -> int: ...

    @property
    def data(self) -> bytes: ...


def log_options(request: web.Request) -> LogOptions:
    """From the query of any `logs` call. InvalidParameter when neither stream is chosen."""
    stdout, stderr = flag(request, "stdout"), flag(request, "stderr")
    if not stdout and not stderr:
        raise InvalidParameter("Bad parameters: you must choose at least one stream")
    tail = request.query.get("tail", "all")
    if tail not in ("all", "") and not (tail.isdecimal() or tail == "-1"):
        raise InvalidParameter(f'invalid value for "tail": "{tail}" is not a number')
    return LogOptions(
        stdout=stdout,
        stderr=stderr,
        follow=flag(request, "follow"),
        since=moment(request, "since"),
        until=moment(request, "until"),
        tail=-1 if tail in ("all", "", "-1") else int(tail),
        since_ns=_exactly(request, "since"),
        until_ns=_exactly(request, "until"),
    )


def _exactly(request: web.Request, name: str) -> int:
    """Unix seconds with up to nine digits behind the point, as clients send what a line's time was; else 0."""
    match = _SECONDS.fullmatch(request.query.get(name, ""))
    return int(match[1]) * 1_000_000_000 + int((match[2] or "").ljust(9, "0")[:9]) if match else 0


async def stream_logs(
    request: web.Request,
    batches: AsyncIterator[Sequence[LogEntry]],
    *,
    tty: bool,
    details: Callable[[LogEntry], str] | None = None,
) -> web.StreamResponse:
    """Headers go out at once; lines are written in batches, but never held back while waiting for more."""
    timestamps = flag(request, "timestamps")
    kind = "raw" if tty or is_before(request, "1.42") else "multiplexed"
    response = web.StreamResponse(headers={"Content-Type": f"application/vnd.docker.{kind}-stream"})
    stamps = _Timestamps()
    follow = flag(request, "follow")
    buffer = bytearray()
    async with closing(batches):
        await response.prepare(request)
        async for batch in batches:
            for entry in batch:
                line = entry.data
                if details is not None:
                    line = details(entry).encode() + b" " + line
                if timestamps:
                    line = stamps.text(entry.timestamp_ns) + b" " + line
                buffer += line if tty else frame(entry.stream, line)
            if follow or len(buffer) >= FLUSH_BYTES:
                await response.write(bytes(buffer))
                buffer.clear()
        await response.write(bytes(buffer))
        await response.write_eof()
    return response


def attributes_text(attributes: Mapping[str, str] | None) -> str:
    """What `details` puts in front of a line. Names and values are URL-encoded, as Docker does."""
    found = sorted((attributes or {}).items())
    return ",".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in found)


async def one_by_one(entries: AsyncIterator[LogEntry]) -> AsyncIterator[Sequence[LogEntry]]:
    """Entries that come singly, as batches."""
    async with closing(entries):
        async for entry in entries:
            yield (entry,)


class _Timestamps:
    """RFC 3339 with nine digits; the date part is made once per second."""

    def __init__(self) -> None:
        self._second = -1
        self._prefix = ""

    def text(self, timestamp_ns: int) -> bytes:
        second, rest = divmod(timestamp_ns, 1_000_000_000)
        if second != self._second:
            self._second = second
            moment_ = datetime.datetime.fromtimestamp(second, datetime.UTC)
            self._prefix = moment_.strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._prefix}.{rest:09d}Z".encode()
