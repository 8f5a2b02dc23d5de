"""Where one HTTP/1.1 request ends and the next begins in the bytes of a connection (RFC 9112, section 6).

Only the lengths are read here; whether a request is well-formed is judged by the HTTP server behind.
"""

from __future__ import annotations

import re
from collections.abc import Callable

HEAD_BYTES_MAX = 1 << 20  # beyond it the server has long refused the request
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[^\r\n]*chunked[ \t]*\r\n", re.IGNORECASE)
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,15})[^\r\n]*\r\n\Z")
_END = b"\r\n\r\n"


class RequestFraming:
    """Fed with the bytes of one connection; stops behind a request whose head `is_last` accepts.

    Bytes that are no HTTP/1.1 pass through unjudged: the server answers them and ends the connection.
    """

    def __init__(self, is_last: Callable[[bytes], bool]) -> None:
        self._is_last = is_last
        self._head = bytearray()  # of the request that is arriving, or the line of a chunk
        self._read: Callable[[bytes, int], int] = self._read_head
        self._left = 0
        self._stops = False
        self._done = False

    def feed(self, data: bytes) -> int:
        """The number of bytes of `data` that belong to requests up to the one that stops; len(data): all."""
        position = 0
        while position < len(data):
            position = self._read(data, position)
            if self._done:
                self._done = False
                break
        return position

    @property
    def stopped(self) -> bool:
        """The last feed ended exactly behind a request that `is_last` accepted."""
        return self._stops and self._read == self._read_head

    def restart(self) -> None:
        """Go on with the next request."""
        self._stops = False

    def _read_head(self, data: bytes, position: int) -> int:
        before = len(self._head)
        self._head += data[position : position + HEAD_BYTES_MAX]
        taken = len(self._head) - before
        if not self._head.lstrip(b"\r\n"):  # empty lines in front of a request
            self._head.clear()
            return position + taken
        start = len(self._head) - len(self._head.lstrip(b"\r\n"))
        end = self._head.find(_END, max(start, before - len(_END)))
        if end < 0:
            if len(self._head) > HEAD_BYTES_MAX:
                self._read = self._pass
            return position + taken
        head = bytes(self._head[start : end + len(_END)])
        self._head.clear()
        self._begin_body(head)
        return position + end + len(_END) - before

    def _begin_body(self, head: bytes) -> None:
        self._stops = self._is_last(head)
        length = _LENGTH.search(head)
        if _CHUNKED.search(head):
            self._read = self._read_chunk_size
        elif length is not None and int(length[1]):
            self._left = int(length[1])
            self._read = self._read_body
        else:
            self._end()

    def _end(self) -> None:
        self._read = self._read_head
        self._done = self._stops

    def _read_body(self, data: bytes, position: int) -> int:
        taken = min(self._left, len(data) - position)
        self._left -= taken
        if not self._left:
            self._end()
        return position + taken

    def _read_chunk_size(self, data: bytes, position: int) -> int:
        line, position = self._line(data, position)
        if line is None:
            return position
        match = _CHUNK_SIZE.match(line)
        if match is None:
            self._read = self._pass
        elif int(match[1], 16):
            self._left = int(match[1], 16) + len(b"\r\n")
            self._read = self._read_chunk
        else:
            self._read = self._read_trailer
        return position

    def _read_chunk(self, data: bytes, position: int) -> int:
        taken = min(self._left, len(data) - position)
        self._left -= taken
        if not self._left:
            self._read = self._read_chunk_size
        return position + taken

    def _read_trailer(self, data: bytes, position: int) -> int:
        line, position = self._line(data, position)
        if line == b"\r\n":
            self._end()
        return position

    def _line(self, data: bytes, position: int) -> tuple[bytes | None, int]:
        """The next whole line with its end, or None until it is whole."""
        end = data.find(b"\n", position)
        stop = len(data) if end < 0 else end + 1
        self._head += data[position:stop]
        if end < 0:
            if len(self._head) > HEAD_BYTES_MAX:
                self._read = self._pass
            return None, stop
        line = bytes(self._head)
        self._head.clear()
        return line, stop

    @staticmethod
    def _pass(data: bytes, _position: int) -> int:
        return len(data)
