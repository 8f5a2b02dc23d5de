"""Stream pairs over the simulated network: asyncio's own readers, and writers that put bytes on the way.

A connection is one way, as raft.transport uses it: the near end (whoever dialled) writes, the far end reads,
and both learn that it has ended, each at its own time. A write is what the network delays, loses or repeats
as a whole; the far end gets it in one or two pieces.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from tests.sim.loop import NodeLoop


class Carrier(Protocol):
    """The network below a connection."""

    def carry(self, connection: Connection, data: bytes) -> None:
        """Deliver it, perhaps."""

    def finish(self, connection: Connection, by_near: bool) -> None:
        """One end has closed: tell the other when everything before has arrived."""


class Reader(asyncio.StreamReader):
    """`is_replaced`: a newer connection of that peer was accepted, nothing of this one counts any more."""

    def __init__(self, loop: NodeLoop, on_stale_read: Callable[[], None]) -> None:
        super().__init__(loop=loop)
        self.is_replaced = False
        self._on_stale_read = on_stale_read

    def readexactly(self, n: int):  # type: ignore[no-untyped-def]  # a coroutine of the base class
        if self.is_replaced:
            self._on_stale_read()
        return super().readexactly(n)


class End:
    """One end: what arrives there and whether it has ended. Everything happens in the node's own time."""

    def __init__(self, loop: NodeLoop, on_stale_read: Callable[[], None]) -> None:
        self.loop = loop
        self.reader = Reader(loop, on_stale_read)
        self.has_ended = False
        self._arrived: deque[bytes] = deque()
        self._is_feeding = False

    def feed(self, *pieces: bytes) -> None:
        """One piece in each iteration of the loop."""
        if self.has_ended:
            return
        self._arrived.extend(pieces)
        if not self._is_feeding:
            self._is_feeding = True
            self.loop.call_soon(self._feed)

    def _feed(self) -> None:
        if self._arrived:
            self.reader.feed_data(self._arrived.popleft())
        self._is_feeding = bool(self._arrived)
        if self._is_feeding:
            self.loop.call_soon(self._feed)

    def end(self, error: OSError | None = None) -> None:
        """The peer, the network or this end itself has ended the connection."""
        self.loop.call_soon(self._end, error)

    def _end(self, error: OSError | None) -> None:
        if self.has_ended:
            return
        self.has_ended = True
        if error is None:
            for data in self._arrived:
                self.reader.feed_data(data)
            self.reader.feed_eof()
        else:
            self.reader.set_exception(error)
        self._arrived.clear()


class Writer:
    """The part of asyncio.StreamWriter that raft.transport uses; it is its own transport."""

    def __init__(self, connection: Connection, end: End) -> None:
        self._connection = connection
        self._end = end
        self._is_closing = False

    @property
    def transport(self) -> Writer:
        return self

    def write(self, data: bytes) -> None:
        assert self._end is self._connection.near, "only whoever dialled writes"
        if not self.is_closing() and not self._end.loop.is_dead:
            self._connection.write(data)

    def is_closing(self) -> bool:
        return self._is_closing or self._end.has_ended

    def close(self) -> None:
        if not self._is_closing and not self._end.loop.is_dead:
            self._is_closing = True
            self._connection.closed_by(self._end)
            self._end.end()

    def abort(self) -> None:
        self._connection.lose()
        self.close()

    def get_write_buffer_size(self) -> int:
        return self._connection.waiting_bytes


class Connection:
    """`is_cut`: nothing that is written from now on arrives; `is_lost`: nor does what is on its way."""

    def __init__(
        self,
        carrier: Carrier,
        pair: tuple[str, str],
        loops: tuple[NodeLoop, NodeLoop],
        on_stale_read: Callable[[], None],
        era: int = 0,
    ) -> None:
        """`era`: the near end's, see tests.sim.network."""
        self.pair = pair
        self.era = era
        self.near = End(loops[0], on_stale_read)
        self.far = End(loops[1], on_stale_read)
        self.is_cut = self.is_lost = False
        self.waiting_bytes = 0
        self._carrier = carrier

    def near_streams(self) -> tuple[Reader, Writer]:
        return self.near.reader, Writer(self, self.near)

    def far_streams(self) -> tuple[Reader, Writer]:
        return self.far.reader, Writer(self, self.far)

    def write(self, data: bytes) -> None:
        self.waiting_bytes += len(data)
        self._carrier.carry(self, data)

    def closed_by(self, end: End) -> None:
        self._carrier.finish(self, by_near=end is self.near)

    def lose(self) -> None:
        """What is on its way will not arrive."""
        self.is_cut = self.is_lost = True
