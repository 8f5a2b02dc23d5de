"""Work that a cancellation must not leave half-done: it is waited for, and only then is the caller cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


async def carried(work: Coroutine[Any, Any, _T], stop: Callable[[], object] = lambda: None) -> _T:
    """What `work` gives. When the caller is cancelled, `stop` is called and the end of the work awaited."""
    running = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stop()
        await asyncio.gather(running, return_exceptions=True)
        raise


async def to_its_end(work: Callable[[], _T], stop: Callable[[], object] = lambda: None) -> _T:
    """The same for a function that runs in a thread, which nothing can interrupt."""
    return await carried(asyncio.to_thread(work), stop)
