"""What it costs that the leader's reads are confirmed by a majority: `python -m bench.reads`.

Three managers in one process over socket pairs, so that one core bears the work of all three; no TLS. Prints
a table: reads without and with confirmation, and creations, by how many are under way at once.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from node.manager.controlapi import ControlApi
from raft.consensus import Consensus, ConsensusConfig
from raft.objects.base import Annotations
from raft.objects.request import Request, new_key
from raft.objects.service import ContainerSpec, ServiceSpec, TaskSpec
from raft.store import Store

SECONDS = 2.0
AT_ONCE = (1, 16, 64)
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Manager:
    known: dict[str, Manager] = {}

    def __init__(self, folder: Path, node_id: str, how: str, *arguments: object) -> None:
        self.id = node_id
        config = ConsensusConfig(node_id, f"{node_id}:1", "bench", folder / node_id, b"k" * 32)
        self.store = Store()
        self.consensus: Consensus = getattr(Consensus, how)(config, self.store, self, *arguments)
        self.store.attach(self.consensus)
        self.api = ControlApi(self.store, self.consensus)
        Manager.known[node_id] = self

    async def dial(self, node_id: str, address: str) -> Streams:
        near, far = socket.socketpair()
        Manager.known[node_id].consensus.accept(self.id, *await asyncio.open_connection(sock=far))
        return await asyncio.open_connection(sock=near)

    async def read(self) -> None:
        await asyncio.sleep(0)  # the managers must go on beside it
        await self.api.get_service("web")

    async def confirmed_read(self) -> None:
        await self.consensus.read_barrier()
        await self.api.get_service("web")

    async def create(self, name: str) -> None:
        task = TaskSpec(container=ContainerSpec(image="hello"))
        spec = ServiceSpec(annotations=Annotations(name=name), task=task)
        await self.api.create_service(spec, request=Request(new_key(self.store.index)))


async def measure(action: Callable[[], Awaitable[None]], at_once: int) -> str:
    durations: list[float] = []
    end = time.perf_counter() + SECONDS

    async def client() -> None:
        while (start := time.perf_counter()) < end:
            await action()
            durations.append((time.perf_counter() - start) * 1000)

    await asyncio.gather(*(client() for _ in range(at_once)))
    durations.sort()
    p99 = durations[int(len(durations) * 0.99)]
    return f"{len(durations) / SECONDS:.0f}/s, p50 {statistics.median(durations):.2f} ms, p99 {p99:.2f} ms"


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        leader = Manager(Path(folder), "a", "bootstrap")
        await leader.consensus.start()
        for node_id in ("b", "c"):
            other = Manager(Path(folder), node_id, "join", leader.consensus.members())
            await other.consensus.start()
            await leader.consensus.add_member(node_id, f"{node_id}:1")
        await leader.create("web")
        names = (f"s{number}" for number in itertools.count())
        actions: dict[str, Callable[[], Awaitable[None]]] = {
            "read, not confirmed": leader.read,
            "read": leader.confirmed_read,
            "create": lambda: leader.create(next(names)),
        }
        print("| | " + " | ".join(f"{at_once} at once" for at_once in AT_ONCE) + " |")
        print("|---" * (len(AT_ONCE) + 1) + "|")
        for name, action in actions.items():
            figures = [await measure(action, at_once) for at_once in AT_ONCE]
            print(f"| {name} | " + " | ".join(figures) + " |")
        for manager in Manager.known.values():
            await manager.consensus.stop()


if __name__ == "__main__":
    asyncio.run(main())
