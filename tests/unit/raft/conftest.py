"""Managers in one thread over a simulated network and clock: the production engine, log, WAL and snapshots.

Only time, the network and the host are replaced. Disks are real files; a crash forgets what was not synced.
"""

from __future__ import annotations

import contextlib
import pickle
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pysyncobj.syncobj
import pytest

from raft import messages
from raft.files import OS_FILES, Files
from raft.log import Log
from raft.membership import Configuration
from raft.messages import AnyMessage, Message
from raft.replication import MEMBERSHIP
from raft.snapshot import Snapshot, SnapshotMeta, make
from raft.stock import SUCCESS, Timings
from raft.syncobj import Engine
from raft.wal import Wal
from tests.unit.raft.consensus_world import World

KEY = b"k" * 32
STEP_S = 0.01


class Machine:
    """A list of (index, command)."""

    def __init__(self) -> None:
        self.applied: list[tuple[int, bytes]] = []

    def encode(self) -> bytes:
        return repr(self.applied).encode()

    def decode(self, data: bytes) -> None:
        self.applied = eval(data.decode(), {})


class Manager:
    """One node: its engine, and what survives a crash of it."""

    def __init__(self, cluster: Cluster, node_id: str) -> None:
        self.cluster = cluster
        self.id = node_id
        self.folder = cluster.folder / node_id
        self.stored: Snapshot | None = None
        self.peers: dict[str, str] = {}
        self.refuse_snapshots = False
        self.files: Files = OS_FILES

    @property
    def commands(self) -> list[bytes]:
        return [command for _, command in self.machine.applied]

    def start(self, first_configuration: Configuration | None = None) -> None:
        wal, state = Wal.open(self.folder, KEY, self.id, self.files)
        log = Log(wal, state)
        if first_configuration is not None and log.last == 0:
            log.add(MEMBERSHIP + first_configuration.encode(), 1, 1)
            log.setCurrentTerm(1, None)
            log.sync()
        self.machine = Machine()
        if self.stored is not None:
            self.machine.decode(self.stored.data)
        base = self.stored.meta if self.stored else SnapshotMeta(0, 0, Configuration(), 0, 0)
        self.log = log
        self.engine = Engine(self.id, self, log, base, Timings(), self.cluster.snapshot_interval, 5)
        self.cluster.up[self.id] = self
        self.cluster.connect_all(self.id)

    def crash(self) -> None:
        del self.cluster.up[self.id]
        self.log.close()
        self.cluster.disconnect_all(self.id)

    def propose(self, command: bytes) -> list[tuple[object, int]]:
        """Returns a list that gets the outcome."""
        outcome: list[tuple[object, int]] = []
        self.engine.propose(b"i" * 16, command, lambda result, reason: outcome.append((result, reason)))
        return outcome

    # ---- raft.replication.Host ----

    def send(self, node_id: str, message: Message) -> None:
        self.cluster.send(self.id, node_id, message)

    def congested(self, node_id: str) -> bool:
        return False

    def set_peers(self, addresses: dict[str, str]) -> None:
        self.peers = addresses

    def apply(self, command: bytes, index: int) -> object:
        if command == b"poison":
            raise ValueError("poison")
        self.machine.applied.append((index, command))
        return index

    def load(self, snapshot: Snapshot) -> None:
        self.machine.decode(snapshot.data)

    def start_snapshot(self, index: int, term: int, configuration: Configuration) -> None:
        self.stored = make(index, term, configuration, self.machine.encode())
        self.cluster.later.append(lambda: self._snapshot_stored(index))

    def _snapshot_stored(self, index: int) -> None:
        self.engine.snapshot_stored(index)
        with contextlib.suppress(OSError):
            self.log.remove_dropped()

    def start_install(self, snapshot: Snapshot) -> None:
        if self.refuse_snapshots:
            self.cluster.later.append(lambda: self.engine.install(None))
            return
        self.stored = snapshot
        self.cluster.later.append(lambda: self.engine.install(snapshot))

    def snapshot(self) -> Snapshot | None:
        return self.stored

    def changed(self) -> None:
        """The tests ask when they want to know."""


