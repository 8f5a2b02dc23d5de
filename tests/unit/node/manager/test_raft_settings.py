"""What the cluster's spec says of Raft reaches the consensus at once and at every change."""

from __future__ import annotations

import asyncio

from control_world import ControlWorld

from node.manager.raft_settings import follow_settings
from raft.objects.base import Kind
from raft.objects.cluster import CLUSTER_ID, ClusterSpec


class Recorder:
    def __init__(self) -> None:
        self.calls: list[tuple[int, int, int]] = []

    def configure(self, snapshot_interval: int, keep_entries: int, keep_snapshots: int) -> None:
        self.calls.append((snapshot_interval, keep_entries, keep_snapshots))


async def test_settings_are_followed() -> None:
    world, recorder = ControlWorld(), Recorder()
    following = asyncio.create_task(follow_settings(world.store, recorder))
    await asyncio.sleep(0)
    assert recorder.calls == []
    await world.bootstrap(workers=0)
    spec = ClusterSpec(snapshot_interval=7, keep_old_snapshots=2, log_entries_for_slow_followers=3)
    await world.put_changed(Kind.CLUSTER, CLUSTER_ID, spec=spec)
    for _ in range(5):
        await asyncio.sleep(0)
    assert recorder.calls[-1] == (7, 3, 2)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
