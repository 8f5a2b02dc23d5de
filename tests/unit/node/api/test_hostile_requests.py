"""Requests that break off, lie or are no HTTP: an answer in words, no fault in the log."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest
from aiohttp import web

from node.api.app import build_app
from node.api.backend import EngineBackend, SwarmBackend
from node.api.context import Context, Route
from node.api.server import serve


async def _echo(_context: Context, request: web.Request) -> web.StreamResponse:
    return web.Response(body=await request.read() + request.headers.get("X-Long", "").encode())


@pytest.fixture
async def socket(tmp_path: Path) -> AsyncIterator[Path]:
    context = Context(engine=cast(EngineBackend, None), swarm=cast(SwarmBackend, None))
    routes = [Route("POST", "/echo", _echo), Route("GET", "/echo", _echo)]
    runner = await serve(build_app(context, routes), [tmp_path / "api.sock"])
    try:
        yield tmp_path / "api.sock"
    finally:
        await runner.cleanup()


async def exchange(socket: Path, data: bytes) -> tuple[bytes, bytes]:
    """Head and body of all that comes until the daemon ends the connection."""
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_unix_connection(str(socket), limit=1 << 21)
        writer.write(data)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


def posted(headers: str, body: bytes) -> bytes:
    return f"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n\r\n".encode() + body


async def test_a_compressed_body_is_taken_as_it_comes(socket: Path) -> None:
    packed = gzip.compress(b"x")
    for body in (packed, b"no gzip"):
        data = posted(f"Content-Encoding: gzip\r\nContent-Length: {len(body)}", body)
        assert (await exchange(socket, data))[1] == body


async def test_a_body_that_is_not_what_it_says_is_refused(socket: Path) -> None:
    head, body = await exchange(socket, posted("Transfer-Encoding: chunked", b"zz\r\n{}\r\n0\r\n\r\n"))
    assert b" 400 " in head
    assert b"internal error" not in body


async def test_heads_may_be_long(socket: Path) -> None:
    query, word = "q" * 100_000, "h" * 100_000
    data = f"GET /echo?{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Long: {word}\r\n\r\n"
    assert (await exchange(socket, data.encode()))[1] == word.encode()


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01\r\n\r\n", b"GET /echo HTTP/9.9\r\n\r\n", b"GET /echo HTTP/1.1\r\n: x\r\n\r\n"]
)
async def test_what_is_no_http_leaves_no_trace_in_the_log(
    socket: Path, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    assert b" 400 " in (await exchange(socket, data))[0]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_client_that_goes_in_the_middle_of_its_body_is_no_fault(
    socket: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, writer = await asyncio.open_unix_connection(str(socket))
    writer.write(posted("Content-Length: 500", b"{"))
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.close()
    await writer.wait_closed()
    assert json.loads((await exchange(socket, posted("Content-Length: 2", b"{}")))[1]) == {}
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
