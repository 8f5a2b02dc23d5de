"""Reading a container's json-file log: the past, then, if wanted, what is still being written.

Works in chunks off the event loop. The files are written by the supervisor (see runtime.json_log), which
rotates path -> path.1 -> ..., and may pack these, or truncates the only file. Invariant: files are held open and told
apart by their identity (log_files), so a rotation while reading neither skips nor repeats a line that is still on
disk. A torn last line is left alone until it is whole.
"""

from __future__ import annotations

import asyncio
import calendar
import contextlib
import functools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path

import msgspec

from engine.config import LogOptions, LogRecord
from engine.log_files import LogFile, newer_than, open_files, open_successor, seek_tail, turned_away

CHUNK_BYTES = 1 << 18
POLL_S = 0.03
_STREAMS = {"stdout": 1, "stderr": 2}
# A quote inside a message is escaped, so these bytes begin a line and nothing else.
_LINE_START = b'{"log":"'


class _Line(msgspec.Struct):
    log: str
    stream: str
    time: str
    attrs: dict[str, str] | None = None
    number: int = 0


_decoder = msgspec.json.Decoder(_Line)


async def read_logs(
    path: Path, options: LogOptions, finished: Callable[[], bool], poll_s: float = POLL_S
) -> AsyncGenerator[LogRecord, None]:
    """Lines in order. With `follow`, ends when `finished()` holds and everything has been read."""
    async with contextlib.aclosing(read_batches(path, options, finished, poll_s)) as batches:
        async for batch in batches:
            for record in batch:
                yield record


async def read_batches(
    path: Path, options: LogOptions, finished: Callable[[], bool], poll_s: float = POLL_S
) -> AsyncGenerator[list[LogRecord], None]:
    """The same, as many lines at a time as were read at once; for readers to whom each step costs."""
    reader = _Reader(options)
    with contextlib.ExitStack() as held:
        files = await asyncio.to_thread(open_files, path)
        for file in files:
            held.callback(file.close)
        if options.tail >= 0:
            files = await asyncio.to_thread(seek_tail, files, options.tail)
        if options.since:
            files = newer_than(files, options.since)
        for file in files:
            reader.begin_file()
            async for batch in _batches(file, reader):
                yield batch
        if not options.follow:
            return
        current = files[-1] if files else None
        while not reader.past_end:
            ending = finished() or reader.until_passed(time.time_ns())
            # Asked before the read: what the writer added before it turned away is then read to its end.
            has_turned = current is None or turned_away(path, current)
            progressed = False
            if current is not None:
                async for batch in _batches(current, reader):
                    progressed = True
                    yield batch
            if has_turned:
                successor = await asyncio.to_thread(open_successor, path, current)
                if successor is not None:
                    held.close()
                    held.callback(successor.close)
                    current = successor
                    reader.begin_file()
                    continue
            if progressed:
                continue
            if ending:
                return
            await asyncio.sleep(poll_s)


def parse_time(text: str) -> int:
    """RFC 3339 with up to nine digits, in UTC -> nanoseconds since 1970. ValueError when it is none."""
    fraction = text[20:-1] if text[19:20] == "." else ""
    return _seconds(text[:19]) * 1_000_000_000 + (int(fraction.ljust(9, "0")) if fraction else 0)


@functools.lru_cache(maxsize=256)
def _seconds(text: str) -> int:
    return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))


class _Reader:
    """Turns chunks into records; keeps the torn end of a chunk and the time that was parsed last."""

    def __init__(self, options: LogOptions) -> None:
        self._wanted = {n for n, flag in ((1, options.stdout), (2, options.stderr)) if flag}
        self._rest = b""
        self._time = ""
        self._time_ns = 0
        self._since_ns = options.since_ns or int(options.since * 1e9)
        self._until_ns = options.until_ns or int(options.until * 1e9)
        self.past_end = False

    def begin_file(self) -> None:
        """A line never goes over from one file to the next: what is torn there stays torn."""
        self._rest = b""

    def until_passed(self, now_ns: int) -> bool:
        return 0 < self._until_ns < now_ns

    def feed(self, data: bytes) -> list[LogRecord]:
        data = self._rest + data
        end = data.rfind(b"\n") + 1
        self._rest = data[end:]
        records = []
        for line in _decoded(data[:end]):
            stream = _STREAMS.get(line.stream, 1)
            if line.time != self._time:
                with contextlib.suppress(ValueError):
                    self._time_ns = parse_time(line.time)
                self._time = line.time
            if stream not in self._wanted or self._time_ns < self._since_ns:
                continue
            if self._until_ns and self._time_ns > self._until_ns:
                self.past_end = True
                break
            records.append(LogRecord(stream, self._time_ns, line.log.encode(), line.attrs, line.number))
        return records


def _decoded(data: bytes) -> list[_Line]:
    """All lines at once; one by one, leaving out what a crash of the host damaged, when that fails."""
    try:
        return _decoder.decode_lines(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    lines = []
    for line in data.split(b"\n"):
        # A line may stand behind the torn beginning of one that was never finished.
        start = max(line.rfind(_LINE_START), 0)
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            lines.append(_decoder.decode(line[start:]))
    return lines


async def _batches(file: LogFile, reader: _Reader) -> AsyncIterator[list[LogRecord]]:
    while not reader.past_end:
        reading = asyncio.to_thread(file.read, CHUNK_BYTES) if file.is_packed else None
        data = file.read(CHUNK_BYTES) if reading is None else await reading
        if not data:
            return
        if len(data) < CHUNK_BYTES // 8:
            yield reader.feed(data)
        else:
            yield await asyncio.to_thread(reader.feed, data)
