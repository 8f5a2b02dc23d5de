"""Time and control loops: the clock seam, backoff, and the one observe-decide-act runner.

Owns waiting. Every loop above it takes a `Clock`, so that tests run hours in no time. Invariant: a wake-up
that arrives while a pass runs is never lost; it leads to another pass.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Protocol, TypeVar

log = logging.getLogger(__name__)

NEVER = math.inf

V = TypeVar("V")


class Clock(Protocol):
    """Where time comes from. All values in seconds."""

    def now(self) -> float:
        """Unix time; may jump."""

    def monotonic(self) -> float:
        """Never goes back; for measuring and deadlines."""

    async def sleep(self, seconds: float) -> None: ...

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        """Until the event is set (True) or the time has passed (False). `seconds` may be infinite."""


class SystemClock:
    """The machine's clock and the event loop's timers."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        if event.is_set():
            return True
        try:
            async with asyncio.timeout(None if seconds == math.inf else max(0.0, seconds)):
                await event.wait()
        except TimeoutError:
            return False
        return True


class ManualClock:
    """Time that moves only when `advance` is called: for tests and simulations."""

    # Turns of the event loop granted to the sleepers that a step of time woke.
    TURNS = 20

    def __init__(self, start: float = 1_000_000.0) -> None:
        self._now = start
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        await self._sleeper(seconds)

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        if event.is_set() or seconds <= 0:
            await asyncio.sleep(0)
            return event.is_set()
        sleeper = self._sleeper(seconds)
        waiter = asyncio.create_task(event.wait())
        try:
            either: set[asyncio.Future[Any]] = {sleeper, waiter}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            return event.is_set()
        finally:
            sleeper.cancel()
            waiter.cancel()

    async def advance(self, seconds: float) -> None:
        """Move time; sleepers wake in the order of their deadlines, each at its own time."""
        end = self._now + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            deadline, _, future = heapq.heappop(self._sleepers)
            if future.done():
                continue
            self._now = max(self._now, deadline)
            future.set_result(None)
            await self.settle()
        self._now = end
        await self.settle()

    async def settle(self) -> None:
        """Let everything run that can run without time passing."""
        for _ in range(self.TURNS):
            await asyncio.sleep(0)

    def _sleeper(self, seconds: float) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if seconds != math.inf:
            heapq.heappush(self._sleepers, (self._now + seconds, next(self._order), future))
        return future


class Backoff:
    """Growing pauses between attempts: doubled each time up to `most`, each drawn from its upper half.

    The jitter keeps many nodes that lost the same manager from coming back in step.
    """

    def __init__(
        self, first: float = 0.1, most: float = 8.0, *, random: Callable[[], float] = random.random
    ) -> None:
        self._first = first
        self._most = most
        self._random = random
        self._attempts = 0

    def next(self) -> float:
        """Seconds to wait before the next attempt."""
        # Capped exponent: 2**1100 does not fit a float, and a node may retry for weeks.
        pause = min(self._most, self._first * 2.0 ** min(self._attempts, 32))
        self._attempts += 1
        return pause * (0.5 + self._random() / 2)

    def reset(self) -> None:
        """After a success."""
        self._attempts = 0


class Due(Protocol):
    """What a decision must tell the runner: the Unix time at which deciding again can differ, or NEVER."""

    @property
    def due(self) -> float: ...


DueDecision = TypeVar("DueDecision", bound=Due)


class ControlLoop(Generic[V, DueDecision]):
    """Observe, decide, act; again when woken or when the decision is due.

    `decide` is a plain function of what was observed and the time. An error in any of the three is logged
    and the pass repeated after a backoff. `debounce` seconds of quiet are awaited after a wake-up, but never
    more than `debounce_most`, so that a burst of changes is one pass.
    """

    def __init__(
        self,
        name: str,
        *,
        observe: Callable[[], V],
        decide: Callable[[V, float], DueDecision],
        act: Callable[[DueDecision], Awaitable[None]],
        clock: Clock,
        debounce: float = 0.0,
        debounce_most: float = 1.0,
        backoff: Backoff | None = None,
    ) -> None:
        self._name = name
        self._observe = observe
        self._decide = decide
        self._act = act
        self._clock = clock
        self._debounce = debounce
        self._debounce_most = debounce_most
        self._backoff = backoff or Backoff()
        self._woken = asyncio.Event()
        self._woken.set()

    def wake(self) -> None:
        """Something changed: make a pass soon."""
        self._woken.set()

    async def run(self) -> None:
        """Pass after pass, the first at once, until cancelled."""
        due = NEVER
        while True:
            woken = await self._clock.wait(self._woken, due - self._clock.now())
            if woken and self._debounce:
                await self._quiet()
            self._woken.clear()
            due = await self._pass()

    async def _pass(self) -> float:
        try:
            decision = self._decide(self._observe(), self._clock.now())
            await self._act(decision)
        except Exception as error:  # a control loop outlives every failure of one pass
            pause = self._backoff.next()
            log.warning("%s: pass failed, next try in %.1f s: %s", self._name, pause, error, exc_info=error)
            return self._clock.now() + pause
        self._backoff.reset()
        return decision.due

    async def _quiet(self) -> None:
        deadline = self._clock.monotonic() + self._debounce_most
        while self._clock.monotonic() < deadline:
            self._woken.clear()
            if not await self._clock.wait(self._woken, self._debounce):
                return
