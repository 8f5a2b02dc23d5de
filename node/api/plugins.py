"""/plugins: those that the engine runs itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from engine.errors import InvalidParameter
from node.api.context import Context, Route
from node.api.query import (
    body,
    filters,
    flag,
    json_response,
    no_content,
    number,
    optional_body,
    stream_json,
)

CHUNK_BYTES = 1 << 20


async def listing(context: Context, request: web.Request) -> web.StreamResponse:
    return json_response(await context.engine.plugins.summaries(filters(request)))


async def inspect(context: Context, request: web.Request) -> web.StreamResponse:
    return json_response(await context.engine.plugins.inspect(request.match_info["name"]))


async def create(context: Context, request: web.Request) -> web.StreamResponse:
    name = _required(request, "name")
    await context.engine.plugins.create(name, _upload(request))
    return no_content()


async def enable(context: Context, request: web.Request) -> web.StreamResponse:
    timeout_s = number(request, "timeout", 0)
    await context.engine.plugins.enable(request.match_info["name"], timeout_s)
    return web.Response(status=200)


async def disable(context: Context, request: web.Request) -> web.StreamResponse:
    await context.engine.plugins.disable(request.match_info["name"], force=flag(request, "force"))
    return web.Response(status=200)


async def configure(context: Context, request: web.Request) -> web.StreamResponse:
    await context.engine.plugins.set(request.match_info["name"], await body(request, list[str]))
    return no_content()


async def remove(context: Context, request: web.Request) -> web.StreamResponse:
    await context.engine.plugins.remove(request.match_info["name"], force=flag(request, "force"))
    return web.Response(status=200)


async def privileges(context: Context, request: web.Request) -> web.StreamResponse:
    asked = await context.engine.plugins.privileges(_required(request, "remote"), _auth(request))
    return json_response(asked)


async def pull(context: Context, request: web.Request) -> web.StreamResponse:
    remote, plugins = _required(request, "remote"), context.engine.plugins
    name = plugins.local_name(remote, request.query.get("name", ""))
    agreed = await optional_body(request, list[dict[str, Any]]) or []
    messages = plugins.pull(remote, name, agreed, _auth(request))
    # The client goes on to enable what this header names.
    return await stream_json(request, messages, {"Docker-Plugin-Name": name})


async def upgrade(context: Context, request: web.Request) -> web.StreamResponse:
    remote, name = _required(request, "remote"), request.match_info["name"]
    agreed = await optional_body(request, list[dict[str, Any]]) or []
    return await stream_json(request, context.engine.plugins.upgrade(name, remote, agreed, _auth(request)))


async def push(context: Context, request: web.Request) -> web.StreamResponse:
    return await stream_json(request, context.engine.plugins.push(request.match_info["name"], _auth(request)))


async def _upload(request: web.Request) -> AsyncIterator[bytes]:
    async for chunk in request.content.iter_chunked(CHUNK_BYTES):
        yield chunk


def _auth(request: web.Request) -> str:
    return request.headers.get("X-Registry-Auth", "")


def _required(request: web.Request, name: str) -> str:
    value = request.query.get(name, "")
    if not value:
        raise InvalidParameter(f"the query parameter {name} is required: name the plugin")
    return value


ROUTES = [
    Route("GET", "/plugins", listing),
    Route("GET", "/plugins/privileges", privileges),
    Route("POST", "/plugins/pull", pull),
    Route("POST", "/plugins/create", create),
    Route("GET", "/plugins/{name:.+}/json", inspect),
    Route("POST", "/plugins/{name:.+}/enable", enable),
    Route("POST", "/plugins/{name:.+}/disable", disable),
    Route("POST", "/plugins/{name:.+}/set", configure),
    Route("POST", "/plugins/{name:.+}/upgrade", upgrade),
    Route("POST", "/plugins/{name:.+}/push", push),
    Route("DELETE", "/plugins/{name:.+}", remove),
]
