"""Output of one container to those who are attached.

Each attacher has a socket and a bounded buffer. When a buffer is full, the container's output is not read
until it has drained (back-pressure, nothing is lost); an attacher that takes nothing for STALLED_S is cut off.
"""

from __future__ import annotations

import collections
import socket
import struct
import time

from engine.runtime.handover import AttacherState

BUFFER_BYTES_MAX = 1024 * 1024
STALLED_S = 60.0
_HEADER = struct.Struct(">B3xI")


class Attacher:
    """The supervisor's end of one attachment."""

    __slots__ = ("_blocked_since", "_buffer", "_raw", "_size", "sock")

    def __init__(self, sock: socket.socket, *, raw: bool) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._raw = raw
        self._buffer: collections.deque[bytes] = collections.deque()
        self._size = 0
        self._blocked_since = 0.0

    @classmethod
    def resumed(cls, state: AttacherState, *, raw: bool) -> Attacher:
        attacher = cls(socket.socket(fileno=state.descriptor), raw=raw)
        if state.waiting:
            attacher._buffer.append(state.waiting)
        attacher._size = len(state.waiting)
        attacher._blocked_since = state.blocked_since
        return attacher

    def hand_over(self) -> AttacherState:
        return AttacherState(
            descriptor=self.sock.fileno(), waiting=b"".join(self._buffer), blocked_since=self._blocked_since
        )

    @property
    def is_full(self) -> bool:
        return self._size >= BUFFER_BYTES_MAX

    @property
    def has_output(self) -> bool:
        return bool(self._buffer)

    def put(self, stream: int, data: bytes) -> None:
        """Queue a frame; OSError when the attacher has gone."""
        framed = data if self._raw else _HEADER.pack(stream, len(data)) + data
        self._buffer.append(framed)
        self._size += len(framed)
        self.flush()

    def flush(self) -> None:
        while self._buffer:
            try:
                sent = self.sock.send(self._buffer[0], socket.MSG_NOSIGNAL)
            except BlockingIOError:
                self._blocked_since = self._blocked_since or time.monotonic()
                return
            self._blocked_since = 0.0
            self._size -= sent
            if sent < len(self._buffer[0]):
                self._buffer[0] = self._buffer[0][sent:]
            else:
                self._buffer.popleft()

    def is_stalled(self, now: float) -> bool:
        return self._blocked_since > 0.0 and now - self._blocked_since > STALLED_S
