"""One simulated node: the production Consensus and store on a loop, a clock and a disk of its own.

It keeps its disk over a crash, and nothing else.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, cast

from node.lost_log import is_loss
from raft.consensus import Consensus, ConsensusConfig
from raft.framing import Damaged, WrongKey
from raft.log import Log
from raft.membership import Configuration
from raft.messages import Message
from raft.replication import MEMBERSHIP
from raft.store import Prepared, Store
from raft.syncobj import Engine
from raft.wal import Wal, WalDamaged
from tests.sim.calls import Host
from tests.sim.clock import NodeClock
from tests.sim.disk import Disk, PowerCut
from tests.sim.invariants import Violation, WatchedLog
from tests.sim.loop import NodeLoop
from tests.sim.rejoin import come_back, keeper
from tests.sim.rot import Rot, rot
from tests.sim.streams import Reader, Writer

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster

KEY = b"k" * 32
CLUSTER_ID = "c1"
SNAPSHOT_INTERVAL = 25
KEEP_ENTRIES = 4
ANSWERED_BURSTS = 20  # after a stop, until everybody who waited must have heard

_FOLDER = cast(Path, PurePosixPath("/raft"))  # a real Path would ask the real disk


class Manager:
    def __init__(self, cluster: Cluster, node_id: str) -> None:
        self.id = node_id
        self.address = f"{node_id}:2377"
        self.up = False
        self.is_stopping = False
        self.rot = Rot.NONE
        self.damage = ""  # why it does not go on from its disk
        self.is_returning = False  # runs without a consensus, asks the others to take it in
        self.era = 0  # counts the logs that it lost
        self.dice = random.Random(f"{cluster.seed} node {node_id}")
        self.disk = Disk(random.Random(f"{cluster.seed} disk {node_id}"))
        self._known: Consensus | None = None  # the last one that was started
        self.life = 0  # counts the starts and ends
        self.consensus: Consensus
        self.store: Store
        self.log: WatchedLog
        self.host: Host
        self._cluster = cluster
        self._clock = NodeClock(cluster.events, f"{cluster.seed} clock {node_id}")
        self._requests: dict[asyncio.Task[Any], None] = {}
        self.loop = self._new_loop()

    @property
    def config(self) -> ConsensusConfig:
        return ConsensusConfig(
            self.id,
            self.address,
            CLUSTER_ID,
            _FOLDER,
            KEY,
            snapshot_interval=SNAPSHOT_INTERVAL,
            keep_entries=KEEP_ENTRIES,
            files=self.disk,
        )

    @property
    def is_whole(self) -> bool:
        """Nothing of its disk has turned, as far as anybody knows."""
        return not self.damage and self.rot is Rot.NONE

    @property
    def runs(self) -> bool:
        return self.up or self.is_returning

    @property
    def configuration(self) -> Configuration:
        """The latest that it knew of, also while it is down."""
        return Configuration() if self._known is None else self._known._engine.configuration

    @property
    def engine(self) -> Engine:
        return self.consensus._engine

    # ---- life and death ----

    def start(self, first: Configuration | None = None) -> None:
        """Begin a new life with what the disk holds; `first` is written to an empty disk."""
        self.life += 1
        self.loop = self._new_loop()
        self._requests = {}
        self.is_stopping = False
        try:
            with self.loop.entered():
                self._load(first)
        except PowerCut:
            self.disk.crash()
            self._cluster.restart_later(self, 0.1)
        except WrongKey:
            # It looks as if the key were another one: only an operator can say that the files are lost.
            self.lose_disk()
            self._cluster.restart_later(self, 0.1)
        except (OSError, WalDamaged, Damaged) as err:
            if self.rot is Rot.NONE:
                self._expect_no_damage(err)
            self.damage = str(err)
            self.is_returning = True
            self.loop.create_task(come_back(self, self._cluster))
        else:
            if self.rot in (Rot.LOG, Rot.ALL):
                raise Violation("damage", f"{self.id} did not notice that its log is damaged")
            self.loop.create_task(self._begin())

    def _expect_no_damage(self, err: Exception) -> None:
        """Whatever crashes and power cuts did, what is on a healthy disk can be gone on from."""
        if not is_loss(err):
            raise err
        config = self.config
        if not isinstance(err, OSError) and Consensus.exists(config.state_dir, config.files):
            raise Violation("damage", f"{self.id} finds its healthy disk damaged: {err}")

    async def begin_again(self) -> None:
        """Go on from the fresh log. Raises what Consensus.resume raises."""
        self._load(None)
        self.is_returning = False
        await self._begin()

    async def _begin(self) -> None:
        self.rot, self.damage = Rot.NONE, ""
        self.up = True
        self._cluster.oracle.on_start(self)
        self.host = Host(self, self._cluster)
        await self.consensus.start()
        self._known = self.consensus
        if self.era:
            self.loop.create_task(keeper(self, self._cluster).run())

    def _load(self, first: Configuration | None) -> None:
        config = self.config
        self.store = _WatchedStore(self, self._cluster)
        dialer = _Dialer(self, self._cluster)
        if Consensus.exists(config.state_dir, config.files):
            self.consensus = _WatchedConsensus.resume(config, self.store, dialer)
        elif first is None and self.life > 1:
            raise WalDamaged("there is no log")
        elif first is None:
            self.consensus = _WatchedConsensus.join(config, self.store, dialer, {})
        else:
            _write_first(config, first)
            self.consensus = _WatchedConsensus.resume(config, self.store, dialer)
        self.log = cast(WatchedLog, self.consensus._log)
        cast(_WatchedConsensus, self.consensus).watch(self, self._cluster)

    def crash(self) -> None:
        """The machine loses its power."""
        self.kill()
        self.disk.crash()

    def kill(self) -> None:
        """The process ends at once; what it wrote stays in the kernel."""
        if self.up:
            self.up = False
            self._cluster.oracle.on_crash(self)
        self.is_returning = False
        self.life += 1
        self.loop.die()
        self._cluster.network.went_down(self.id)

    def decay(self, where: float) -> None:
        """A bit of what is durable turns while the machine is off; `where` is from 0 to 1."""
        self.crash()
        self.rot = rot(self.config, self.disk, where)

    def lose_disk(self) -> None:
        """All of it, while the machine is off."""
        self.disk.lose_everything()
        self.rot = Rot.ALL

    def stop(self, then: Callable[[], None]) -> None:
        """The process ends in an orderly way; `then`, unless something else ends it before."""
        if not self.is_stopping:
            self.is_stopping = True
            self.loop.create_task(self._stop(then))

    async def _stop(self, then: Callable[[], None]) -> None:
        await self.consensus.stop()
        for _ in range(ANSWERED_BURSTS):
            await asyncio.sleep(0)
        if any(not request.done() for request in self._requests):
            raise Violation("unanswered", f"{self.id} has stopped, and a client still waits")
        life = self.life

        def end() -> None:
            if self.life == life:
                self.loop.end_jobs()
            if self.life == life:
                self.kill()
                then()

        self._cluster.events.after(0.0, end)

    def pause(self, seconds: float) -> None:
        self.loop.pause(seconds)

    def request(self, work: Coroutine[Any, Any, None]) -> None:
        """A client's, which must get an answer before an orderly end."""
        task = self.loop.create_task(work)
        self._requests[task] = None
        task.add_done_callback(self._requests.pop)

    def command(self, work: Coroutine[Any, Any, None]) -> None:
        """An operator's."""
        self.loop.create_task(work)

    def _new_loop(self) -> NodeLoop:
        return NodeLoop(self._cluster.events, self._clock, self._cluster.turns, self)

    # ---- tests.sim.loop.Owner ----

    def after_burst(self) -> float:
        if self.disk.is_off:
            self._cluster.power_cut(self)
            return 0.0
        self._cluster.oracle.check()
        problem = self.loop.failure or (self.consensus._failure if self.up else None)
        if problem is not None:
            raise problem
        waited_s, self.disk.waited_s = self.disk.waited_s, 0.0
        return waited_s

    def after_job(self) -> None:
        self.disk.waited_s = 0.0
        if self.disk.is_off:
            self._cluster.power_cut(self)

    # ---- tests.sim.network.Endpoint ----

    @property
    def writing_s(self) -> float:
        return self.disk.waited_s

    def accept(self, source: str, reader: Reader, writer: Writer) -> None:
        self.consensus.accept(source, reader, cast(Any, writer))

    def read_stale(self) -> None:
        self._cluster.oracle.violated("old connection", f"{self.id} still reads one that was replaced")


