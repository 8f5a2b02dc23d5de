"""The keeper of a manager's keys: every change reaches the files, and a failure is said and tried again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from node.lock_keeper import LockKeeper
from node.loop import ManualClock
from raft.objects.cluster import CLUSTER_ID, Cluster, ManagerLock
from raft.store import LocalProposer, Store, Transaction

FIRST = ManagerLock(unlock_key="SWMKEY-1-first", generation=1)
SECOND = ManagerLock(unlock_key="SWMKEY-1-second", generation=2)


class Files:
    def __init__(self) -> None:
        self.applied: list[ManagerLock] = []
        self.failure: Exception | None = None

    def apply(self, lock: ManagerLock) -> bool:
        if self.failure is not None:
            raise self.failure
        changed = not self.applied or self.applied[-1] != lock
        self.applied.append(lock)
        return changed


class World:
    def __init__(self) -> None:
        self.store = Store()
        LocalProposer(self.store)
        self.clock = ManualClock()
        self.files = Files()

    async def put(self, lock: ManagerLock) -> None:
        def write(tx: Transaction) -> None:
            tx.put(msgspec.structs.replace(tx.cluster or Cluster(id=CLUSTER_ID), lock=lock))

        await self.store.update(write)
        await self.clock.settle()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    running = asyncio.create_task(LockKeeper(world.store, world.files.apply, world.clock).run())
    await world.clock.settle()
    yield world
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_every_lock_of_the_cluster_reaches_the_files(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert world.files.applied == [], "a manager that joins has no cluster yet"
    for lock in (ManagerLock(), FIRST, SECOND):
        await world.put(lock)
    assert world.files.applied == [ManagerLock(), FIRST, SECOND]
    assert "locked with the unlock key" in caplog.text and "SWMKEY" not in caplog.text


async def test_what_the_store_says_at_the_start_counts() -> None:
    world = World()
    await world.put(FIRST)
    running = asyncio.create_task(LockKeeper(world.store, world.files.apply, world.clock).run())
    await world.clock.settle()
    assert world.files.applied == [FIRST]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("failure", [OSError("disk full"), ValueError("lock.key is damaged")])
async def test_failure_is_said_and_tried_again(
    world: World, caplog: pytest.LogCaptureFixture, failure: Exception
) -> None:
    world.files.failure = failure
    await world.put(FIRST)
    assert world.files.applied == []
    assert f"trying again: {failure}" in caplog.text
    world.files.failure = None
    await world.put(SECOND)  # meanwhile the key changes
    assert world.files.applied == []
    await world.clock.advance(120)
    assert world.files.applied == [SECOND]
