"""Simulated time: a queue of events, and the clocks and dice that take the place of the real ones."""

from __future__ import annotations

import heapq
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pysyncobj.syncobj
import pytest

from node import lost_log, membership_keeper
from node.loop import Backoff
from raft import transport

EPOCH_S = 1000.0
BACKOFF_MAX_S = 1.0  # of whoever asks to be taken in
READS_MAX = 20_000  # of the clock in one turn

Action = Callable[[], None]


class Events:
    """What is going to happen. Equal times happen in the order in which they were asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        self._queue: list[tuple[float, int, Action]] = []
        self._count = 0

    def at(self, time: float, action: Action) -> None:
        self._count += 1
        heapq.heappush(self._queue, (max(time, self.now), self._count, action))

    def after(self, delay: float, action: Action) -> None:
        self.at(self.now + delay, action)

    def next(self, until: float) -> Action | None:
        """Move on to the next event and return it; None when nothing happens before `until`."""
        if not self._queue or self._queue[0][0] > until:
            self.now = max(self.now, until)
            return None
        self.now, _, action = heapq.heappop(self._queue)
        return action


class NodeClock:
    """A node's own monotonic clock, which runs a little fast or slow, and its own dice."""

    def __init__(self, events: Events, seed: str) -> None:
        self.dice = random.Random(seed)
        self._events = events
        self._rate = self.dice.uniform(0.98, 1.02)
        self._offset = self.dice.uniform(0.0, EPOCH_S)

    def read(self) -> float:
        return EPOCH_S + self._offset + self._events.now * self._rate

    def moment(self, reading: float) -> float:
        """The simulated time at which this clock reads that."""
        return (reading - EPOCH_S - self._offset) / self._rate


class _Dice:
    """Stands for the `random` module: the dice of the node that has its turn."""

    def __init__(self) -> None:
        self.clock: NodeClock | None = None

    def random(self) -> float:
        assert self.clock is not None, "PySyncObj runs outside of a node's turn"
        return self.clock.dice.random()


class Turns:
    """Whose clock and dice the managers' code sees."""

    def __init__(self, seed: int) -> None:
        self._dice = _Dice()
        self._bytes = random.Random(f"{seed} bytes")
        self._reads = 0

    def enter(self, clock: NodeClock | None) -> NodeClock | None:
        """From now on it is that node's turn; returns whose it was."""
        outer, self._dice.clock = self._dice.clock, clock
        self._reads = 0
        return outer

    @contextmanager
    def installed(self, patch: pytest.MonkeyPatch) -> Iterator[None]:
        library: Any = pysyncobj.syncobj
        with patch.context() as context:
            context.setattr(library, "monotonicTime", self._read)
            context.setattr(library, "random", self._dice)
            context.setattr(transport, "random", self._dice)
            backoff = partial(Backoff, most=BACKOFF_MAX_S, random=self._dice.random)
            context.setattr(lost_log, "Backoff", backoff)
            context.setattr(membership_keeper, "Backoff", backoff)
            context.setattr(os, "urandom", self._bytes.randbytes)
            # Sets of nodes are gone through in the order of their hashes, which must not change between runs.
            context.setattr(library.Node, "__hash__", lambda node: sum(node.id.encode()))
            yield

    def _read(self) -> float:
        assert self._dice.clock is not None, "PySyncObj runs outside of a node's turn"
        self._reads += 1
        if self._reads > READS_MAX:
            raise RuntimeError("a turn that never ends: it waits for a clock that stands still")
        return self._dice.clock.read()
