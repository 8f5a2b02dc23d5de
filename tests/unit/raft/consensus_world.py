"""Whole managers on one event loop, each with its own store, over socket pairs."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from raft.consensus import Consensus, ConsensusConfig
from raft.objects.base import Annotations
from raft.objects.service import Service, ServiceSpec
from raft.stock import Timings
from raft.store import Store

FAST = Timings(election_min_s=0.3, election_max_s=0.6, heartbeat_s=0.05, leader_fallback_s=1.0)


class Node:
    def __init__(self, world: World, node_id: str) -> None:
        self.world = world
        self.id = node_id
        self.config = ConsensusConfig(
            node_id,
            f"{node_id}:2377",
            "c1",
            world.folder / node_id,
            b"k" * 32,
            FAST,
            snapshot_interval=40,
            keep_entries=5,
        )

    async def start(self, how: str, *args: object) -> None:
        self.store = Store()
        self.consensus: Consensus = getattr(Consensus, how)(self.config, self.store, self, *args)
        self.store.attach(self.consensus)
        await self.consensus.start()
        self.world.nodes[self.id] = self

    async def stop(self) -> None:
        del self.world.nodes[self.id]
        await self.consensus.stop()

    async def dial(self, node_id: str, address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        target = self.world.nodes.get(node_id)
        if target is None or self.id not in self.world.nodes or address != target.config.address:
            raise ConnectionRefusedError(address)
        near, far = socket.socketpair()
        target.consensus.accept(self.id, *await asyncio.open_connection(sock=far))
        return await asyncio.open_connection(sock=near)

    async def create(self, name: str) -> None:
        spec = ServiceSpec(annotations=Annotations(name=name))
        await self.store.update(lambda tx: tx.put(Service(id=name, spec=spec)))

    def names(self) -> set[str]:
        return set(self.store.view().services)


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nodes: dict[str, Node] = {}

    async def cluster(self, *ids: str) -> list[Node]:
        """The first one leads."""
        nodes = [Node(self, node_id) for node_id in ids]
        await nodes[0].start("bootstrap")
        for node in nodes[1:]:
            await node.start("join", nodes[0].consensus.members())
            await nodes[0].consensus.add_member(node.id, node.config.address)
        return nodes

    async def leader(self) -> Node:
        await until(lambda: any(n.consensus.is_leader for n in self.nodes.values()))
        return next(n for n in self.nodes.values() if n.consensus.is_leader)


async def until(condition) -> None:
    async with asyncio.timeout(8):
        while not condition():
            await asyncio.sleep(0.002)
