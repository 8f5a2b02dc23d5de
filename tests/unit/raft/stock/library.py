"""PySyncObj's published class in a world: its own tick, log and messages; only sockets and clock are ours."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from pysyncobj import SyncObj, SyncObjConf, replicated
from pysyncobj import syncobj as library
from pysyncobj.node import Node
from pysyncobj.transport import Transport

from tests.unit.raft.stock.world import TICK_S, Pair, World, Write


class Numbers(SyncObj):
    """The replicated state: numbers in the order in which they were applied."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.numbers: list[int] = []

    @replicated
    def put(self, number: int, padding: bytes = b"") -> int:
        self.numbers.append(number)
        return number

    @replicated
    def put_poison(self) -> None:
        raise ValueError("poison")


def private(node: SyncObj, name: str) -> Any:
    return getattr(node, f"_SyncObj__{name}")


def set_private(node: SyncObj, name: str, value: Any) -> None:
    setattr(node, f"_SyncObj__{name}", value)


class FifoTransport(Transport):
    """Knows the same nodes as the stock TCP transport would, and drops the same: what comes from strangers and
    what is sent without a connection."""

    def __init__(self, world: LibraryWorld, node: str, others: list[str]) -> None:
        super().__init__(None, None, [])
        self.world = world
        self.node = node
        self.known = set(others)

    def addNode(self, node: Node) -> None:
        self.known.add(node.id)
        self.world.connect()

    def dropNode(self, node: Node) -> None:
        self.known.discard(node.id)

    def send(self, node: Node, message: Any) -> bool:
        return self.world.send((self.node, node.id), message)


class LibraryWorld(World):
    def __init__(self, **settings: Any) -> None:
        """`settings` for SyncObjConf: all others are its defaults."""
        super().__init__()
        self.settings = settings
        self.per_node: dict[str, dict[str, Any]] = {}
        self.nodes: dict[str, Numbers] = {}
        self.transports: dict[str, FifoTransport] = {}
        self.links: dict[Pair, deque[Any]] = {}
        self.broken: set[Pair] = set()
        self.seen: list[tuple[str, str, dict[str, Any]]] = []
        self.raised: list[tuple[str, Exception]] = []

    # ---- managers ----

    def start(self, *ids: str) -> None:
        for node in ids:
            self.start_one(node, [other for other in ids if other != node])

    def start_one(self, node: str, others: list[str]) -> Numbers:
        transport = FifoTransport(self, node, others)
        configuration = SyncObjConf(autoTick=False, **{**self.settings, **self.per_node.get(node, {})})
        made = Numbers(Node(node), [Node(other) for other in others], configuration, transport=transport)
        self.nodes[node] = made
        self.transports[node] = transport
        self.connect()
        return made

    def crash(self, node: str) -> None:
        """As kill -9: nothing is closed."""
        del self.nodes[node], self.transports[node]
        for pair in [pair for pair in self.links if node in pair]:
            self._disconnect(pair)

    @property
    def running(self) -> list[str]:
        return list(self.nodes)

    def leads(self, node: str) -> bool:
        return bool(self.nodes[node]._isLeader())

    def term(self, node: str) -> int:
        return int(self.nodes[node].raftCurrentTerm)

    def applied(self, node: str) -> list[int]:
        return list(self.nodes[node].numbers)

    def elect(self, node: str) -> None:
        stands_at = self.now

        def won() -> bool:
            nonlocal stands_at
            for other in self.nodes.values():
                set_private(other, "raftElectionDeadline", self.now + 1.0)
            if not self.leads(node) and self.now >= stands_at:
                set_private(self.nodes[node], "raftElectionDeadline", 0.0)
                stands_at = self.now + 0.3
            return self.leads(node)

        self.until(won)

    def compact_at(self, entries: int) -> None:
        """Not by itself: see `compact`."""

    def compact(self, node: str) -> None:
        self.nodes[node].forceLogCompaction()
        self.run(0.1)
        assert private(self.nodes[node], "raftLog")[0][1] > 2

    def refuse_snapshots(self, node: str, refuse: bool = True) -> None:
        def fail() -> object:
            raise OSError(5, "Input/output error")

        serializer = private(self.nodes[node], "serializer")
        if refuse:
            serializer.deserialize = fail
        else:
            del serializer.deserialize

    def propose(self, node: str, size: int = 0) -> Write:
        write = self._new_write()
        self.nodes[node].put(write.number, b"x" * size, callback=write)
        return write

    # ---- the network: one connection per pair, both ways ----

    def connect(self) -> None:
        for source in self.nodes:
            for target in self.nodes:
                pair = (source, target)
                if pair in self.links or source == target or pair in self.broken:
                    continue
                if target in self.transports[source].known and source in self.transports[target].known:
                    self.links[pair] = deque()
                    self.transports[source]._onNodeConnected(Node(target))

    def _disconnect(self, pair: Pair) -> None:
        if self.links.pop(pair, None) is None:
            return
        self.held.forget(pair)
        if pair[0] in self.nodes:
            self.transports[pair[0]]._onNodeDisconnected(Node(pair[1]))

    def cut(self, *pairs: Pair) -> None:
        for pair in pairs:
            self.broken.add(pair)
            self._disconnect(pair)

    def isolate(self, node: str) -> None:
        for other in self.nodes:
            if other != node:
                self.cut((node, other), (other, node))

    def heal(self) -> None:
        self.broken.clear()
        self.connect()

    def send(self, pair: Pair, message: Any) -> bool:
        if pair not in self.links:
            return False
        if pair not in self.lossy and not self.held.keeps(pair, message):
            self.links[pair].append(message)
        return True

    def release(self, source: str, target: str, count: int | None = None) -> None:
        queue = self.held.queues[source, target]
        for _ in range(len(queue) if count is None else min(count, len(queue))):
            self.links[source, target].append(queue.popleft())
        if count is None:
            del self.held.queues[source, target]
        self.deliver()

    def observer(self, target: str) -> Node:
        """A read-only connection to one manager: the TCP transport makes a node without a name of it."""
        node = Node("0")
        self.transports[target]._onReadonlyNodeConnected(node)
        return node

    def inject(self, source: str, target: str, message: dict[str, Any]) -> None:
        """As if it had just arrived."""
        self.transports[target]._onMessageReceived(Node(source), message)

    def deliver(self) -> None:
        """All that is under way; an exception costs the message, as in the library's own thread."""
        moved = True
        while moved:
            moved = False
            for (source, target), queue in list(self.links.items()):
                while queue and target in self.nodes:
                    message = queue.popleft()
                    moved = True
                    self.seen.append((source, target, message))
                    self._guarded(target, lambda s=source, t=target, m=message: self.inject(s, t, m))

    # ---- time ----

    def step(self) -> None:
        self.now += TICK_S
        for node in set(self.nodes) - self.paused:
            self.tick(node)
        self.deliver()

    def tick(self, node: str) -> None:
        self._guarded(node, lambda: self.nodes[node].doTick(0.0))

    def _guarded(self, node: str, work: Callable[[], object]) -> None:
        """The library's thread logs what a tick raises and goes on."""
        try:
            work()
        except Exception as err:  # noqa: BLE001 (whatever it is, that thread survives it)
            self.raised.append((node, err))

    def patch_clock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(library, "monotonicTime", lambda: self.now)
