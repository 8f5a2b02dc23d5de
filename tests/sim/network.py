"""What carries the connections between the nodes: delays, cuts, stalls, losses, and ends that learn late.

As TCP it keeps the order of a connection and tells both ends when it has ended, each at its own time, perhaps
while a newer one is open already. Worse than TCP, it may lose and repeat what was written, and deliver on the
newer connection what the older one held: Raft must bear it.
"""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from tests.sim.clock import Events
from tests.sim.loop import NodeLoop
from tests.sim.streams import Connection, Reader, Writer

LATENCY_S = (0.0003, 0.004)
DIAL_S = (0.005, 0.08)
LATE_S = 1.5
RETRY_S = 0.2  # of a dial that nobody answers
SILENT_SHARE = 0.7  # of the dials over a cut link
SPLIT_SHARE = 0.1
REPEATED_SHARE = 0.05  # of the calls, also in a good network

Pair = tuple[str, str]  # source, target


class Endpoint(Protocol):
    """A node as the network sees it."""

    @property
    def up(self) -> bool: ...

    @property
    def address(self) -> str: ...

    @property
    def loop(self) -> NodeLoop: ...

    @property
    def era(self) -> int:
        """How many logs it has lost."""

    @property
    def writing_s(self) -> float:
        """How long the disk operations take that came before what is being sent."""

    def accept(self, source: str, reader: Reader, writer: Writer) -> None:
        """Called on the node's loop."""

    def read_stale(self) -> None:
        """It went on reading a connection that a newer one has replaced."""


class _Link:
    def __init__(self, seed: str) -> None:
        self.dice = random.Random(seed)
        self.connections: list[Connection] = []  # that at least one end believes to be open
        self.busy_until = 0.0
        self.cuts = 0
        self.stalled_until = 0.0
        self.loss = 0.0
        self.repeats = 0.0
        self.late = False

    @property
    def newest(self) -> Connection | None:
        return self.connections[-1] if self.connections else None


