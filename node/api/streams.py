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
    )


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


def log_attributes(labels: Mapping[str, str], env: Sequence[str], options: Mapping[str, str]) -> str:
    """What `details` puts in front of each line of a container: the labels and variables its log options name.

    `env`: NAME=value. Names and values are URL-encoded, as Docker does. A `tag` is left out.
    """
    known = {"labels": dict(labels), "env": dict(entry.split("=", 1) for entry in env if "=" in entry)}
    chosen: dict[str, str] = {}
    for kind, values in known.items():
        names = options.get(kind, "").split(",")
        chosen |= {name: values[name] for name in names if name in values}
        if pattern := options.get(f"{kind}-regex"):
            form = _pattern(pattern, f"{kind}-regex")
            chosen |= {name: value for name, value in values.items() if form.search(name)}
    return ",".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in sorted(chosen.items()))


def _pattern(text: str, option: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise InvalidParameter(f'invalid log option {option}: "{text}": {error}') from error


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
