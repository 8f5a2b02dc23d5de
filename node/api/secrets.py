"""/secrets."""

from __future__ import annotations

from aiohttp import web

from node.api.bodies import NamedData
from node.api.context import Context, Route
from node.api.convert import secret_spec_from_api, secret_to_api
from node.api.keys import writer
from node.api.query import body, filters, json_response, no_content, number


async def listing(context: Context, request: web.Request) -> web.StreamResponse:
    found = await context.swarm.control.list_secrets(filters(request))
    return json_response([secret_to_api(secret) for secret in found])


async def create(context: Context, request: web.Request) -> web.StreamResponse:
    spec = secret_spec_from_api(await body(request, NamedData))
    created = await (await writer(context, request)).create_secret(spec)
    return json_response({"ID": created.id}, 201)


async def inspect(context: Context, request: web.Request) -> web.StreamResponse:
    return json_response(secret_to_api(await context.swarm.control.get_secret(request.match_info["id"])))


async def update(context: Context, request: web.Request) -> web.StreamResponse:
    spec = secret_spec_from_api(await body(request, NamedData))
    await (await writer(context, request)).update_secret(
        request.match_info["id"], number(request, "version", 0), spec
    )
    return web.Response(status=200)


async def remove(context: Context, request: web.Request) -> web.StreamResponse:
    await (await writer(context, request)).remove_secret(request.match_info["id"])
    return no_content()


ROUTES = [
    Route("GET", "/secrets", listing),
    Route("POST", "/secrets/create", create, keyed=True),
    Route("GET", "/secrets/{id}", inspect),
    Route("POST", "/secrets/{id}/update", update, keyed=True),
    Route("DELETE", "/secrets/{id}", remove, keyed=True),
]
