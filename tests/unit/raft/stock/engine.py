"""Our engine in a world: the cluster of the other engine tests, with links that can be held or lossy."""

from __future__ import annotations

from pathlib import Path

import pysyncobj.syncobj
import pytest

from raft import messages
from raft.messages import Message
from raft.stock import LEADER
from tests.unit.raft.conftest import Cluster
from tests.unit.raft.stock.world import Pair, World, Write


class HeldCluster(Cluster):
    def __init__(self, folder: Path, world: EngineWorld) -> None:
        self.world = world
        super().__init__(folder)

    @property
    def now(self) -> float:
        return self.world.now

    @now.setter
    def now(self, value: float) -> None:
        self.world.now = value

    def send(self, source: str, target: str, message: Message) -> None:
        pair = (source, target)
        if pair not in self.links or pair in self.world.lossy:
            return
        if not self.world.held.keeps(pair, messages.encode(message)):
            super().send(source, target, message)

    def _disconnect(self, pair: Pair) -> None:
        self.world.held.forget(pair)
        super()._disconnect(pair)


class EngineWorld(World):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.cluster = HeldCluster(folder, self)

    # ---- managers ----

    def start(self, *ids: str) -> None:
        self.cluster.start(*ids)

    def crash(self, node: str) -> None:
        self.cluster.up[node].crash()

    @property
    def running(self) -> list[str]:
        return list(self.cluster.up)

    def leads(self, node: str) -> bool:
        return self.cluster.up[node].engine._state == LEADER

    def term(self, node: str) -> int:
        return self.cluster.up[node].engine.term()

    def applied(self, node: str) -> list[int]:
        return [int(command.split(b" ")[0]) for command in self.cluster.up[node].commands]

    def elect(self, node: str) -> None:
        def won() -> bool:
            for other, manager in self.cluster.up.items():
                manager.engine._election_deadline = self.now + 1.0 if other != node else 0.0
            return self.leads(node)

        self.until(won)

    def compact_at(self, entries: int) -> None:
        self.cluster.snapshot_interval = entries

    def compact(self, node: str) -> None:
        assert self.cluster.up[node].log.base > 2

    def refuse_snapshots(self, node: str, refuse: bool = True) -> None:
        self.cluster.up[node].refuse_snapshots = refuse

    def propose(self, node: str, size: int = 0) -> Write:
        write = self._new_write()
        command = b"%d %s" % (write.number, b"x" * size)
        self.cluster.up[node].engine.propose(b"i" * 16, command, write)
        return write

    # ---- the network ----

    def cut(self, *pairs: Pair) -> None:
        self.cluster.partition(*pairs)

    def isolate(self, node: str) -> None:
        self.cluster.isolate(node)

    def heal(self) -> None:
        self.cluster.heal()

    def release(self, source: str, target: str, count: int | None = None) -> None:
        queue = self.held.queues[source, target]
        for _ in range(len(queue) if count is None else min(count, len(queue))):
            self.cluster.links[source, target].append(queue.popleft())
        if count is None:
            del self.held.queues[source, target]
        self.cluster.deliver()

    # ---- time ----

    def step(self) -> None:
        self.cluster.step()

    def patch_clock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pysyncobj.syncobj, "monotonicTime", lambda: self.now)

    def close(self) -> None:
        self.cluster.close()
