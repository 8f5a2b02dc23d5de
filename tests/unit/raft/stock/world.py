"""One vocabulary for scenarios that are played twice: by PySyncObj's own class and by our engine.

A world has managers, FIFO links and a clock. Links can be cut (the connection ends), lossy (it stays, what
is sent is lost) or held (it stays, what is sent waits and is let through one by one). Commands are numbered;
what a client was told is kept, so that every scenario ends with the same question: was it true?
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any

TICK_S = 0.01
SUCCESS = 0

Pair = tuple[str, str]  # from, to


class Write:
    """One command and what its client was told; `answers` has more than one only by mistake."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.answers: list[tuple[Any, int]] = []

    def __call__(self, result: Any, reason: int) -> None:
        self.answers.append((result, reason))

    @property
    def acknowledged(self) -> bool:
        return any(reason == SUCCESS for _, reason in self.answers)


class Held:
    """What waits on a link that is held."""

    def __init__(self) -> None:
        self.queues: dict[Pair, deque[Any]] = {}

    def keeps(self, pair: Pair, message: Any) -> bool:
        if pair not in self.queues:
            return False
        self.queues[pair].append(message)
        return True

    def forget(self, pair: Pair) -> None:
        if pair in self.queues:
            self.queues[pair].clear()


class World(ABC):
    """What a scenario may do."""

    def __init__(self) -> None:
        self.now = 100.0
        self.held = Held()
        self.lossy: set[Pair] = set()
        self.paused: set[str] = set()
        self.writes: list[Write] = []

    # ---- managers ----

    @abstractmethod
    def start(self, *ids: str) -> None:
        """A cluster of exactly these."""

    @abstractmethod
    def crash(self, node: str) -> None: ...

    @abstractmethod
    def leads(self, node: str) -> bool:
        """Does it think so?"""

    @abstractmethod
    def term(self, node: str) -> int: ...

    @abstractmethod
    def applied(self, node: str) -> list[int]:
        """The numbers of the commands in its state, in order."""

    @property
    @abstractmethod
    def running(self) -> list[str]: ...

    def leaders(self) -> list[str]:
        return [node for node in self.running if self.leads(node)]

    @abstractmethod
    def elect(self, node: str) -> None:
        """Let this one stand next, and wait until it leads."""

    @abstractmethod
    def compact_at(self, entries: int) -> None:
        """Make a snapshot after so many entries; before `start`, and only where it goes by itself."""

    @abstractmethod
    def compact(self, node: str) -> None:
        """Have its log begin at what it has applied by now, or nearly."""

    @abstractmethod
    def refuse_snapshots(self, node: str, refuse: bool = True) -> None:
        """From now on it cannot load what the leader sends: its disk fails; or it can again."""

    def pause(self, node: str) -> None:
        """Messages reach it, but its own tick does not come."""
        self.paused.add(node)

    def unpause(self, node: str) -> None:
        self.paused.discard(node)

    # ---- clients ----

    @abstractmethod
    def propose(self, node: str, size: int = 0) -> Write:
        """A client of that manager writes `size` bytes and a number of its own."""

    def _new_write(self) -> Write:
        write = Write(len(self.writes) + 1)
        self.writes.append(write)
        return write

    def acknowledged(self) -> set[int]:
        return {write.number for write in self.writes if write.acknowledged}

    # ---- the network ----

    @abstractmethod
    def cut(self, *pairs: Pair) -> None: ...

    @abstractmethod
    def isolate(self, node: str) -> None:
        """Cut all its links."""

    @abstractmethod
    def heal(self) -> None:
        """Connect all that was cut anew."""

    def hold(self, *pairs: Pair) -> None:
        for pair in pairs:
            self.held.queues.setdefault(pair, deque())

    def waiting(self, source: str, target: str) -> int:
        return len(self.held.queues[source, target])

    @abstractmethod
    def release(self, source: str, target: str, count: int | None = None) -> None:
        """Let `count` of the messages that are held on a link through, or all, and then hold no more."""

    # ---- time ----

    @abstractmethod
    def step(self) -> None:
        """One tick of everybody, and what it leads to."""

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK_S)):
            self.step()

    def until(self, condition: Callable[[], object], limit_s: float = 20.0) -> float:
        """Seconds of simulated time until it held."""
        start = self.now
        while not condition():
            assert self.now - start < limit_s, "did not happen"
            self.step()
        return self.now - start


def both_ways(node: str, others: str) -> list[Pair]:
    return [pair for other in others for pair in ((node, other), (other, node))]
