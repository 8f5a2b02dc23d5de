"""One process of stock PySyncObj: a replicated dictionary, its own thread, its own transport over TCP.

Arguments: folder, own port, ports of the others (comma between), "memory" or "journal", "batching" or "at-once".
A write on a follower goes to the leader by PySyncObj's own means.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pysyncobj

from bench.raft import load
from bench.raft.processes import serve

library: Any = pysyncobj  # untyped


class Dictionary(library.SyncObj):  # type: ignore[misc]
    def __init__(self, own: str, others: list[str], conf: Any) -> None:
        super().__init__(own, others, conf)
        self.values: dict[str, bytes] = {}

    @library.replicated  # type: ignore[untyped-decorator]
    def put(self, key: str, value: bytes) -> None:
        self.values[key] = value


class _Clients:
    """A closed loop without threads of its own: each answer, in PySyncObj's thread, sends the next write."""

    def __init__(self, shared: Dictionary, clients: int, seconds: float) -> None:
        self._shared = shared
        self._seconds = seconds
        self._running = clients
        self._latencies: list[float] = []
        self._start = time.perf_counter()
        self.done = threading.Event()
        for number in range(clients):
            self._next(number, 0)

    def _next(self, client: int, count: int) -> None:
        began = time.perf_counter()

        def answered(_result: object, reason: int) -> None:
            now = time.perf_counter()
            if reason == library.FAIL_REASON.SUCCESS:
                self._latencies.append(now - began)
            if now - self._start < self._seconds:
                self._next(client, count + 1)
                return
            self._running -= 1
            if not self._running:
                self._elapsed = now - self._start
                self.done.set()

        self._shared.put(f"client-{client}", load.value(count), callback=answered)

    def figures(self) -> load.Figures:
        return load.figures(self._latencies, self._elapsed)


async def main() -> None:
    folder, own, others, kept, sending = sys.argv[1:]
    # It complains of each entry that it truncates although it was applied, under load all the time.
    logging.disable(logging.CRITICAL)
    conf = library.SyncObjConf(
        journalFile=str(Path(folder) / f"{own}.journal") if kept == "journal" else None,
        appendEntriesUseBatch=sending == "batching",
    )
    shared = Dictionary(f"127.0.0.1:{own}", [f"127.0.0.1:{port}" for port in others.split(",")], conf)

    async def handle(message: dict[str, Any]) -> dict[str, Any]:
        if message["verb"] == "status":
            return {"leader": bool(shared._isLeader()), "ready": bool(shared.isReady())}
        clients = _Clients(shared, message["clients"], message["seconds"])
        await asyncio.to_thread(clients.done.wait, 60)
        return msgspec.to_builtins(clients.figures())  # type: ignore[no-any-return]

    await serve(handle)
    shared.destroy()


if __name__ == "__main__":
    asyncio.run(main())
