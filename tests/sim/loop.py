"""An asyncio event loop in simulated time: one per life of a node, all driven by one queue of events.

Callbacks run in the order of asyncio: what is ready runs, what that makes ready runs in the next iteration.
Time is the node's own clock; while the node is busy (its disk, a pause) nothing of it runs. A thread is a
job at a later time, and its result arrives at a still later one. A dead loop forgets everything: nobody's
clean-up reaches anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from tests.sim.clock import Events, NodeClock, Turns

ITERATIONS_MAX = 10_000  # at one moment
JOB_S = 0.15

_set_running_loop: Any = asyncio._set_running_loop


class Handle:
    """A callback that waits; the part of asyncio.TimerHandle that callers use."""

    __slots__ = ("_args", "_callback", "_context", "_is_cancelled", "_when")

    def __init__(
        self, callback: Callable[..., object], args: Any, context: contextvars.Context | None, when: float
    ) -> None:
        self._callback = callback
        self._args = args
        self._context = context
        self._when = when
        self._is_cancelled = False

    def cancel(self) -> None:
        self._is_cancelled = True

    def cancelled(self) -> bool:
        return self._is_cancelled

    def when(self) -> float:
        return self._when

    def run(self) -> None:
        if self._context is None:
            self._callback(*self._args)
        else:
            self._context.run(self._callback, *self._args)


class Owner(Protocol):
    """Is told what the node has done, and may end its loop then."""

    def after_burst(self) -> float:
        """An iteration is over; returns for how many seconds that kept the node busy."""

    def after_job(self) -> None:
        """A thread has done its work."""


class NodeLoop(asyncio.AbstractEventLoop):
    def __init__(self, events: Events, clock: NodeClock, turns: Turns, owner: Owner) -> None:
        self.is_dead = False
        self.failure: BaseException | None = None  # of a task or callback: nobody was there to handle it
        self._events = events
        self._clock = clock
        self._turns = turns
        self._owner = owner
        self._busy_until = 0.0
        self._ready: deque[Handle] = deque()
        self._is_woken = False
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._jobs: dict[Callable[[], None], None] = {}

    # ---- the simulation's side ----

    def pause(self, seconds: float) -> None:
        self._busy_until = max(self._busy_until, self._events.now + seconds)

    def die(self) -> None:
        """Everything that waits is gone."""
        self.is_dead = True
        self._ready.clear()
        self._jobs.clear()
        with self.entered():
            for task in self._tasks:
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                # What its `finally` does reaches nothing any more, and may well fail.
                with contextlib.suppress(BaseException):
                    task.get_coro().close()  # type: ignore[union-attr]

    def end_jobs(self) -> None:
        """What runs in threads runs to its end, as when a process ends in an orderly way."""
        for job in list(self._jobs):
            job()

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """What is done inside is done by this node."""
        outer, outer_clock = asyncio._get_running_loop(), self._turns.enter(self._clock)
        _set_running_loop(self)
        try:
            yield
        finally:
            self._turns.enter(outer_clock)
            _set_running_loop(outer)

    def _wake(self) -> None:
        if not self._is_woken and not self.is_dead:
            self._is_woken = True
            self._events.at(self._busy_until, self._run)

    def _run(self) -> None:
        if self.is_dead:
            return
        if self._busy_until > self._events.now:  # paused meanwhile
            self._events.at(self._busy_until, self._run)
            return
        with self.entered():
            for _ in range(ITERATIONS_MAX):
                self._run_burst()
                busy_s = self._owner.after_burst()
                if self.is_dead:
                    return
                if busy_s:
                    self.pause(busy_s)
                    break
                if not self._ready:
                    break
            else:
                raise RuntimeError("a node that never rests: one callback asks for another")
        self._is_woken = False
        if self._ready:
            self._wake()

    def _run_burst(self) -> None:
        ready = self._ready
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._is_cancelled:
                try:
                    handle.run()
                except BaseException as err:  # noqa: BLE001 (also a power cut, which is no Exception)
                    self.failure = self.failure or err

    # ---- asyncio's side ----

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return self.is_dead

    def time(self) -> float:
        return self._clock.read()

    def call_soon(self, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        handle = Handle(callback, args, context, 0.0)
        if not self.is_dead:
            self._ready.append(handle)
            self._wake()
        return handle

    def call_later(
        self, delay: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> Any:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> Any:
        handle = Handle(callback, args, context, when)
        self._events.at(self._clock.moment(when), lambda: self._fire(handle))
        return handle

    def _fire(self, handle: Handle) -> None:
        if not handle._is_cancelled and not self.is_dead:
            self._ready.append(handle)
            self._wake()

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **options: Any) -> Any:
        if self.is_dead:
            coro.close()
            return self.create_future()
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, **options)
        self._tasks[task] = None
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        del self._tasks[task]
        if not task.cancelled():
            self.failure = self.failure or task.exception()

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        result = self.create_future()

        def job() -> None:
            if job not in self._jobs:
                return
            del self._jobs[job]
            outcome, error = None, None
            outer_clock = self._turns.enter(self._clock)
            try:
                outcome = func(*args)
            except BaseException as err:  # noqa: BLE001 (it is the caller's)
                error = err
            finally:
                self._turns.enter(outer_clock)
            self._owner.after_job()
            told_in = self._clock.dice.uniform(0, JOB_S)
            self._events.after(told_in, lambda: self.call_soon(_resolve, result, outcome, error))

        self._jobs[job] = None
        start = max(self._events.now, self._busy_until) + self._clock.dice.uniform(0, JOB_S)
        self._events.at(start, job)
        return result

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """What the garbage collector finds: outcomes that a crash kept from those who waited for them."""


def _resolve(future: asyncio.Future[Any], outcome: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(outcome)
    else:
        future.set_exception(error)
