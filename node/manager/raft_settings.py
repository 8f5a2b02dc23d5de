"""The Raft settings of the cluster's spec, in force on every manager as soon as it has applied them."""

from __future__ import annotations

from typing import Protocol

from raft.objects.base import Kind
from raft.store import Store


class Configurable(Protocol):
    def configure(self, snapshot_interval: int, keep_entries: int, keep_snapshots: int) -> None: ...


async def follow_settings(store: Store, consensus: Configurable) -> None:
    """Until cancelled."""
    with store.watch({Kind.CLUSTER}) as watch:
        while True:
            cluster = store.view().cluster
            if cluster is not None:
                spec = cluster.spec
                consensus.configure(
                    spec.snapshot_interval, spec.log_entries_for_slow_followers, spec.keep_old_snapshots
                )
            await watch.wait()
            watch.drain()
