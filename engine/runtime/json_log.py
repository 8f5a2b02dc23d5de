"""The json-file log of one container: lines become JSON objects, files rotate by size.

One line of the file is {"log":"text\\n","stream":"stdout","time":"2026-01-02T03:04:05.123456789Z"}, with "attrs" where
the container's log options choose labels or variables, and with "number" where somebody forwards the lines: it counts
them, over restarts as well, so that a gap is seen. A line longer than LINE_BYTES_MAX is written in parts without a
newline, as Docker does. Older files: see log_rotation. A write error never stops the container: it is counted and
logging goes on.
"""

# Plain strings: this runs for every start or line, where Path objects cost too much.

from __future__ import annotations

import contextlib
import os
import time

import msgspec

from engine.runtime.handover import LogState
from engine.runtime.log_numbers import last_number, sent_number
from engine.runtime.log_rotation import Rotation
from engine.runtime.wire import LogStyle

LINE_BYTES_MAX = 16 * 1024
_NAMES = {1: "stdout", 2: "stderr"}


class Line(msgspec.Struct, omit_defaults=True):
    log: str
    stream: str
    time: str
    attrs: dict[str, str] | None = None
    number: int = 0


_encoder = msgspec.json.Encoder()


class JsonLog:
    """Writer of one file; not thread-safe. `max_size` in bytes (0: no rotation), `max_file` at least 1."""

    __slots__ = (
        "_attributes",
        "_descriptor",
        "_max_file",
        "_max_size",
        "_next_number",
        "_partial",
        "_path",
        "_rotation",
        "_size",
        "lost_bytes",
    )

    def __init__(
        self,
        path: str,
        max_size: int,
        max_file: int,
        state: LogState | None = None,
        style: LogStyle = LogStyle(),  # noqa: B008 - immutable
    ) -> None:
        """`state`: go on from there, with the same open file."""
        self._path = path
        self._max_size = max_size
        self._max_file = max(max_file, 1)
        self._rotation = Rotation(path, self._max_file, compress=style.compress)
        self._attributes = dict(style.attributes) or None
        self._next_number = 0
        if style.numbered:
            self._next_number = (
                max(last_number(path), sent_number(path)) + 1 if state is None else max(state.next_number, 1)
            )
        self._partial: dict[int, bytes] = {} if state is None else state.partial
        self._descriptor = self._open() if state is None else state.descriptor
        self._size = os.fstat(self._descriptor).st_size
        self.lost_bytes = 0 if state is None else state.lost_bytes

    def hand_over(self) -> LogState:
        return LogState(
            descriptor=self._descriptor,
            partial=dict(self._partial),
            lost_bytes=self.lost_bytes,
            next_number=self._next_number,
        )

    def mend(self) -> None:
        """End a line that an earlier writer left torn, so that it costs nothing but itself."""
        with open(self._path, "rb") as file:
            if self._size and file.seek(-1, os.SEEK_END) is not None and file.read(1) != b"\n":
                self._write_all(b"\n")

    def write(self, stream: int, data: bytes, now_ns: int | None = None) -> None:
        """Log what was read; an unfinished last line waits for its end."""
        waiting = self._partial.pop(stream, None)
        if waiting is not None:
            data = waiting + data
        end = data.rfind(b"\n") + 1
        rest = data[end:]
        pieces = _lines(data[:end]) if end else []
        while len(rest) > LINE_BYTES_MAX:
            pieces.append(rest[:LINE_BYTES_MAX].decode("utf-8", "replace"))
            rest = rest[LINE_BYTES_MAX:]
        if rest:
            self._partial[stream] = rest
        if pieces:
            self._append(stream, pieces, time.time_ns() if now_ns is None else now_ns)

    def finish(self, stream: int, now_ns: int | None = None) -> None:
        """The stream ended: a last line without a newline gets one."""
        waiting = self._partial.pop(stream, None)
        if waiting:
            text = waiting.decode("utf-8", "replace") + "\n"
            self._append(stream, [text], time.time_ns() if now_ns is None else now_ns)

    def close(self) -> None:
        for stream in tuple(self._partial):
            self.finish(stream)
        os.close(self._descriptor)

    def _append(self, stream: int, pieces: list[str], now_ns: int) -> None:
        name, stamp = _NAMES[stream], timestamp(now_ns)
        lines = [Line(piece, name, stamp, self._attributes) for piece in pieces]
        if self._next_number:
            for number, line in enumerate(lines, self._next_number):
                line.number = number
            self._next_number += len(lines)
        encoded = _encoder.encode_lines(lines)
        if self._max_size and self._size + len(encoded) > self._max_size:
            self._write_rotating([_encoder.encode(line) + b"\n" for line in lines])
        else:
            self._write_all(encoded)

    def _write_rotating(self, lines: list[bytes]) -> None:
        """No file becomes larger than it may, but for a line that is longer by itself."""
        waiting: list[bytes] = []
        size = self._size
        for line in lines:
            if size and size + len(line) > self._max_size:
                self._write_all(b"".join(waiting))
                self._rotate()
                waiting.clear()
                size = self._size
            waiting.append(line)
            size += len(line)
        self._write_all(b"".join(waiting))

    def _write_all(self, encoded: bytes) -> None:
        view = memoryview(encoded)
        try:
            while view:
                written = os.write(self._descriptor, view)
                self._size += written
                view = view[written:]
        except OSError:
            self.lost_bytes += len(view)

    def _rotate(self) -> None:
        os.close(self._descriptor)
        if self._max_file > 1:
            with contextlib.suppress(OSError):
                self._rotation.shift()
        self._descriptor = self._open(truncate=self._max_file == 1)
        self._size = os.fstat(self._descriptor).st_size

    def _open(self, *, truncate: bool = False) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        return os.open(self._path, flags | (os.O_TRUNC if truncate else 0), 0o640)


_second = [0, ""]


def timestamp(now_ns: int) -> str:
    """RFC 3339 with nine digits, UTC."""
    seconds, nanoseconds = divmod(now_ns, 1_000_000_000)
    if _second[0] != seconds:
        _second[:] = [seconds, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))]
    return f"{_second[1]}.{nanoseconds:09d}Z"


def _lines(data: bytes) -> list[str]:
    """Lines ending in a newline, which `data` ends with."""
    pieces = [f"{line}\n" for line in data.decode("utf-8", "replace").split("\n")]
    pieces.pop()
    # A character has up to four bytes: only then can a line be too long.
    return _split(data) if max(map(len, pieces)) * 4 > LINE_BYTES_MAX else pieces


def _split(data: bytes) -> list[str]:
    """Lines ending in a newline; long ones in parts."""
    pieces = []
    for line in data.split(b"\n")[:-1]:
        start = 0
        while len(line) - start > LINE_BYTES_MAX:
            pieces.append(line[start : start + LINE_BYTES_MAX].decode("utf-8", "replace"))
            start += LINE_BYTES_MAX
        pieces.append(line[start:].decode("utf-8", "replace") + "\n")
    return pieces
