"""Three managers as real processes that are killed with SIGKILL while they are written to.

They talk over unix sockets, so no packet leaves the machine and no root is needed. Every write that was
acknowledged must be there at the end, on every manager, and all must hold the same state.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# One manager: argv = folder, node id, "bootstrap" | "join" | "resume". Requests and answers are JSON lines.
PROGRAM = """
import asyncio, hashlib, json, sys
from pathlib import Path
from raft.consensus import Consensus, ConsensusConfig
from raft.errors import RaftError
from raft.objects.base import Annotations
from raft.objects.service import Service, ServiceSpec
from raft.store import Store

folder, node_id, how = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

class Dialer:
    async def dial(self, other, address):
        reader, writer = await asyncio.open_unix_connection(str(folder / f"{other}.raft"))
        writer.write(node_id.encode() + b"\\n")
        return reader, writer

async def main():
    store = Store()
    config = ConsensusConfig(node_id, node_id + ":1", "c1", folder / node_id, b"k" * 32, snapshot_interval=300)
    arguments = ({},) if how == "join" else ()
    consensus = getattr(Consensus, how)(config, store, Dialer(), *arguments)
    store.attach(consensus)
    await consensus.start()

    async def raft(reader, writer):
        consensus.accept((await reader.readline()).decode().strip(), reader, writer)

    async def request(message):
        verb, name = message["verb"], message.get("name", "")
        if verb == "write":
            spec = ServiceSpec(annotations=Annotations(name=name))
            await store.update(lambda tx: tx.put(Service(id=name, spec=spec)))
        elif verb == "add":
            await consensus.add_member(name, name + ":1")
        elif verb == "status":
            versions = sorted((s.id, s.meta.version) for s in store.view().services.values())
            return {
                "leader": consensus.is_leader, "names": sorted(store.view().services),
                "members": sorted(consensus.members()), "applied": consensus.applied_index,
                "versions": hashlib.sha256(repr(versions).encode()).hexdigest(),
            }
        return {}

    async def control(reader, writer):
        while line := await reader.readline():
            try:
                answer = await request(json.loads(line))
            except RaftError as err:
                answer = {"error": type(err).__name__, "message": str(err)}
            writer.write(json.dumps(answer).encode() + b"\\n")

    for name, handler in (("raft", raft), ("control", control)):
        path = folder / f"{node_id}.{name}"
        path.unlink(missing_ok=True)
        await asyncio.start_unix_server(handler, path, limit=1 << 24)
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


class Managers:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, node_id: str, how: str) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, str(self.folder), node_id, how,
            stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        self.processes[node_id] = process
        line = await asyncio.wait_for(process.stdout.readline(), 20)
        assert line == b"ready\n", f"{node_id} did not start"

    async def kill(self, node_id: str) -> None:
        process = self.processes.pop(node_id)
        process.send_signal(signal.SIGKILL)
        await process.wait()

    async def ask(self, node_id: str, timeout_s: float = 12, **message: str) -> dict:
        """An error of the connection is an unknown outcome."""
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await asyncio.open_unix_connection(
                    self.folder / f"{node_id}.control", limit=1 << 24
                )
                try:
                    writer.write(json.dumps(message).encode() + b"\n")
                    line = await reader.readline()
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return {"error": "Connection"}
        return json.loads(line) if line else {"error": "Connection"}

    async def leader(self) -> str:
        async with asyncio.timeout(15):
            while True:
                for node_id in list(self.processes):
                    if (await self.ask(node_id, verb="status", timeout_s=2)).get("leader"):
                        return node_id
                await asyncio.sleep(0.02)


@pytest.fixture
async def managers(tmp_path: Path) -> AsyncIterator[Managers]:
    made = Managers(tmp_path)
    yield made
    for node_id in list(made.processes):
        with contextlib.suppress(ProcessLookupError):
            await made.kill(node_id)


async def three(managers: Managers) -> None:
    await managers.start("n1", "bootstrap")
    for node_id in ("n2", "n3"):
        await managers.start(node_id, "join")
        assert await managers.ask("n1", verb="add", name=node_id) == {}


async def writer(managers: Managers, prefix: str, acknowledged: set[str], stop: asyncio.Event) -> None:
    """Write new names as fast as they are acknowledged, wherever the leader is."""
    number, target = 0, "n1"
    while not stop.is_set():
        name = f"{prefix}-{number}"
        number += 1
        answer = await managers.ask(target, verb="write", name=name)
        if answer == {}:
            acknowledged.add(name)
        else:
            await asyncio.sleep(0.02)
            target = next(iter(sorted(managers.processes, key=lambda n: (n == target, n))), "n1")
            for node_id in list(managers.processes):
                if (await managers.ask(node_id, verb="status", timeout_s=1)).get("leader"):
                    target = node_id


async def check(managers: Managers, acknowledged: set[str]) -> None:
    leader = await managers.leader()
    assert await managers.ask(leader, verb="write", name="last") == {}
    async with asyncio.timeout(15):
        while True:
            states = [await managers.ask(node_id, verb="status") for node_id in managers.processes]
            if len({(s.get("applied"), s.get("versions")) for s in states}) == 1 and len(states) == 3:
                break
            await asyncio.sleep(0.05)
    lost = acknowledged - set(states[0]["names"])
    assert not lost, f"{len(lost)} of {len(acknowledged)} acknowledged writes are lost"


async def test_killed_leaders_lose_nothing_and_are_replaced_quickly(managers: Managers):
    await three(managers)
    acknowledged: set[str] = set()
    stop = asyncio.Event()
    writers = [asyncio.create_task(writer(managers, f"w{i}", acknowledged, stop)) for i in range(4)]
    gaps = []
    for _ in range(4):
        await asyncio.sleep(0.6)
        leader = await managers.leader()
        started = asyncio.get_running_loop().time()
        await managers.kill(leader)
        await managers.leader()
        gaps.append(asyncio.get_running_loop().time() - started)
        await managers.start(leader, "resume")
    stop.set()
    await asyncio.gather(*writers)
    assert len(acknowledged) > 200
    assert sorted(gaps)[1] < 2.0, gaps
    await check(managers, acknowledged)


async def test_all_killed_at_once_again_and_again_lose_nothing(managers: Managers):
    await three(managers)
    acknowledged: set[str] = set()
    for cycle in range(4):
        stop = asyncio.Event()
        writers = [
            asyncio.create_task(writer(managers, f"c{cycle}w{i}", acknowledged, stop)) for i in range(4)
        ]
        await asyncio.sleep(0.8)
        nodes = list(managers.processes)
        await asyncio.gather(*(managers.kill(node_id) for node_id in nodes))
        stop.set()
        await asyncio.gather(*writers)
        await asyncio.gather(*(managers.start(node_id, "resume") for node_id in nodes))
        await managers.leader()
    assert len(acknowledged) > 200
    await check(managers, acknowledged)
