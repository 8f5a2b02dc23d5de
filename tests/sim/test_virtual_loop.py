"""The simulated event loop: asyncio's order of things, in a time that costs nothing, and an end without clean-up."""

from __future__ import annotations

import asyncio

import pytest

from tests.sim.clock import Events, NodeClock, Turns
from tests.sim.loop import JOB_S, NodeLoop


class World:
    """One loop, whose owner does nothing but watch it. Runs until `seconds` have passed."""

    def __init__(self) -> None:
        self.events = Events()
        self.clock = NodeClock(self.events, "clock")
        self.loop = NodeLoop(self.events, self.clock, Turns(1), self)
        self.busy_s = 0.0
        self.heard: list[object] = []

    def after_burst(self) -> float:
        busy_s, self.busy_s = self.busy_s, 0.0
        return busy_s

    def after_job(self) -> None:
        self.heard.append("job")

    def run(self, seconds: float) -> None:
        until = self.events.now + seconds
        while (action := self.events.next(until)) is not None:
            action()


@pytest.fixture
def world() -> World:
    return World()


def test_callbacks_run_in_order_and_what_they_ask_for_runs_after_them(world: World) -> None:
    def first() -> None:
        world.heard.append(1)
        world.loop.call_soon(world.heard.append, 3)

    world.loop.call_soon(first)
    world.loop.call_soon(world.heard.append, 2)
    world.loop.call_soon(world.heard.append, "never").cancel()
    world.run(0.0)
    assert world.heard == [1, 2, 3]


def test_sleep_and_timeout_take_the_nodes_own_time(world: World) -> None:
    async def work() -> None:
        start = world.loop.time()
        await asyncio.sleep(2.0)
        world.heard.append(world.loop.time() - start)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await asyncio.sleep(1000.0)
        world.heard.append(world.loop.time() - start)

    world.loop.create_task(work())
    world.run(10.0)
    assert world.heard == pytest.approx([2.0, 3.0])
    assert world.loop.failure is None


def test_clock_is_fast_or_slow_and_tells_when_it_will_read_something(world: World) -> None:
    start = world.clock.read()
    world.run(100.0)
    assert 98.0 <= world.clock.read() - start <= 102.0
    assert world.clock.read() - start != 100.0
    assert world.clock.moment(world.clock.read()) == pytest.approx(100.0)


def test_locks_tasks_and_current_task_are_asyncios(world: World) -> None:
    lock = asyncio.Lock()

    async def hold(name: str) -> None:
        async with lock:
            await asyncio.sleep(1.0)
            world.heard.append((name, asyncio.current_task() is tasks[name]))

    tasks = {name: world.loop.create_task(hold(name)) for name in ("a", "b")}
    world.run(1.5)
    assert world.heard == [("a", True)]
    tasks["b"].cancel()
    world.run(1.5)
    assert tasks["b"].cancelled()
    assert asyncio._get_running_loop() is None


def test_thread_is_a_later_job_and_its_result_comes_later_still(world: World) -> None:
    async def work() -> None:
        world.heard.append(await asyncio.to_thread(lambda: "result"))
        with pytest.raises(OSError, match="full"):
            await asyncio.to_thread(fail)

    def fail() -> None:
        raise OSError("full")

    task = world.loop.create_task(work())
    world.run(0.0)
    assert world.heard == []
    world.run(4 * JOB_S)
    assert world.heard == ["job", "result", "job"]
    assert task.done()
    assert world.loop.failure is None


def test_busy_and_paused_node_does_nothing(world: World) -> None:
    async def work() -> None:
        await asyncio.sleep(0.1)
        world.heard.append(world.events.now)

    world.loop.create_task(work())
    world.loop.pause(3.0)
    world.run(2.0)
    assert world.heard == []
    world.run(2.0)
    assert world.heard[0] == pytest.approx(3.1, abs=0.01)
    world.busy_s = 5.0
    world.loop.call_soon(lambda: None)
    world.run(0.0)
    world.loop.call_soon(world.heard.append, "after the disk")
    world.run(4.9)
    assert len(world.heard) == 1
    world.run(0.2)
    assert world.heard[1] == "after the disk"


def test_dead_loop_runs_nothing_and_no_clean_up_reaches_anything(world: World) -> None:
    async def work() -> None:
        try:
            await asyncio.sleep(1.0)
        finally:
            world.loop.call_soon(world.heard.append, "clean-up")
            world.loop.create_task(asyncio.sleep(0.0))

    async def job() -> None:
        await asyncio.to_thread(world.heard.append, "thread")

    world.loop.create_task(work())
    world.loop.create_task(job())
    world.run(0.0)
    world.loop.die()
    world.loop.call_soon(world.heard.append, "callback")
    world.run(10.0)
    assert world.heard == []


def test_failure_that_nobody_handles_is_seen(world: World) -> None:
    async def work() -> None:
        raise ZeroDivisionError

    world.loop.create_task(work())
    world.run(0.0)
    assert isinstance(world.loop.failure, ZeroDivisionError)


def test_callbacks_that_never_rest_are_noticed(world: World) -> None:
    def again() -> None:
        world.loop.call_soon(again)

    world.loop.call_soon(again)
    with pytest.raises(RuntimeError, match="never rests"):
        world.run(1.0)
