"""One manager as a process: the production store, consensus, transport and mutual TLS, driven by its parent.

Arguments: folder, node id, port, and bootstrap, join or resume.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from bench.raft import load, objects
from bench.raft.credentials import CLUSTER
from bench.raft.processes import rss_mb, serve
from node.ca.files import CredentialFiles
from node.ca.tls import NodeTls
from node.rpc import MANAGERS, Identity, RpcClient, RpcServer
from raft.consensus import Consensus, ConsensusConfig, snapshot_dir
from raft.errors import RaftError
from raft.objects.base import Annotations
from raft.objects.cluster import Config, ConfigSpec
from raft.store import Store, Transaction

WRITE = "bench.write"
CALL_S_MAX = 30.0
PROBE_S = 0.001
RETRY_S = 0.002


class Manager:
    def __init__(self, folder: Path, node_id: str, port: int, how: str) -> None:
        tls = NodeTls(CredentialFiles(folder / node_id / "tls"))
        self.node_id = node_id
        self.port = port
        self.server, self.client = RpcServer(tls), RpcClient(tls)
        self.store = Store()
        self.config = ConsensusConfig(
            node_id, f"127.0.0.1:{port}", CLUSTER, folder / node_id / "raft", b"k" * 32
        )
        arguments: tuple[dict[str, str], ...] = ({},) if how == "join" else ()
        start = time.perf_counter()
        self.consensus: Consensus = getattr(Consensus, how)(self.config, self.store, self.client, *arguments)
        self.loaded_s = time.perf_counter() - start
        self.store.attach(self.consensus)
        self.longest_gap_s = 0.0

    async def run(self) -> None:
        self.server.on_raft(self.consensus.accept)
        self.server.handle(WRITE, self._write_for_another, roles=MANAGERS)
        await self.server.start("127.0.0.1", self.port)
        probe = asyncio.create_task(self._probe())
        await self.consensus.start()
        await serve(self.handle)
        probe.cancel()

    async def _probe(self) -> None:
        """The event loop should come back here every millisecond."""
        last = time.perf_counter()
        while True:
            await asyncio.sleep(PROBE_S)
            now = time.perf_counter()
            self.longest_gap_s = max(self.longest_gap_s, now - last - PROBE_S)
            last = now

    async def handle(self, message: dict[str, Any]) -> dict[str, Any]:
        verb = message.pop("verb")
        answer: dict[str, Any] = await getattr(self, f"do_{verb}")(**message)
        return answer

    # ---- writing ----

    async def write(self, client: int, value: bytes) -> None:
        def put(tx: Transaction) -> None:
            spec = ConfigSpec(annotations=Annotations(name=f"client-{client}"), data=value)
            stored = tx.configs.get(f"client-{client}")
            if stored is None:
                tx.put(Config(id=f"client-{client}", spec=spec))
            else:
                tx.put(msgspec.structs.replace(stored, spec=spec))

        await self.store.update(put)

    async def _write_for_another(self, _caller: Identity | None, payload: bytes) -> bytes:
        await self.write(*msgspec.json.decode(payload, type=tuple[int, bytes]))
        return b"null"

    async def _write_at_the_leader(self, client: int, value: bytes) -> None:
        payload = msgspec.json.encode((client, value))
        await self.client.call(self.consensus.leader_address, WRITE, payload, timeout=CALL_S_MAX)

    async def do_load(self, clients: int, seconds: float) -> dict[str, Any]:
        """On the leader in its own process; elsewhere by a call to the leader, as node.manager.forward does."""
        write = self.write if self.consensus.is_leader else self._write_at_the_leader
        return msgspec.to_builtins(await load.run(write, clients, seconds))  # type: ignore[no-any-return]

    async def do_accepted(self, number: int) -> dict[str, Any]:
        """Write as soon as any leader takes it; answers with the system's monotonic time of that."""
        key = f"client-{number}"
        while True:
            try:
                if self.consensus.is_leader:
                    await self.write(number, b"accepted")
            except RaftError:
                pass
            if key in self.store.view().configs:
                return {"at": time.clock_gettime(time.CLOCK_MONOTONIC)}
            await asyncio.sleep(RETRY_S)

    # ---- members ----

    async def do_add(self, node_id: str, address: str) -> dict[str, Any]:
        await self.consensus.add_member(node_id, address)
        return {}

    async def do_status(self) -> dict[str, Any]:
        view = self.store.view()
        return {
            "leader": self.consensus.is_leader,
            "leader_id": self.consensus.leader_id,
            "applied": self.consensus.applied_index,
            "objects": len(view.services) + len(view.tasks),
            "rss_mb": rss_mb(),
            "loaded_s": self.loaded_s,
            "snapshots": sorted(path.name for path in snapshot_dir(self.config).glob("*.snap")),
        }

    async def do_gap(self) -> dict[str, Any]:
        """The loop's longest absence since the last question, in milliseconds."""
        longest, self.longest_gap_s = self.longest_gap_s, 0.0
        return {"ms": longest * 1000}

    # ---- large states ----

    async def do_fill(self, services: int, tasks: int, version: int = 0) -> dict[str, Any]:
        """Write so many objects through the cluster, over those of an earlier call."""
        start = time.perf_counter()
        for batch in objects.batches(services, tasks, version):
            await self.store.update(functools.partial(objects.put, batch=batch))
        return {"seconds": time.perf_counter() - start}


async def main() -> None:
    folder, node_id, port, how = sys.argv[1:]
    await Manager(Path(folder), node_id, int(port), how).run()


if __name__ == "__main__":
    asyncio.run(main())
