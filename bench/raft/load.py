"""Load in a closed loop: so many clients, each with one write on its way, for so many seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec

VALUE_BYTES = 200
WARM_UP_WRITES = 3  # of each client, so that all connections are made


class Figures(msgspec.Struct, frozen=True):
    """Of one cell: milliseconds and writes per second."""

    p50_ms: float
    p99_ms: float
    per_second: float


def value(number: int) -> bytes:
    """200 bytes that differ from write to write."""
    return str(number).encode().rjust(VALUE_BYTES, b".")


def figures(latencies_s: Sequence[float], elapsed_s: float) -> Figures:
    ordered = sorted(latencies_s)
    assert ordered, "there was no write in all that time"
    at = len(ordered) * 99 // 100
    return Figures(ordered[len(ordered) // 2] * 1000, ordered[at] * 1000, len(ordered) / elapsed_s)


async def run(write: Callable[[int, bytes], Awaitable[object]], clients: int, seconds: float) -> Figures:
    """`write(client, value)` returns when the write is acknowledged."""

    async def warm_up(number: int) -> None:
        for count in range(WARM_UP_WRITES):
            await write(number, value(count))

    await asyncio.gather(*(warm_up(number) for number in range(clients)))
    latencies: list[float] = []
    start = time.perf_counter()
    end = start + seconds

    async def client(number: int) -> None:
        count = WARM_UP_WRITES
        while (began := time.perf_counter()) < end:
            count += 1
            await write(number, value(count))
            latencies.append(time.perf_counter() - began)

    await asyncio.gather(*(client(number) for number in range(clients)))
    return figures(latencies, time.perf_counter() - start)
