"""So many at a time, where "so many" may change while some are at it (the daemon's settings are read anew)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Slots:
    """`async with`: waits, in order of arrival, until fewer than `limit()` are inside."""

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self._used = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def are_taken(self) -> bool:
        return self._used >= max(1, self._limit())

    async def __aenter__(self) -> None:
        if not self.are_taken() and not self._waiting:
            self._used += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn  # who wakes us has counted us already
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._leave()
            elif turn in self._waiting:  # whoever left just now may have passed it over
                self._waiting.remove(turn)
            raise

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    def _leave(self) -> None:
        self._used -= 1
        while self._waiting and not self.are_taken():
            turn = self._waiting.popleft()
            if not turn.done():
                self._used += 1
                turn.set_result(None)