class Network:
    def __init__(self, events: Events, seed: int) -> None:
        self._events = events
        self._seed = seed
        self._nodes: dict[str, Endpoint] = {}
        self._links: dict[Pair, _Link] = {}
        self.digest = 0
        self.slowness = 1.0

    def add(self, node_id: str, node: Endpoint) -> None:
        for other in self._nodes:
            for pair in ((node_id, other), (other, node_id)):
                self._links[pair] = _Link(f"{self._seed} {pair}")
        self._nodes[node_id] = node

    def pairs(self) -> list[Pair]:
        return list(self._links)

    # ---- tests.sim.streams.Carrier ----

    def carry(self, connection: Connection, data: bytes) -> None:
        link = self._links[connection.pair]
        leaves = self._events.now + self._nodes[connection.pair[0]].writing_s
        arrives = max(link.busy_until, leaves + self.slowness * link.dice.uniform(*LATENCY_S))
        link.busy_until = arrives
        if connection.is_cut or link.dice.random() < link.loss:
            connection.waiting_bytes -= len(data)
            return
        self._events.at(arrives, partial(self._deliver, connection, data, len(data)))
        if link.dice.random() < link.repeats:
            later = arrives + link.dice.choice((LATE_S, LATE_S / 50)) * link.dice.random()
            self._events.at(later, partial(self._deliver, connection, data, 0))

    def finish(self, connection: Connection, by_near: bool) -> None:
        link = self._links[connection.pair]
        if by_near:
            at = max(link.busy_until, self._events.now + self.slowness * link.dice.uniform(*LATENCY_S))
            self._events.at(at, partial(self._end_far, connection))
        else:
            connection.is_cut = connection.is_lost = True
            delay = self.slowness * link.dice.uniform(*LATENCY_S)
            self._events.after(delay, partial(connection.near.end, None))
            self._forget(connection)

    def _deliver(self, connection: Connection, data: bytes, counted: int) -> None:
        link = self._links[connection.pair]
        if link.stalled_until > self._events.now:
            self._events.at(link.stalled_until, partial(self._deliver, connection, data, counted))
            return
        connection.waiting_bytes -= counted
        if connection.is_lost:
            newest = link.newest
            # What a former life of the sender wrote cannot pass for its present one's: TLS ends with a connection.
            if link.late and newest is not None and newest is not connection and newest.era == connection.era:
                again = partial(self._deliver, newest, data, 0)
                self._events.after(link.dice.uniform(0, LATE_S), again)
            return
        far = connection.far
        if far.has_ended or far.loop.is_dead:
            return
        self.digest = zlib.crc32(f"{self._events.now} {connection.pair}".encode() + data, self.digest)
        if link.dice.random() < SPLIT_SHARE:
            middle = link.dice.randint(1, len(data) - 1)
            far.feed(data[:middle], data[middle:])
        else:
            far.feed(data)

    def _end_far(self, connection: Connection) -> None:
        link = self._links[connection.pair]
        if link.stalled_until > self._events.now:
            self._events.at(link.stalled_until, partial(self._end_far, connection))
            return
        connection.far.end()
        self._forget(connection)

    # ---- calls ----

    def post(self, pair: Pair, data: bytes, arrive: Callable[[], None]) -> None:
        """Carry a request or an answer that belongs to none of the connections: late, repeated, or not at all."""
        if pair[0] == pair[1]:
            self._events.after(LATENCY_S[0], arrive)
            return
        link = self._links[pair]
        if link.cuts or link.dice.random() < link.loss:
            return
        delays = [self.slowness * link.dice.uniform(*LATENCY_S)]
        if link.dice.random() < max(link.repeats, REPEATED_SHARE):
            delays.append(link.dice.uniform(0, LATE_S))
        for delay in delays:
            self._events.after(delay, partial(self._arrive, pair, data, arrive))

    def _arrive(self, pair: Pair, data: bytes, arrive: Callable[[], None]) -> None:
        stalled_until = self._links[pair].stalled_until
        if stalled_until > self._events.now:
            self._events.at(stalled_until, partial(self._arrive, pair, data, arrive))
            return
        self.digest = zlib.crc32(f"{self._events.now} {pair} call".encode() + data, self.digest)
        arrive()

    # ---- connections ----

    async def dial(self, source: str, target: str, address: str) -> tuple[Reader, Writer]:
        """Raises ConnectionRefusedError; while the link is cut there may be no answer at all."""
        link = self._links[source, target]
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        is_silent = link.dice.random() < SILENT_SHARE
        dial = partial(self._dial, (source, target), address, self._nodes[source].loop, answered, is_silent)
        self._events.after(link.dice.uniform(*DIAL_S), dial)
        streams: tuple[Reader, Writer] = await answered
        return streams

    def _dial(
        self, pair: Pair, address: str, loop: NodeLoop, answered: asyncio.Future[Any], is_silent: bool
    ) -> None:
        link, target = self._links[pair], self._nodes[pair[1]]
        if loop.is_dead or answered.done():
            return
        if link.cuts and is_silent:
            again = partial(self._dial, pair, address, loop, answered, is_silent)
            self._events.after(link.dice.uniform(0, RETRY_S), again)
        elif link.cuts or not target.up or target.address != address:
            loop.call_soon(_refuse, answered, address)
        else:
            self._connect(pair, loop, answered)

    def _connect(self, pair: Pair, loop: NodeLoop, answered: asyncio.Future[Any]) -> None:
        link, target = self._links[pair], self._nodes[pair[1]]
        era = self._nodes[pair[0]].era
        connection = Connection(self, pair, (loop, target.loop), target.read_stale, era)
        older = list(link.connections)
        link.connections.append(connection)

        def accept() -> None:
            target.accept(pair[0], *connection.far_streams())
            for replaced in older:
                replaced.far.reader.is_replaced = True

        target.loop.call_soon(accept)
        loop.call_soon(_answer, answered, connection)

    def _forget(self, connection: Connection) -> None:
        connections = self._links[connection.pair].connections
        if connection in connections:
            connections.remove(connection)

    def _break(self, connection: Connection) -> None:
        """Both ends learn of it, mostly soon."""
        link = self._links[connection.pair]
        # What is on its way arrives as long as the far end believes in the connection, if the link is so.
        connection.is_cut = True
        connection.is_lost = not link.late or link.dice.random() < 0.5
        for end in (connection.near, connection.far):
            error = ConnectionResetError("simulated") if link.dice.random() < 0.5 else None
            limit = LATE_S if link.dice.random() < 0.2 else self.slowness * LATENCY_S[1]
            self._events.after(link.dice.uniform(0, limit), partial(end.end, error))
        self._events.after(LATE_S, partial(self._forget, connection))

    def went_down(self, node_id: str) -> None:
        """Its connections are gone, and the others will find out."""
        for pair, link in self._links.items():
            if node_id in pair:
                for connection in link.connections:
                    self._break(connection)

    # ---- faults ----

    def cut(self, pairs: list[Pair], seconds: float) -> None:
        """End these connections and let nobody dial for so long."""
        for pair in pairs:
            link = self._links[pair]
            link.cuts += 1
            for connection in link.connections:
                self._break(connection)
        self._events.after(seconds, partial(self._mend, pairs))

    def _mend(self, pairs: list[Pair]) -> None:
        for pair in pairs:
            self._links[pair].cuts -= 1

    def stall(self, pairs: list[Pair], seconds: float) -> None:
        """Nothing arrives for so long, and then all of it."""
        for pair in pairs:
            link = self._links[pair]
            link.stalled_until = max(link.stalled_until, self._events.now + seconds)

    def disturb(self, pairs: list[Pair], seconds: float, loss: float, repeats: float, late: bool) -> None:
        """Lose and repeat that share of what is written; `late`: also deliver what an ended connection held."""
        for pair in pairs:
            link = self._links[pair]
            link.loss, link.repeats, link.late = loss, repeats, late
        self._events.after(seconds, partial(self._calm, pairs))

    def _calm(self, pairs: list[Pair]) -> None:
        for pair in pairs:
            link = self._links[pair]
            link.loss, link.repeats, link.late = 0.0, 0.0, False


def _refuse(answered: asyncio.Future[Any], address: str) -> None:
    if not answered.done():
        answered.set_exception(ConnectionRefusedError(f"{address} does not answer"))


def _answer(answered: asyncio.Future[Any], connection: Connection) -> None:
    streams = connection.near_streams()
    if answered.done():
        streams[1].close()
    else:
        answered.set_result(streams)
