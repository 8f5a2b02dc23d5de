"""The snapshot interval of the cluster's spec reaches the log of the managers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from node.manager.compaction import follow_spec
from raft.consensus import Consensus, ConsensusConfig, snapshot_dir
from raft.objects.base import Annotations
from raft.objects.cluster import CLUSTER_ID, Cluster, ClusterSpec
from raft.objects.service import Service, ServiceSpec
from raft.store import Store


class NoOtherManager:
    async def dial(self, node_id: str, address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        raise ConnectionRefusedError(address)


async def create(store: Store, name: str) -> None:
    spec = ServiceSpec(annotations=Annotations(name=name))
    await store.update(lambda tx: tx.put(Service(id=name, spec=spec)))


async def set_interval(store: Store, entries: int) -> None:
    stored = store.view().cluster or Cluster(id=CLUSTER_ID)
    spec = ClusterSpec(snapshot_interval=entries, log_entries_for_slow_followers=1)
    await store.update(lambda tx: tx.put(msgspec.structs.replace(stored, spec=spec)))


@pytest.mark.parametrize("before_start", [True, False])
async def test_snapshots_are_made_as_often_as_the_spec_says(tmp_path: Path, before_start: bool) -> None:
    """Also of a spec that was there when the manager started."""
    config = ConsensusConfig("a", "a:1", "c1", tmp_path, b"k" * 32)
    store = Store()
    consensus = Consensus.bootstrap(config, store, NoOtherManager())
    store.attach(consensus)
    await consensus.start()
    if before_start:
        await set_interval(store, 20)
    following = asyncio.create_task(follow_spec(store, consensus))
    try:
        await asyncio.sleep(0)
        if not before_start:
            await set_interval(store, 20)
        for number in range(30):
            await create(store, f"s{number}")
        async with asyncio.timeout(10):
            while not list(snapshot_dir(config).glob("snapshot-*.snap")):
                await asyncio.sleep(0.005)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await consensus.stop()
