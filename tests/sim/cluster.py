"""Nodes in one thread: the production engine, log, WAL, snapshots and store over simulated everything else.

A `Manager` does what raft.consensus does around the engine: one turn per burst of events and one every
20 ms, snapshots in the background. It keeps its disk over a crash, and nothing else.
"""

from __future__ import annotations

import contextlib
import random
from pathlib import PurePosixPath
from typing import Any

from raft import snapshot as snapshots
from raft.framing import Damaged
from raft.membership import Configuration
from raft.messages import AnyMessage, Message
from raft.replication import MEMBERSHIP
from raft.snapshot import Snapshot, SnapshotMeta
from raft.stock import Timings
from raft.store import Prepared, Store
from raft.syncobj import Engine
from raft.wal import Wal
from tests.sim.clock import Action, Events, NodeClock, Turns
from tests.sim.disk import Disk, PowerCut
from tests.sim.invariants import Oracle, WatchedLog
from tests.sim.network import Network

KEY = b"k" * 32
TICK_S = 0.02
SNAPSHOT_INTERVAL = 25
KEEP_ENTRIES = 4
BACKGROUND_S = 0.15

_WAL: Any = PurePosixPath("/raft/wal")
_SNAPSHOTS: Any = PurePosixPath("/raft/snapshots")
_EMPTY = SnapshotMeta(index=0, term=0, configuration=Configuration(), size=0, crc32=0)


class Manager:
    def __init__(self, cluster: Cluster, node_id: str) -> None:
        self.id = node_id
        self.up = False
        self.peers: dict[str, str] = {}
        self.disk = Disk(random.Random(f"{cluster.seed} disk {node_id}"))
        self.life = 0  # counts the starts; what an earlier life began is void
        self.busy_until = 0.0
        self._cluster = cluster
        self._clock = NodeClock(cluster.events, f"{cluster.seed} clock {node_id}")
        self._inbox: list[Action] = []
        self._woken = False
        self._snapshot: Snapshot | None = None
        self._reading = False
        self._stored_count = 0
        self._prepared: Prepared | None = None

    # ---- life and death ----

    def start(self, first: Configuration | None = None) -> None:
        """Begin a new life with what the disk holds; `first` is written to an empty disk."""
        self.life += 1
        self._inbox, self._woken, self._snapshot, self._reading = [], False, None, False
        self.peers = {}
        try:
            with self._cluster.turns.of(self._clock):
                self._load(first)
        except PowerCut:
            self.disk.crash()
            self._cluster.restart_later(self, 0.1)
            return
        except OSError:
            self._cluster.restart_later(self, 0.1)
            return
        self.up = True
        self._cluster.network.refresh()
        self._tick(self.life)

    def _load(self, first: Configuration | None) -> None:
        base = snapshots.load_latest(_SNAPSHOTS, KEY, self.disk)
        wal, state = Wal.open(_WAL, KEY, self.id, self.disk)
        self.log = WatchedLog(wal, state)
        if first is not None and self.log.last == 0:
            self.log.add(MEMBERSHIP + first.encode(), 1, 1)
            self.log.setCurrentTerm(1, None)
            self.log.sync()
        assert self.log.base <= (0 if base is None else base.meta.index), "the log begins after the snapshot"
        self.store = Store(None, lambda: self._cluster.events.now)
        # Without an event loop there is nothing to wait on; losing again and again is fine here.
        self.store._contended = contextlib.nullcontext()  # type: ignore[assignment]
        if base is not None:
            self.store.adopt(self.store.prepare(base.pieces))
        meta = _EMPTY if base is None else base.meta
        self.engine = self._cluster.make_engine(self, meta)
        self._cluster.oracle.on_start(self)

    def crash(self) -> None:
        if self.up:
            self.up = False
            self._cluster.oracle.on_crash(self)
        self.life += 1
        self.disk.crash()
        self._cluster.network.refresh()

    # ---- turns ----

    def do(self, action: Action) -> None:
        """At the node's next turn, which is at once unless it is busy."""
        self._inbox.append(action)
        if not self._woken:
            self._woken = True
            life = self.life
            self._cluster.events.at(self.busy_until, lambda: self._wake(life))

    def _tick(self, life: int) -> None:
        if self.up and life == self.life:
            self.do(lambda: None)
            self._cluster.events.after(TICK_S, lambda: self._tick(life))

    def _wake(self, life: int) -> None:
        if not self.up or life != self.life:
            return
        self._woken = False
        if self.busy_until > self._cluster.events.now:  # paused meanwhile
            self._woken = True
            self._cluster.events.at(self.busy_until, lambda: self._wake(life))
            return
        inbox, self._inbox = self._inbox, []
        self.disk.waited_s = 0.0
        with self._surviving(), self._cluster.turns.of(self._clock):
            for action in inbox:
                action()
            self.engine.turn()
            with contextlib.suppress(OSError):
                self.log.remove_dropped()
            self._cluster.oracle.touch(self)
            if self.engine.has_more_to_apply():
                self.do(lambda: None)
        self.busy_until = max(self.busy_until, self._cluster.events.now + self.disk.waited_s)

    @contextlib.contextmanager
    def _surviving(self) -> Any:
        try:
            yield
        except PowerCut:
            self._cluster.power_cut(self)

    def _later(self, action: Action) -> None:
        """A step of work in the background."""
        life = self.life

        def run() -> None:
            if self.up and life == self.life:
                with self._surviving():
                    action()

        self._cluster.events.after(self._clock.dice.uniform(0, BACKGROUND_S), run)

    # ---- tests.sim.network.Endpoint ----

    def on_message(self, source: str, message: AnyMessage) -> None:
        self.do(lambda: self.engine.receive(source, message))

    def on_connected(self, target: str) -> None:
        self.do(lambda: self.engine.connected(target))

    def on_disconnected(self, target: str) -> None:
        self.do(lambda: self.engine.disconnected(target))

    def on_inbound_lost(self, source: str) -> None:
        self.do(lambda: self.engine.leader_connection_lost(source))

    # ---- raft.replication.Host ----

    def send(self, node_id: str, message: Message) -> None:
        self._cluster.sent(self, node_id, message)

    def congested(self, node_id: str) -> bool:
        return False

    def set_peers(self, addresses: dict[str, str]) -> None:
        self.peers = addresses
        for peer in addresses:
            self._cluster.manager(peer)
        # The engine is in the middle of something.
        self._cluster.events.after(0.0, self._cluster.network.refresh)

    def apply(self, command: bytes, index: int) -> object:
        result = self.store.apply(command, index)
        self._cluster.oracle.on_apply(self, index)
        return result

    def load(self, snapshot: Snapshot) -> None:
        assert self._prepared is not None, "only a snapshot that is being installed is loaded"
        self.store.adopt(self._prepared)
        self._cluster.oracle.on_load(self)

    def start_snapshot(self, index: int, term: int, configuration: Configuration) -> None:
        dump = self.store.dump()

        def save() -> None:
            made = snapshots.make_of_pieces(index, term, configuration, self.store.pieces(dump))
            stored = self._save(made)
            self._later(lambda: self._stored(lambda: self.engine.snapshot_stored(index if stored else None)))

        self._later(save)

    def start_install(self, snapshot: Snapshot) -> None:
        def save() -> None:
            self._prepared = self.store.prepare(snapshot.pieces)
            stored = self._save(snapshot)
            self._later(lambda: self._stored(lambda: self.engine.install(snapshot if stored else None)))

        self._later(save)

    def snapshot(self) -> Snapshot | None:
        if self._snapshot is None and not self._reading:
            self._reading = True
            self._later(self._read)
        return self._snapshot

    def changed(self) -> None:
        """The clients look for themselves."""

    def _save(self, snapshot: Snapshot) -> bool:
        try:
            snapshots.save(_SNAPSHOTS, KEY, snapshot, self.disk)
        except OSError:
            return False
        return True

    def _stored(self, tell: Action) -> None:
        self._snapshot = None
        self._stored_count += 1
        self.do(tell)

    def _read(self) -> None:
        stored = self._stored_count
        try:
            latest = snapshots.load_latest(_SNAPSHOTS, KEY, self.disk)
        except Damaged:
            self._later(lambda: self._have_read(None, stored, self.engine.snapshot_lost))
        else:
            self._later(lambda: self._have_read(latest, stored, self.engine.send_soon))

    def _have_read(self, latest: Snapshot | None, stored: int, tell: Action) -> None:
        if stored == self._stored_count:
            self._snapshot = latest
        self._reading = False
        self.do(tell)