class Cluster:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = 100.0
        self.snapshot_interval = 1_000_000
        self.managers: dict[str, Manager] = {}
        self.up: dict[str, Manager] = {}
        self.later: deque[Callable[[], None]] = deque()
        self.links: dict[tuple[str, str], deque[bytes]] = {}
        self.cut: set[tuple[str, str]] = set()
        self.seen: list[tuple[str, str, AnyMessage]] = []

    def manager(self, node_id: str) -> Manager:
        if node_id not in self.managers:
            self.managers[node_id] = Manager(self, node_id)
        return self.managers[node_id]

    def start(self, *node_ids: str) -> list[Manager]:
        """A cluster whose first configuration has all of them."""
        configuration = Configuration({node_id: f"{node_id}:2377" for node_id in node_ids})
        nodes = [self.manager(node_id) for node_id in node_ids]
        for node in nodes:
            node.start(configuration)
        return nodes

    # ---- the network: FIFO links, each with its connection ----

    def connect_all(self, node_id: str) -> None:
        for other in list(self.up):
            for pair in ((node_id, other), (other, node_id)):
                if other != node_id and pair not in self.cut:
                    self.links[pair] = deque()
                    self.up[pair[0]].engine.connected(pair[1])

    def disconnect_all(self, node_id: str) -> None:
        for pair in [pair for pair in self.links if node_id in pair]:
            self._disconnect(pair)

    def _disconnect(self, pair: tuple[str, str]) -> None:
        self.links.pop(pair, None)
        if pair[0] in self.up:
            self.up[pair[0]].engine.disconnected(pair[1])

    def partition(self, *pairs: tuple[str, str]) -> None:
        """Cut one-way links."""
        for pair in pairs:
            self.cut.add(pair)
            self._disconnect(pair)

    def isolate(self, node_id: str) -> None:
        self.partition(
            *((a, b) for o in self.managers for a, b in ((node_id, o), (o, node_id)) if o != node_id)
        )

    def heal(self) -> None:
        cut, self.cut = self.cut, set()
        for source, target in cut:
            if source in self.up and target in self.up:
                self.links[(source, target)] = deque()
                self.up[source].engine.connected(target)

    def send(self, source: str, target: str, message: Message) -> None:
        if (source, target) in self.links:
            self.links[(source, target)].append(messages.encode(message))

    # ---- time ----

    def deliver(self) -> None:
        """Everything that is under way, and every turn it leads to."""
        for _ in range(1000):
            moved = False
            for (source, target), queue in list(self.links.items()):
                while queue and target in self.up and (source, target) in self.links:
                    message = messages.decode(queue.popleft())
                    self.seen.append((source, target, message))
                    self.up[target].engine.receive(source, message)
                    moved = True
            while self.later:
                self.later.popleft()()
                moved = True
            for node in list(self.up.values()):
                node.engine.turn()
            if not moved:
                return
        raise AssertionError("the managers never stop talking")

    def step(self) -> None:
        self.now += STEP_S
        for node in list(self.up.values()):
            node.engine.turn()
        self.deliver()

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP_S)):
            self.step()

    def until(self, condition: Callable[[], object], limit_s: float = 10.0) -> float:
        """Seconds of simulated time until it held."""
        start = self.now
        while not condition():
            assert self.now - start < limit_s, "did not happen"
            self.step()
        return self.now - start

    def leader(self) -> Manager:
        """The only one; waits for it."""
        self.until(lambda: any(n.engine.is_leader() for n in self.up.values()))
        return max(self.up.values(), key=lambda n: (n.engine.is_leader(), n.engine.term()))

    def followers(self) -> list[Manager]:
        leader = self.leader()
        return [node for node in self.up.values() if node is not leader]

    def write(self, command: bytes) -> None:
        """Propose on the leader and wait for success."""
        outcome = self.leader().propose(command)
        self.until(lambda: outcome)
        assert outcome[0][1] == SUCCESS, outcome

    def close(self) -> None:
        for node in list(self.up.values()):
            node.crash()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    monkeypatch.setattr(pysyncobj.syncobj, "monotonicTime", lambda: made.now)
    yield made
    made.close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    for node in list(made.nodes.values()):
        await node.stop()


@pytest.fixture
def no_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    """What arrives must never become objects by being unpickled, nor what leaves be made so."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("pickle was used")

    for name in ("loads", "load", "dumps", "dump", "_loads", "_load", "_dumps", "_dump"):
        monkeypatch.setattr(pickle, name, refuse)
