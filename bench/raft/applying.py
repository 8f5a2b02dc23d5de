"""A store of its own, without consensus, as a process: what its objects cost in memory and time."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from bench.raft import objects
from bench.raft.processes import rss_mb, serve
from raft import codec
from raft.codec import Change
from raft.objects.base import Kind
from raft.objects.service import Service
from raft.store import Applied, Store


async def handle(message: dict[str, Any]) -> dict[str, Any]:
    """Apply committed commands that create so many objects; only the applying is timed."""
    store, before, seconds = Store(), rss_mb(), 0.0
    for batch in objects.batches(message["services"], message["tasks"], 0):
        kinds = [Kind.SERVICE if isinstance(record, Service) else Kind.TASK for record in batch]
        command = codec.encode_command(
            Change(kind, record.id, 0, record) for kind, record in zip(kinds, batch, strict=True)
        )
        start = time.perf_counter()
        applied = store.apply(command, store.index + 1)
        seconds += time.perf_counter() - start
        assert isinstance(applied, Applied), applied
    return {"seconds": seconds, "mb_before": before, "mb_after": rss_mb()}


if __name__ == "__main__":
    asyncio.run(serve(handle))
