"""The frames that carry stdout and stderr in one stream: 1 byte stream, 3 zero bytes, 4 bytes length, payload."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

STDIN, STDOUT, STDERR, SYSTEM_ERROR = 0, 1, 2, 3
_HEADER_BYTES = 8


class Demultiplexer:
    """Fed with blocks cut anywhere; yields (stream, payload) as soon as bytes are there."""

    def __init__(self) -> None:
        self._pending = b""
        self._stream = STDOUT
        self._left = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        data = self._pending + data
        position = 0
        while True:
            if self._left:
                piece = data[position : position + self._left]
                if not piece:
                    break
                position += len(piece)
                self._left -= len(piece)
                yield self._stream, piece
            elif len(data) - position >= _HEADER_BYTES:
                self._stream = data[position]
                self._left = int.from_bytes(data[position + 4 : position + _HEADER_BYTES], "big")
                position += _HEADER_BYTES
            else:
                break
        self._pending = data[position:]


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def copy_frames(blocks: Iterable[bytes]) -> None:
    """Frames to our own stdout and stderr."""
    demultiplexer = Demultiplexer()
    for block in blocks:
        for stream, payload in demultiplexer.feed(block):
            write_all(STDERR if stream >= STDERR else STDOUT, payload)


def copy_raw(blocks: Iterable[bytes]) -> None:
    for block in blocks:
        write_all(STDOUT, block)
