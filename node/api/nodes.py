"""/nodes."""

from __future__ import annotations

from aiohttp import web

from node.api.bodies import NodeBody
from node.api.context import Context, Route
from node.api.convert import node_spec_from_api, node_to_api
from node.api.keys import writer
from node.api.query import body, filters, flag, json_response, number


async def listing(context: Context, request: web.Request) -> web.StreamResponse:
    nodes = await context.swarm.control.list_nodes(filters(request))
    return json_response([node_to_api(node) for node in nodes])


async def inspect(context: Context, request: web.Request) -> web.StreamResponse:
    return json_response(node_to_api(await context.swarm.control.get_node(request.match_info["id"])))


async def update(context: Context, request: web.Request) -> web.StreamResponse:
    spec = node_spec_from_api(await body(request, NodeBody))
    await (await writer(context, request)).update_node(
        request.match_info["id"], number(request, "version", 0), spec
    )
    return web.Response(status=200)


async def remove(context: Context, request: web.Request) -> web.StreamResponse:
    await (await writer(context, request)).remove_node(request.match_info["id"], flag(request, "force"))
    return web.Response(status=200)


ROUTES = [
    Route("GET", "/nodes", listing),
    Route("GET", "/nodes/{id}", inspect),
    Route("POST", "/nodes/{id}/update", update, keyed=True),
    Route("DELETE", "/nodes/{id}", remove, keyed=True),
]
