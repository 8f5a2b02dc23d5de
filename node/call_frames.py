"""Messages of any length, interleaved on one connection: frames in both directions.

Owns the form on the wire, the order in which waiting messages leave and the bounds of what waits. Knows no
call. A frame is a length (of what follows the header), a kind, the number of a message, and bytes; a message
that does not fit in one frame follows in parts. Invariants: a length is checked before that much is kept;
while the peer does not read, no more than a few parts are handed to the transport; small messages go before
the next part of a large one, and large ones take turns.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections import deque

from node.peers import BODY_BYTES_MAX, abort

log = logging.getLogger(__name__)

PART_BYTES = 64 * 1024
HEAD_BYTES_MAX = 512
FRAME_BYTES_MAX = HEAD_BYTES_MAX + PART_BYTES
WAITING_BYTES_MAX = 2 * BODY_BYTES_MAX  # of one connection, not yet handed to its transport
WAITING_MESSAGES_MAX = 16384
# An event loop may be busy for a while; a peer that has taken nothing for longer is not worth waiting for, and
# after a cut a new connection is there sooner than the kernel sends again on this one.
UNACKNOWLEDGED_MS_MAX = 5000
_PROBE_AFTER_S = 5
_BUFFER_BYTES = 128 * 1024
_FRAME = struct.Struct(">IBI")
_TOTAL = struct.Struct(">I")

# Kinds of frames. Those with a total begin a message that PARTs of the same number may complete.
READY, REQUEST, ANSWER, ERROR, PART, ABANDON = range(6)


class FrameError(Exception):
    """The peer does not keep to the form: the connection has to end."""


class Outgoing:
    """A message on its way out: `head` and the length of `body` in the first frame, then `body`."""

    __slots__ = ("_body", "_head", "_kind", "_next", "number")

    def __init__(self, kind: int, number: int, body: bytes, head: bytes = b"") -> None:
        assert len(head) <= HEAD_BYTES_MAX - _TOTAL.size
        self.number = number
        self._kind = kind
        self._head = head
        self._body = body
        self._next = 0

    @property
    def is_small(self) -> bool:
        return len(self._body) <= PART_BYTES

    @property
    def started(self) -> bool:
        return self._kind == PART

    @property
    def bytes_left(self) -> int:
        return len(self._body) - self._next

    def next_frame(self) -> bytes:
        part = self._body if self.is_small else self._body[self._next : self._next + PART_BYTES]
        self._next += len(part)
        if self._kind == PART:
            return _FRAME.pack(len(part), PART, self.number) + part
        opening = _TOTAL.pack(len(self._body)) + self._head
        frame = _FRAME.pack(len(opening) + len(part), self._kind, self.number) + opening + part
        self._kind = PART
        return frame


class Incoming:
    """A message on its way in. `total` is what its first frame announced."""

    __slots__ = ("_missing", "_parts", "kind", "total")

    def __init__(self, kind: int, total: int) -> None:
        self.kind = kind
        self.total = total
        self._missing = total
        self._parts: list[bytes] = []

    def add(self, part: bytes) -> bool:
        """True when it is complete. Raises FrameError for more than was announced."""
        self._missing -= len(part)
        if self._missing < 0:
            raise FrameError(f"{-self._missing} bytes more than the {self.total} that were announced")
        self._parts.append(part)
        return self._missing == 0

    def body(self) -> bytes:
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)


def split_total(frame: bytes) -> tuple[int, bytes]:
    """The announced length and the rest of a first frame. Raises FrameError."""
    if len(frame) < _TOTAL.size:
        raise FrameError(f"a message of {len(frame)} bytes begins without its length")
    return _TOTAL.unpack_from(frame)[0], frame[_TOTAL.size :]


class FrameConnection(asyncio.Protocol):
    """One connection. Subclasses say what a frame means, and what is left to do when it is lost."""

    def __init__(self, peer_name: str) -> None:
        self.peer_name = peer_name
        self.waiting_bytes = 0
        self.frames_received = 0
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._small: deque[Outgoing] = deque()
        self._large: deque[Outgoing] = deque()
        self._paused = False
        self._flush_is_due = False
        self._loop = asyncio.get_running_loop()

    def on_frame(self, kind: int, number: int, data: bytes) -> None:
        """Raises FrameError when it makes no sense."""
        raise NotImplementedError

    def on_lost(self, error: Exception) -> None:
        raise NotImplementedError

    # ---- sending ----

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    def has_room(self, size: int) -> bool:
        return self.waiting_bytes + size <= WAITING_BYTES_MAX

    def send(self, message: Outgoing) -> None:
        """Leaves with all others of this turn of the loop. Who sends asks `has_room` before."""
        if self._transport is None:
            return
        if len(self._small) >= WAITING_MESSAGES_MAX:
            self.end(f"does not read: {len(self._small)} messages wait")
            return
        self.waiting_bytes += message.bytes_left
        (self._small if message.is_small else self._large).append(message)
        if not self._flush_is_due and not self._paused:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    def withdraw(self, message: Outgoing) -> None:
        """What was not handed to the transport yet stays here."""
        queue = self._small if message.is_small else self._large
        if message in queue:
            queue.remove(message)
            self.waiting_bytes -= message.bytes_left

    def _flush(self) -> None:
        """Small ones first, then parts in turn until the transport has enough; always one, so that none starves."""
        self._flush_is_due = False
        self._write_small()
        part_is_due = True
        while self._large and self._transport is not None and (part_is_due or not self._paused):
            part_is_due = False
            message = self._large.popleft()
            self._transport.write(self._next_frame(message))
            if message.bytes_left:
                self._large.append(message)

    def _write_small(self) -> None:
        """As many in one write as fit in the transport's buffer."""
        while self._small and self._transport is not None and not self._paused:
            frames, size = [], 0
            while self._small and size < _BUFFER_BYTES:
                frames.append(self._next_frame(self._small.popleft()))
                size += len(frames[-1])
            self._transport.write(b"".join(frames))

    def _next_frame(self, message: Outgoing) -> bytes:
        before = message.bytes_left
        frame = message.next_frame()
        self.waiting_bytes -= before - message.bytes_left
        return frame

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()

    # ---- receiving ----

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        received = self._rest + data if self._rest else data
        position, end = 0, len(received)
        try:
            while end - position >= _FRAME.size and self.is_open:
                length, kind, number = _FRAME.unpack_from(received, position)
                if length > FRAME_BYTES_MAX:
                    raise FrameError(f"a frame of {length} bytes, the limit is {FRAME_BYTES_MAX}")
                stop = position + _FRAME.size + length
                if stop > end:
                    break
                self.frames_received += 1
                self.on_frame(kind, number, received[position + _FRAME.size : stop])
                position = stop
        except FrameError as error:
            self.end(f"sent what is no call: {error}")
            return
        self._rest = received[position:]

    # ---- life ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=_BUFFER_BYTES)
        connection = transport.get_extra_info("socket")
        for level, option, value in (
            (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS_MAX),
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_AFTER_S),
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1),
            (socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _BUFFER_BYTES),
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        ):
            connection.setsockopt(level, option, value)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(exc or ConnectionResetError("the connection was closed"))

    def end(self, why: str) -> None:
        """Give the connection up, with everything that waits."""
        if self._transport is not None:
            log.warning("connection with %s is closed: it %s", self.peer_name, why)
            self.close(ConnectionAbortedError(f"the connection was closed, since the peer {why}"))

    def close(self, error: Exception) -> None:
        if self._transport is not None:
            abort(self._transport)
            self._lost(error)

    def _lost(self, error: Exception) -> None:
        """Once, whoever notices first."""
        if self._transport is None:
            return
        self._transport = None
        self._rest = b""
        self._small.clear()
        self._large.clear()
        self.waiting_bytes = 0
        self.on_lost(error)
