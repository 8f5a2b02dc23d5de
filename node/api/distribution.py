"""Registries: login, search, what a registry has under a name, push. Pulls are in /images/create."""

from __future__ import annotations

from aiohttp import web

from engine.registry.credentials import Credentials
from node.api.context import Context, Route
from node.api.query import body, filters, json_response, number, platform, stream_json

AUTH_HEADER = "X-Registry-Auth"


async def auth(context: Context, request: web.Request) -> web.StreamResponse:
    return json_response(await context.engine.registry.log_in(await body(request, Credentials)))


async def search(context: Context, request: web.Request) -> web.StreamResponse:
    found = await context.engine.registry.search(
        request.query.get("term", ""),
        number(request, "limit", 0),
        filters(request),
        request.headers.get(AUTH_HEADER, ""),
    )
    return json_response(found)


async def inspect(context: Context, request: web.Request) -> web.StreamResponse:
    shown = await context.engine.registry.distribution(
        request.match_info["name"], request.headers.get(AUTH_HEADER, "")
    )
    return json_response(shown)


async def push(context: Context, request: web.Request) -> web.StreamResponse:
    messages = context.engine.images.push(
        request.match_info["name"],
        request.query.get("tag", ""),
        request.headers.get(AUTH_HEADER, ""),
        platform=platform(request),
    )
    return await stream_json(request, messages)


ROUTES = [
    Route("POST", "/auth", auth),
    Route("GET", "/images/search", search),
    Route("GET", "/distribution/{name:.+}/json", inspect),
    Route("POST", "/images/{name:.+}/push", push, streams=True),
]