def _write_first(config: ConsensusConfig, first: Configuration) -> None:
    """What a cluster's first managers have on their disks when all of them are members."""
    owner = f"{config.cluster_id}/{config.node_id}"
    wal, state = Wal.open(config.state_dir / "wal", config.key, owner, config.files)
    log = Log(wal, state)
    log.add(MEMBERSHIP + first.encode(), 1, 1)
    log.setCurrentTerm(1, None)
    log.sync()
    log.close()


class _Dialer:
    def __init__(self, manager: Manager, cluster: Cluster) -> None:
        self._id = manager.id
        self._cluster = cluster

    async def dial(self, node_id: str, address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self._cluster.manager(node_id)
        streams = await self._cluster.network.dial(self._id, node_id, address)
        return cast(tuple[asyncio.StreamReader, asyncio.StreamWriter], streams)


class _WatchedConsensus(Consensus):
    """Tells the oracle what the engine has done and what leaves the node."""

    def watch(self, manager: Manager, cluster: Cluster) -> None:
        self._manager = manager
        self._cluster = cluster

    def _guarded(self, step: Callable[[], object], wake: bool = True) -> None:
        super()._guarded(step, wake)
        if self._manager.up:
            self._cluster.oracle.touch(self._manager)

    def send(self, node_id: str, message: Message) -> None:
        self._cluster.oracle.on_send(self._manager, node_id, message)
        super().send(node_id, message)


class _WatchedStore(Store):
    """Tells the oracle what the state is."""

    def __init__(self, manager: Manager, cluster: Cluster) -> None:
        super().__init__(None, lambda: cluster.events.now)
        self._manager = manager
        self._cluster = cluster

    def apply(self, command: bytes, index: int) -> object:
        result = super().apply(command, index)
        self._cluster.oracle.on_apply(self._manager, index)
        return result

    def adopt(self, prepared: Prepared) -> None:
        super().adopt(prepared)
        if self._manager.up:  # what was loaded from the disk before is looked at when it starts
            self._cluster.oracle.on_load(self._manager)
