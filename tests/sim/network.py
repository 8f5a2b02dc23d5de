"""One-way connections between the nodes, first in first out, that can be cut, stalled, and made lossy.

As raft.transport they drop what cannot be sent, and both ends learn of an ended connection. Worse than that
transport, a link may lose, repeat and deliver late (after a reconnect) what was on its way: Raft must bear it.
"""

from __future__ import annotations

import random
import zlib
from typing import Protocol

from raft import messages
from raft.messages import AnyMessage, Message
from tests.sim.clock import Events

LATENCY_S = (0.0003, 0.004)
DIAL_S = (0.005, 0.08)
LATE_S = 1.5

Pair = tuple[str, str]  # source, target


class Endpoint(Protocol):
    """A node as the network sees it. Nothing of this is called while it is down, but `up`."""

    @property
    def up(self) -> bool: ...

    @property
    def peers(self) -> dict[str, str]: ...

    def on_message(self, source: str, message: AnyMessage) -> None: ...

    def on_connected(self, target: str) -> None: ...

    def on_disconnected(self, target: str) -> None: ...

    def on_inbound_lost(self, source: str) -> None: ...


class _Link:
    def __init__(self, seed: str) -> None:
        self.dice = random.Random(seed)
        self.open = False
        self.dialling = False
        self.connection = 0  # number of the present or last one
        self.busy_until = 0.0
        self.cuts = 0
        self.stalled_until = 0.0
        self.loss = 0.0
        self.repeats = 0.0
        self.late = False


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

    def send(self, source: str, target: str, message: Message, at: float) -> None:
        link = self._links[source, target]
        if not link.open:
            return
        data = messages.encode(message)
        link.busy_until = max(link.busy_until, at + self.slowness * link.dice.uniform(*LATENCY_S))
        if link.dice.random() < link.loss:
            return
        self._arrive(source, target, data, link.busy_until, link.connection)
        if link.dice.random() < link.repeats:
            later = link.busy_until + link.dice.choice((LATE_S, LATE_S / 50)) * link.dice.random()
            self._arrive(source, target, data, later, link.connection)

    def _arrive(self, source: str, target: str, data: bytes, at: float, connection: int) -> None:
        self._events.at(at, lambda: self._deliver(source, target, data, connection))

    def _deliver(self, source: str, target: str, data: bytes, connection: int) -> None:
        link = self._links[source, target]
        if link.stalled_until > self._events.now:
            self._arrive(source, target, data, link.stalled_until, connection)
            return
        if connection != link.connection:
            if not link.late:
                return
            delay = link.dice.uniform(0, LATE_S)
            self._arrive(source, target, data, self._events.now + delay, link.connection)
            return
        if self._nodes[target].up:
            self.digest = zlib.crc32(f"{self._events.now} {source} {target}".encode() + data, self.digest)
            self._nodes[target].on_message(source, messages.decode(data))

    # ---- connections ----

    def refresh(self) -> None:
        """Somebody came, went, or changed its peers."""
        for pair, link in self._links.items():
            wanted = self._wanted(pair, link)
            if link.open and not wanted:
                self._close(pair, link)
            elif wanted and not link.open and not link.dialling:
                link.dialling = True
                self._events.after(
                    link.dice.uniform(*DIAL_S), lambda pair=pair, link=link: self._dial(pair, link)
                )  # type: ignore[misc]

    def _wanted(self, pair: Pair, link: _Link) -> bool:
        source, target = (self._nodes[node_id] for node_id in pair)
        # Whoever is dialled by a stranger dials back.
        knows = source.up and target.up and (pair[1] in source.peers or pair[0] in target.peers)
        return knows and not link.cuts

    def _dial(self, pair: Pair, link: _Link) -> None:
        link.dialling = False
        if link.open or not self._wanted(pair, link):
            return
        link.open = True
        link.connection += 1
        link.busy_until = self._events.now
        self._nodes[pair[0]].on_connected(pair[1])

    def _close(self, pair: Pair, link: _Link) -> None:
        link.open = False
        link.connection += 1
        source, target = (self._nodes[node_id] for node_id in pair)
        if source.up:
            source.on_disconnected(pair[1])
        if target.up:
            target.on_inbound_lost(pair[0])

    # ---- faults ----

    def cut(self, pairs: list[Pair], seconds: float) -> None:
        """End these connections and let nobody dial for so long."""
        for pair in pairs:
            self._links[pair].cuts += 1
        self.refresh()
        self._events.after(seconds, lambda: self._mend(pairs))

    def _mend(self, pairs: list[Pair]) -> None:
        for pair in pairs:
            self._links[pair].cuts -= 1
        self.refresh()

    def stall(self, pairs: list[Pair], seconds: float) -> None:
        """Nothing arrives for so long, and then all of it."""
        for pair in pairs:
            link = self._links[pair]
            link.stalled_until = max(link.stalled_until, self._events.now + seconds)

    def disturb(self, pairs: list[Pair], seconds: float, loss: float, repeats: float, late: bool) -> None:
        """Lose and repeat that share of the messages; `late`: also deliver what an ended connection held."""
        for pair in pairs:
            link = self._links[pair]
            link.loss, link.repeats, link.late = loss, repeats, late
        self._events.after(seconds, lambda: self._calm(pairs))

    def _calm(self, pairs: list[Pair]) -> None:
        for pair in pairs:
            link = self._links[pair]
            link.loss, link.repeats, link.late = 0.0, 0.0, False
