"""From work that reports to a stream of messages that a client reads as fast as it can.

Invariant: what waits is bounded: progress bars are left out when the client is slow, other messages never are
(there are only a few of them for each layer). A stream that is closed cancels its work.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from engine.registry.progress import Report

BARS_WAITING_MAX = 64


class _Waiting:
    def __init__(self) -> None:
        self._messages: deque[dict[str, Any] | None] = deque()
        self._bars = 0
        self._some = asyncio.Event()

    def put(self, message: dict[str, Any] | None) -> None:
        if message is not None and "progress" in message:
            if self._bars >= BARS_WAITING_MAX:
                return
            self._bars += 1
        self._messages.append(message)
        self._some.set()

    async def get(self) -> dict[str, Any] | None:
        while not self._messages:
            self._some.clear()
            await self._some.wait()
        message = self._messages.popleft()
        if message is not None and "progress" in message:
            self._bars -= 1
        return message


async def reported(work: Callable[[Report], Awaitable[None]]) -> AsyncGenerator[dict[str, Any], None]:
    """What `work` reports, then its error, if any."""
    waiting = _Waiting()

    async def run() -> None:
        try:
            await work(waiting.put)
        finally:
            waiting.put(None)

    task = asyncio.create_task(run())
    try:
        while (message := await waiting.get()) is not None:
            yield message
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
