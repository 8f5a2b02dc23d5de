"""Whole managers in one process: consensus, store, control API and proxies, over a network that can be cut."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

from node.manager.controlapi import ControlApi
from node.manager.forward import ControlProxy, Handler, register_control
from node.rpc import RpcError
from raft.consensus import Consensus, ConsensusConfig
from raft.stock import Timings
from raft.store import Store

TIMINGS = Timings(election_min_s=0.3, election_max_s=0.6, heartbeat_s=0.05, leader_fallback_s=1.0)

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Network:
    """Raft connections are relayed, so that a cut is silence and not an end; healing ends what was cut."""

    def __init__(self) -> None:
        self.managers: dict[str, Manager] = {}
        self._cut: set[str] = set()
        self._mute: set[str] = set()
        self._healed = asyncio.Event()
        self._healed.set()
        self._tasks: set[asyncio.Task[None]] = set()

    def cut(self, node_id: str) -> None:
        self._cut.add(node_id)
        self._healed = asyncio.Event()

    def mute(self, node_id: str) -> None:
        """Cut its raft connections only: calls reach it."""
        self._mute.add(node_id)
        self.cut(node_id)

    def heal(self) -> None:
        self._cut.clear()
        self._mute.clear()
        self._healed.set()

    def is_cut(self, *node_ids: str) -> bool:
        return any(node_id in self._cut for node_id in node_ids)

    def is_unreachable(self, *node_ids: str) -> bool:
        return any(node_id in self._cut - self._mute for node_id in node_ids)

    async def connect(self, source: str, target: str) -> Streams:
        manager = self.managers.get(target)
        if manager is None or self.is_cut(source, target):
            raise ConnectionRefusedError(target)
        (near, near_end), (far, far_end) = socket.socketpair(), socket.socketpair()
        one = await asyncio.open_connection(sock=near_end)
        two = await asyncio.open_connection(sock=far_end)
        for reader, writer in ((one[0], two[1]), (two[0], one[1])):
            task = asyncio.create_task(self._relay((source, target), reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        manager.consensus.accept(source, *await asyncio.open_connection(sock=far))
        return await asyncio.open_connection(sock=near)

    async def _relay(
        self, pair: tuple[str, str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while data := await reader.read(1 << 16):
                if self.is_cut(*pair):
                    await self._healed.wait()
                    return
                writer.write(data)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Manager:
    def __init__(self, network: Network, folder: Path, node_id: str) -> None:
        self.network = network
        self.id = node_id
        self.address = f"{node_id}:2377"
        self.config = ConsensusConfig(
            node_id,
            self.address,
            "c1",
            folder / node_id,
            b"k" * 32,
            TIMINGS,
            snapshot_interval=40,
            keep_entries=5,
        )
        self.handlers: dict[str, Handler] = {}
        self.after_handling: Callable[[str], object] = lambda method: None

    async def start(self, how: str, *arguments: object) -> None:
        self.store = Store()
        self.consensus: Consensus = getattr(Consensus, how)(self.config, self.store, self, *arguments)
        self.store.attach(self.consensus)
        self.api = ControlApi(self.store, self.consensus)
        register_control(self, self.api, self.consensus)
        self.control = ControlProxy(self.id, self.api, self.consensus, self)
        self.network.managers[self.id] = self
        await self.consensus.start()

    async def stop(self) -> None:
        del self.network.managers[self.id]
        await self.consensus.stop()

    async def dial(self, node_id: str, address: str) -> Streams:
        return await self.network.connect(self.id, node_id)

    # ---- RPC: server and client ----

    def handle(self, method: str, handler: Handler, *, roles: frozenset[str] | None) -> None:
        self.handlers[method] = handler

    async def call(self, address: str, method: str, payload: bytes, *, timeout: float) -> bytes:
        node_id = address.partition(":")[0]
        target = self.network.managers.get(node_id)
        if target is None or self.network.is_unreachable(self.id, node_id):
            raise RpcError("unavailable", f"cannot reach {address}: timed out")
        answer = await target.handlers[method](None, payload)
        target.after_handling(method)
        if node_id not in self.network.managers or self.network.is_unreachable(self.id, node_id):
            raise RpcError("maybe_committed", f"no answer from {address} to {method}: timed out")
        return answer


class ManagersWorld:
    """Three managers, of which "a" leads at first."""

    def __init__(self, folder: Path) -> None:
        self.network = Network()
        self.all = [Manager(self.network, folder, node_id) for node_id in "abc"]

    async def start(self) -> None:
        first, *others = self.all
        await first.start("bootstrap")
        for other in others:
            await other.start("join", first.consensus.members())
            await first.consensus.add_member(other.id, other.address)

    async def stop(self) -> None:
        for manager in list(self.network.managers.values()):
            await manager.stop()
        await self.network.close()

    async def leader(self, *, but: str = "") -> Manager:
        found: list[Manager] = []
        await until(
            lambda: (
                found.extend(
                    m for m in self.network.managers.values() if m.consensus.is_leader and m.id != but
                )
                or found
            )
        )
        return found[0]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.002)
