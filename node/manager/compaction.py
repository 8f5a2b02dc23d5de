"""How often this manager compacts its log: as the cluster's spec says, from the moment that it is applied here."""

from __future__ import annotations

from typing import Protocol

from raft.objects.base import Kind
from raft.store import Store


class Compacting(Protocol):
    """The part of the consensus that is needed here."""

    def set_compaction(self, snapshot_interval: int, keep_entries: int) -> None: ...


async def follow_spec(store: Store, consensus: Compacting) -> None:
    """Until cancelled."""
    with store.watch({Kind.CLUSTER}) as watch:
        while True:
            watch.drain()
            cluster = store.view().cluster
            if cluster is not None:
                spec = cluster.spec
                consensus.set_compaction(spec.snapshot_interval, spec.log_entries_for_slow_followers)
            await watch.wait()
