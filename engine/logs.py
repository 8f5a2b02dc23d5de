"""Reading a container's json-file log: the past, then, if wanted, what is still being written.

Works in chunks off the event loop. The files are written by the supervisor (see runtime.json_log), which
rotates path -> path.1 -> ..., or truncates the only file. Invariant: files are held open and told apart by
their inode, so a rotation while reading neither skips nor repeats a line that is still on disk. A torn last
line is left alone until it is whole.
"""

from __future__ import annotations

import asyncio
import calendar
import contextlib
import functools
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from engine.config import LogOptions, LogRecord

CHUNK_BYTES = 1 << 18
POLL_S = 0.03
OPEN_ATTEMPTS_MAX = 20
_STREAMS = {"stdout": 1, "stderr": 2}
# A quote inside a message is escaped, so these bytes begin a line and nothing else.
_LINE_START = b'{"log":"'


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
    reader = _Reader(options)
    with contextlib.ExitStack() as held:
        files = [held.enter_context(file) for file in await asyncio.to_thread(_open_files, path)]
        if options.tail >= 0:
            files = await asyncio.to_thread(_seek_tail, files, options.tail)
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
            turned_away = current is None or _turned_away(path, current)
            progressed = False
            if current is not None:
                async for batch in _batches(current, reader):
                    progressed = True
                    yield batch
            if turned_away:
                successor = await asyncio.to_thread(_open_successor, path, current)
                if successor is not None:
                    held.close()
                    current = held.enter_context(successor)
                    reader.begin_file()
                    continue
            if progressed:
                continue
            if ending:
                return
            await asyncio.sleep(poll_s)


def log_files(path: Path) -> list[Path]:
    """The existing files of one log, oldest first."""
    rotated = sorted(
        (p for p in path.parent.glob(f"{path.name}.*") if p.suffix[1:].isdecimal()),
        key=lambda p: int(p.suffix[1:]),
        reverse=True,
    )
    return [*rotated, path] if path.exists() else rotated


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
        self._since_ns = int(options.since * 1e9)
        self._until_ns = int(options.until * 1e9)
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
            records.append(LogRecord(stream, self._time_ns, line.log.encode()))
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


async def _batches(file: BinaryIO, reader: _Reader) -> AsyncIterator[list[LogRecord]]:
    while not reader.past_end:
        data = file.read(CHUNK_BYTES)
        if not data:
            return
        if len(data) < CHUNK_BYTES // 8:
            yield reader.feed(data)
        else:
            yield await asyncio.to_thread(reader.feed, data)


def _open_files(path: Path) -> list[BinaryIO]:
    """All files, oldest first, none missing or twice although the writer may rotate them meanwhile."""
    for _ in range(OPEN_ATTEMPTS_MAX):
        files: list[BinaryIO] = []
        with contextlib.ExitStack() as opened, contextlib.suppress(FileNotFoundError):
            for name in log_files(path):
                files.append(opened.enter_context(name.open("rb", buffering=0)))
            if [_inode(file) for file in files] == [name.stat().st_ino for name in log_files(path)]:
                opened.pop_all()
                return files
    return []


def _open_successor(path: Path, current: BinaryIO | None) -> BinaryIO | None:
    """The file written after `current`; the oldest one when `current` is gone, None when it is the last."""
    files = _open_files(path)
    inodes = [_inode(file) for file in files]
    position = inodes.index(_inode(current)) + 1 if current is not None and _inode(current) in inodes else 0
    for index, file in enumerate(files):
        if index != position:
            file.close()
    return files[position] if position < len(files) else None


def _turned_away(path: Path, current: BinaryIO) -> bool:
    """Whether the writer has another file by now. One that was truncated is read again from its start."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    if status.st_ino != _inode(current):
        return True
    if status.st_size < current.tell():
        current.seek(0)
    return False


def _inode(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_ino


def _seek_tail(files: Sequence[BinaryIO], lines: int) -> list[BinaryIO]:
    """The files that hold the last `lines` lines, the first of them set to where these begin."""
    missing = lines
    for index in range(len(files) - 1, -1, -1):
        offset, found = _start_of_last(files[index], missing)
        files[index].seek(offset)
        missing -= found
        if missing <= 0:
            return list(files[index:])
    return list(files)


def _start_of_last(file: BinaryIO, lines: int) -> tuple[int, int]:
    """(offset after which `lines` whole lines remain, `lines`), or (0, the number of lines) of a shorter one."""
    found, position = 0, file.seek(0, os.SEEK_END)
    while position:
        size = min(CHUNK_BYTES, position)
        position -= size
        block = os.pread(file.fileno(), size, position)
        here = block.count(b"\n")
        if found + here > lines:
            at = len(block)
            for _ in range(lines - found + 1):
                at = block.rfind(b"\n", 0, at)
            return position + at + 1, lines
        found += here
    return 0, found