class Cluster:
    def __init__(self, seed: int, engine: type[Engine] = Engine) -> None:
        self.seed = seed
        self.events = Events()
        self.turns = Turns()
        self.network = Network(self.events, seed)
        self.oracle = Oracle()
        self.managers: dict[str, Manager] = {}
        self._engine = engine

    def manager(self, node_id: str) -> Manager:
        if node_id not in self.managers:
            self.managers[node_id] = Manager(self, node_id)
            self.network.add(node_id, self.managers[node_id])
        return self.managers[node_id]

    def start(self, node_ids: list[str]) -> None:
        """A cluster whose first configuration has all of them."""
        first = Configuration({node_id: node_id for node_id in node_ids})
        for node_id in node_ids:
            self.manager(node_id).start(first)

    def make_engine(self, manager: Manager, base: SnapshotMeta) -> Engine:
        return self._engine(
            manager.id, manager, manager.log, base, Timings(), SNAPSHOT_INTERVAL, KEEP_ENTRIES
        )

    def sent(self, manager: Manager, node_id: str, message: Message) -> None:
        """The message leaves when the disk operations before it are over, unless a crash comes first."""
        self.oracle.on_send(manager, node_id, message)
        at = self.events.now + manager.disk.waited_s
        self.network.send(manager.id, node_id, message, at)

    def power_cut(self, manager: Manager) -> None:
        manager.crash()
        self.restart_later(manager, 0.3)

    def restart_later(self, manager: Manager, seconds: float) -> None:
        life = manager.life

        def restart() -> None:
            if not manager.up and manager.life == life:  # nobody else has started it
                manager.start()

        self.events.after(seconds, restart)

    def run(self, until: float) -> int:
        """Returns how many events there were."""
        count = 0
        while (action := self.events.next(until)) is not None:
            action()
            self.oracle.check()
            count += 1
        return count

    def leaders(self) -> list[Manager]:
        return [m for m in self.managers.values() if m.up and m.engine.is_leader()]
