"""/containers/{id}/archive, /export and /changes: files of containers, in and out."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
from aiohttp import ClientPayloadError, web

from engine.errors import InvalidParameter
from node.api.context import Context, Route
from node.api.query import closing, flag, json_response

CHUNK_BYTES = 1 << 20
STALLED_S = 120.0  # a client that neither takes nor sends anything: files of a container are not held for it
STAT_HEADER = "X-Docker-Container-Path-Stat"


async def stat(context: Context, request: web.Request) -> web.StreamResponse:
    described = await context.engine.files.stat(_ref(request), _path(request))
    return web.Response(headers={STAT_HEADER: _encoded(described)})


async def get(context: Context, request: web.Request) -> web.StreamResponse:
    async with context.engine.files.archive(_ref(request), _path(request)) as (described, pieces):
        headers = {"Content-Type": "application/x-tar", STAT_HEADER: _encoded(described)}
        return await _send(request, pieces, headers)


async def put(context: Context, request: web.Request) -> web.StreamResponse:
    await context.engine.files.extract(
        _ref(request),
        _path(request),
        _upload(request),
        keeps_kinds=flag(request, "noOverwriteDirNonDir"),
        to_user=flag(request, "copyUIDGID"),
    )
    return web.Response(status=200)


async def export(context: Context, request: web.Request) -> web.StreamResponse:
    async with closing(context.engine.files.export(_ref(request))) as pieces:
        return await _send(request, pieces, {"Content-Type": "application/octet-stream"})


async def changes(context: Context, request: web.Request) -> web.StreamResponse:
    """Docker's answer for a container without changes is null."""
    return json_response(await context.engine.files.changes(_ref(request)) or None)


async def _send(
    request: web.Request, pieces: AsyncIterator[bytes], headers: Mapping[str, str]
) -> web.StreamResponse:
    """The head goes out with the first piece, so that what fails before it is an error with a status."""
    response = web.StreamResponse(headers=headers)
    async for piece in pieces:
        async with asyncio.timeout(STALLED_S):
            if not response.prepared:
                await response.prepare(request)
            await response.write(piece)
    async with asyncio.timeout(STALLED_S):
        if not response.prepared:
            await response.prepare(request)
        await response.write_eof()
    return response


async def _upload(request: web.Request) -> AsyncIterator[bytes]:
    while True:
        try:
            async with asyncio.timeout(STALLED_S):
                piece = await request.content.readany()
        except TimeoutError as error:
            raise InvalidParameter(f"nothing came for {STALLED_S:.0f} s: send the archive again") from error
        except (ConnectionError, ClientPayloadError, web.RequestPayloadError) as error:
            raise InvalidParameter("the client went away in the middle of its archive") from error
        if not piece:
            return
        yield piece


def _encoded(described: Mapping[str, Any]) -> str:
    return base64.b64encode(msgspec.json.encode(described)).decode()


def _path(request: web.Request) -> str:
    path = request.query.get("path", "")
    if not path:
        raise InvalidParameter("bad parameter: path cannot be empty")
    return path


def _ref(request: web.Request) -> str:
    return request.match_info["id"]


ROUTES = [
    Route("HEAD", "/containers/{id}/archive", stat),
    Route("GET", "/containers/{id}/archive", get, streams=True),
    Route("PUT", "/containers/{id}/archive", put),
    Route("GET", "/containers/{id}/export", export, streams=True),
    Route("GET", "/containers/{id}/changes", changes),
]
