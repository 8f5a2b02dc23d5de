"""Three managers as real processes that are killed with SIGKILL while they are written to.

Every write that was acknowledged must be there at the end, on every manager, and all must hold the same state.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.manager_processes import Managers

PROGRAM = """
import asyncio, hashlib, sys
from pathlib import Path
from raft.objects.base import Annotations
from raft.objects.service import Service, ServiceSpec
from raft.store import Store
from tests.manager_program import Dialer, opened, serve

store, dialer = Store(), Dialer(Path(sys.argv[1]), sys.argv[2])

async def main():
    consensus = opened(store, dialer, sys.argv[3], snapshot_interval=300)

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

    await serve(dialer, consensus, control=request)

asyncio.run(main())
"""


@pytest.fixture
async def managers(tmp_path: Path) -> AsyncIterator[Managers]:
    async with Managers(tmp_path, PROGRAM) as made:
        yield made


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


async def progress(acknowledged: set[str], count: int = 60) -> None:
    """Until so many more writes are acknowledged."""
    wanted = len(acknowledged) + count
    async with asyncio.timeout(30):
        while len(acknowledged) < wanted:
            await asyncio.sleep(0.01)


async def check(managers: Managers, acknowledged: set[str]) -> None:
    leader = await managers.leader()
    assert await managers.ask(leader, verb="write", name="last") == {}
    async with asyncio.timeout(30):
        while True:
            states = [await managers.ask(node_id, verb="status") for node_id in managers.processes]
            if len({(s.get("applied"), s.get("versions")) for s in states}) == 1 and len(states) == 3:
                break
            await asyncio.sleep(0.05)
    lost = acknowledged - set(states[0]["names"])
    assert not lost, f"{len(lost)} of {len(acknowledged)} acknowledged writes are lost"


async def test_killed_leaders_lose_nothing_and_are_replaced_quickly(managers: Managers):
    await managers.start_three()
    acknowledged: set[str] = set()
    stop = asyncio.Event()
    writers = [asyncio.create_task(writer(managers, f"w{i}", acknowledged, stop)) for i in range(4)]
    gaps = []
    for _ in range(4):
        await progress(acknowledged)
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
    await managers.start_three()
    acknowledged: set[str] = set()
    for cycle in range(4):
        stop = asyncio.Event()
        writers = [
            asyncio.create_task(writer(managers, f"c{cycle}w{i}", acknowledged, stop)) for i in range(4)
        ]
        await progress(acknowledged)
        nodes = list(managers.processes)
        await asyncio.gather(*(managers.kill(node_id) for node_id in nodes))
        stop.set()
        await asyncio.gather(*writers)
        await asyncio.gather(*(managers.start(node_id, "resume") for node_id in nodes))
        await managers.leader()
    assert len(acknowledged) > 200
    await check(managers, acknowledged)
