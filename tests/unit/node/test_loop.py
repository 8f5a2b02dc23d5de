"""Clocks, backoff and the control loop, on manual time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from node.loop import NEVER, Backoff, ControlLoop, ManualClock, SystemClock


@dataclass
class Decision:
    seen: int
    due: float = NEVER


async def test_sleepers_wake_in_order_of_their_deadlines():
    clock = ManualClock(start=0.0)
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((name, clock.now()))

    sleepers = [asyncio.create_task(sleeper(*s)) for s in (("late", 5.0), ("early", 1.0), ("never", 50.0))]
    await clock.advance(10)
    assert woken == [("early", 1.0), ("late", 5.0)]
    assert clock.now() == 10.0
    sleepers[-1].cancel()


async def test_wait_tells_event_from_time_out():
    for clock in (ManualClock(), SystemClock()):
        event = asyncio.Event()
        assert await clock.wait(event, 0) is False
        event.set()
        assert await clock.wait(event, NEVER) is True


def test_backoff_doubles_up_to_its_limit_and_starts_over():
    backoff = Backoff(0.1, 8.0, random=lambda: 1.0)
    assert [backoff.next() for _ in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 8.0]
    backoff.reset()
    assert backoff.next() == 0.1


def test_backoff_jitter_stays_in_the_upper_half():
    low, high = Backoff(random=lambda: 0.0), Backoff(random=lambda: 1.0)
    assert [low.next() / high.next() for _ in range(2000)] == [0.5] * 2000


@contextlib.asynccontextmanager
async def running(
    clock: ManualClock, act: Callable[[Decision], None], **options: float
) -> AsyncIterator[ControlLoop[int, Decision]]:
    """A loop that observes how often it has looked; due 10 s after its third pass."""
    looks = iter(range(1, 1000))

    async def acting(decision: Decision) -> None:
        act(decision)

    loop = ControlLoop(
        "test",
        observe=lambda: next(looks),
        decide=lambda seen, now: Decision(seen, now + 10 if seen == 3 else NEVER),
        act=acting,
        clock=clock,
        backoff=Backoff(1.0, random=lambda: 1.0),
        **options,
    )
    task = asyncio.create_task(loop.run())
    await clock.settle()
    try:
        yield loop
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_first_pass_at_once_then_on_wake_and_when_due():
    clock, seen = ManualClock(), list[int]()
    async with running(clock, lambda d: seen.append(d.seen)) as loop:
        assert seen == [1]
        await clock.advance(100)
        assert seen == [1]
        for _ in range(2):
            loop.wake()
            await clock.settle()
        assert seen == [1, 2, 3]
        await clock.advance(9)
        assert seen == [1, 2, 3]
        await clock.advance(2)
        assert seen == [1, 2, 3, 4]


async def test_wake_during_a_pass_leads_to_another():
    clock, seen = ManualClock(), list[int]()
    loops: list[ControlLoop[int, Decision]] = []

    def act(decision: Decision) -> None:
        seen.append(decision.seen)
        if decision.seen == 2:
            loops[0].wake()

    async with running(clock, act) as loop:
        loops.append(loop)
        loop.wake()
        await clock.settle()
        assert seen == [1, 2, 3]


async def test_burst_is_one_pass_but_never_delayed_for_ever():
    clock, seen = ManualClock(), list[int]()
    async with running(clock, lambda d: seen.append(d.seen), debounce=0.05, debounce_most=1.0) as loop:
        await clock.advance(0.1)
        for _ in range(15):
            loop.wake()
            await clock.advance(0.04)
        assert seen == [1]
        for _ in range(15):
            loop.wake()
            await clock.advance(0.04)
        assert seen == [1, 2]


async def test_failed_pass_is_repeated_after_a_pause():
    clock, seen = ManualClock(), list[int]()

    def act(decision: Decision) -> None:
        seen.append(decision.seen)
        if decision.seen < 3:
            raise ValueError("no")

    async with running(clock, act):
        assert seen == [1]
        await clock.advance(1.0)
        assert seen == [1, 2]
        await clock.advance(1.9)
        assert seen == [1, 2]
        await clock.advance(0.2)
        assert seen == [1, 2, 3]
