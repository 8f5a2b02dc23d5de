"""Clients that hang up in the middle of an answer: nothing of it is an error of ours."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import web

from engine.errors import EngineFailure
from node.api.app import build_app
from node.api.backend import EngineBackend, SwarmBackend
from node.api.context import Context, Route
from node.api.query import stream_json
from node.api.server import serve


class Stream:
    """Tells one thing, and when its client has gone more, or an error."""

    def __init__(self, *, fails: bool) -> None:
        self._fails = fails
        self.goes_on = asyncio.Event()
        self.has_ended = asyncio.Event()

    async def messages(self) -> AsyncIterator[dict[str, Any]]:
        try:
            yield {"status": "begun"}
            await self.goes_on.wait()
            if self._fails:
                raise EngineFailure("it failed")
            for _ in range(1000):
                yield {"status": "x" * 10_000}
                await asyncio.sleep(0)
        finally:
            self.has_ended.set()


@pytest.mark.parametrize("fails", [True, False])
async def test_nothing_is_logged_as_a_fault(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fails: bool
) -> None:
    stream = Stream(fails=fails)
    answered = asyncio.Event()

    async def handler(_context: Context, request: web.Request) -> web.StreamResponse:
        try:
            return await stream_json(request, stream.messages())
        finally:
            answered.set()

    context = Context(engine=cast(EngineBackend, None), swarm=cast(SwarmBackend, None))
    app = build_app(context, [Route("POST", "/stream", handler)])
    runner = await serve(app, [tmp_path / "s"])
    try:
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        writer.write(b"POST /stream HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n")
        async with asyncio.timeout(10):
            await reader.readuntil(b"begun")
            writer.transport.abort()
            await asyncio.sleep(0.05)
            stream.goes_on.set()
            await answered.wait()
            await asyncio.sleep(0.05)
    finally:
        await runner.cleanup()
    assert stream.has_ended.is_set()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
