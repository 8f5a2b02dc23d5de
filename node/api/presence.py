"""Long answers end when nobody is there to read them.

The server notices a closed connection at the next write; a quiet stream may not write for days.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar

from aiohttp import web

LOOK_S = 0.5

_T = TypeVar("_T")


def has_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


async def unless_gone(request: web.Request, work: Awaitable[_T]) -> _T:
    """The result of `work`, which is cancelled when the client leaves: ConnectionResetError."""
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=LOOK_S))[0]:
            if has_gone(request):
                raise ConnectionResetError("the client has gone")
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def while_present(request: web.Request, items: AsyncIterator[_T]) -> AsyncIterator[_T]:
    """`items` as long as the client is there; ConnectionResetError when it leaves. Closes `items` at the end."""
    try:
        while True:
            try:
                item = await unless_gone(request, anext(items))
            except StopAsyncIteration:
                return
            yield item
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()
