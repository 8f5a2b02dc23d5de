"""Reading a container's json-file log: the past, then, if wanted, what is still being written.

Works in chunks off the event loop. The files are written by the supervisor (see runtime.json_log), which
rotates path -> path.1 -> ...; a reader that follows notices a rotation by the inode and finishes the old
file first. A torn last line is left alone until it is whole.
"""

from __future__ import annotations

import asyncio
import calendar
import contextlib
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from engine.config import LogOptions, LogRecord

CHUNK_BYTES = 1 << 18
POLL_S = 0.03
_STREAMS = {"stdout": 1, "stderr": 2}


class _Line(msgspec.Struct):
    log: str
    stream: str
    time: str


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
    files = log_files(path)
    start = await asyncio.to_thread(_tail_position, files, options.tail) if options.tail >= 0 else (0, 0)
    reader = _Reader(options)
    current: BinaryIO | None = None
    try:
        for index, file in enumerate(files[start[0] :]):
            if current is not None:
                current.close()
            current = file.open("rb")
            if index == 0:
                current.seek(start[1])
            async for batch in _batches(current, reader):
                yield batch
        while options.follow and not reader.past_end:
            ending = finished()
            if current is None or (not ending and _rotated(path, current)):
                current = await _next_file(path, current, reader)
            progressed = False
            if current is not None:
                async for batch in _batches(current, reader):
                    progressed = True
                    yield batch
            if ending and not progressed:
                return
            if not progressed:
                await asyncio.sleep(poll_s)
    finally:
        if current is not None:
            current.close()


def log_files(path: Path) -> list[Path]:
    """The existing files of one log, oldest first."""
    rotated = sorted(
        (p for p in path.parent.glob(f"{path.name}.*") if p.suffix[1:].isdecimal()),
        key=lambda p: int(p.suffix[1:]),
        reverse=True,
    )
    return [*rotated, path] if path.exists() else rotated


def parse_time(text: str) -> int:
    """RFC 3339 with up to nine digits, in UTC -> nanoseconds since 1970."""
    seconds = calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S"))
    fraction = text[20:-1] if text[19:20] == "." else ""
    return seconds * 1_000_000_000 + (int(fraction.ljust(9, "0")) if fraction else 0)


class _Reader:
    """Turns chunks into records; keeps the torn end of a chunk and the time that was parsed last."""

    def __init__(self, options: LogOptions) -> None:
        self._wanted = {n for n, flag in ((1, options.stdout), (2, options.stderr)) if flag}
        self._rest = b""
        self._time = ""
        self._time_ns = 0
        self._since_ns = int(options.since * 1e9)
        self._until_ns = int(options.until * 1e9)
        self.past_end = False

    def feed(self, data: bytes) -> list[LogRecord]:
        data = self._rest + data
        end = data.rfind(b"\n") + 1
        self._rest = data[end:]
        records = []
        for line in _decoded(data[:end]):
            stream = _STREAMS.get(line.stream, 1)
            if line.time != self._time:
                self._time, self._time_ns = line.time, parse_time(line.time)
            if stream not in self._wanted or self._time_ns < self._since_ns:
                continue
            if self._until_ns and self._time_ns > self._until_ns:
                self.past_end = True
                break
            records.append(LogRecord(stream, self._time_ns, line.log.encode()))
        return records


def _decoded(data: bytes) -> list[_Line]:
    """All lines at once; one by one, leaving out what a crash of the host damaged, when that fails."""
    try:
        return _decoder.decode_lines(data)
    except msgspec.DecodeError:
        pass
    lines = []
    for line in data.splitlines():
        with contextlib.suppress(msgspec.DecodeError):
            lines.append(_decoder.decode(line))
    return lines


async def _batches(file: BinaryIO, reader: _Reader) -> AsyncIterator[list[LogRecord]]:
    while not reader.past_end:
        data = file.read(CHUNK_BYTES)
        if not data:
            return
        if len(data) < CHUNK_BYTES // 8:
            yield reader.feed(data)
        else:
            yield await asyncio.to_thread(reader.feed, data)


def _rotated(path: Path, current: BinaryIO) -> bool:
    try:
        return path.stat().st_ino != os.fstat(current.fileno()).st_ino
    except FileNotFoundError:
        return False


async def _next_file(path: Path, current: BinaryIO | None, reader: _Reader) -> BinaryIO | None:
    """The file after `current` (whose end was read), or the first one."""
    if current is None:
        return path.open("rb") if path.exists() else None
    if current.read(1):
        current.seek(-1, os.SEEK_CUR)
        return current
    current.close()
    return path.open("rb")


def _tail_position(files: list[Path], lines: int) -> tuple[int, int]:
    """(file index, offset) from which exactly `lines` lines remain; (0, 0) when there are fewer."""
    if not files:
        return 0, 0
    if lines == 0:
        return len(files) - 1, files[-1].stat().st_size
    missing = lines
    for index in range(len(files) - 1, -1, -1):
        for offset, count in _newlines_from_end(files[index]):
            if count >= missing + 1:
                return index, offset
        missing -= _line_count(files[index])
        if missing <= 0:
            return index, 0
    return 0, 0


def _newlines_from_end(path: Path) -> Iterator[tuple[int, int]]:
    """(offset just after a newline, how many newlines are at or after it), from the end backwards."""
    count = 0
    with path.open("rb") as file:
        position = file.seek(0, os.SEEK_END)
        while position:
            size = min(65536, position)
            position -= size
            file.seek(position)
            block = file.read(size)
            at = block.rfind(b"\n")
            while at != -1:
                count += 1
                yield position + at + 1, count
                at = block.rfind(b"\n", 0, at)


def _line_count(path: Path) -> int:
    total = 0
    with path.open("rb") as file:
        while block := file.read(CHUNK_BYTES):
            total += block.count(b"\n")
    return total
