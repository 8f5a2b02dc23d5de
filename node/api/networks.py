"""/networks: those of this host from the engine, those of the cluster from the managers, in one list."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from engine.config import ApiStruct, EndpointConfig, NetworkCreate
from engine.errors import InvalidParameter, NotFound
from node.api.context import Context, Route
from node.api.convert import check_local_network, network_spec_from_api, network_to_api
from node.api.keys import refuse_key, writer
from node.api.query import body, filters, json_response, no_content, prune_filters
from raft import errors as raft

LIST_FILTERS = ("dangling", "driver", "id", "label", "name", "scope", "type")


class NetworkConnect(ApiStruct):
    container: str = ""
    endpoint_config: EndpointConfig | None = None


class NetworkDisconnect(ApiStruct):
    container: str = ""
    force: bool = False


async def listing(context: Context, request: web.Request) -> web.StreamResponse:
    wanted = filters(request)
    for key in wanted:
        if key not in LIST_FILTERS:
            raise InvalidParameter(f"invalid filter '{key}'")
    rows = await context.engine.networks.summaries(wanted)
    known = {row["Id"] for row in rows}
    rows += [row for row in await _cluster_networks(context, wanted) if row["Id"] not in known]
    return json_response(rows)


async def create(context: Context, request: web.Request) -> web.StreamResponse:
    asked = await body(request, NetworkCreate)
    if asked.driver == "overlay" or asked.scope == "swarm":
        control = await writer(context, request)
        network = await control.create_network(network_spec_from_api(asked))
        return json_response({"Id": network.id, "Warning": ""}, 201)
    refuse_key(request)
    check_local_network(asked)
    return json_response({"Id": await context.engine.networks.create(asked), "Warning": ""}, 201)


async def inspect(context: Context, request: web.Request) -> web.StreamResponse:
    ref = request.match_info["id"]
    if request.query.get("scope") != "swarm":
        try:
            shown = await context.engine.networks.inspect(ref)
        except NotFound:
            shown = None
        if shown is not None and not (shown["Scope"] == "swarm" and context.swarm.is_manager()):
            return json_response(shown)
    network = await _find_in_cluster(context, ref)
    shown = network_to_api(network)
    try:
        shown["Containers"] = (await context.engine.networks.inspect(network.id))["Containers"]
    except NotFound:
        shown["Containers"] = {}
    return json_response(shown)


async def remove(context: Context, request: web.Request) -> web.StreamResponse:
    ref = request.match_info["id"]
    try:
        local = await context.engine.networks.inspect(ref)
    except NotFound:
        local = None
    if local is not None and local["Scope"] == "local":
        refuse_key(request)
        await context.engine.networks.remove(ref)
        return no_content()
    if not context.swarm.is_manager():
        raise NotFound(f"network {ref} not found")
    await (await writer(context, request)).remove_network(ref)
    return no_content()


async def connect(context: Context, request: web.Request) -> web.StreamResponse:
    asked = await body(request, NetworkConnect)
    if not asked.container:
        raise InvalidParameter("Container is required: name the container to connect")
    await context.engine.networks.connect(request.match_info["id"], asked.container, asked.endpoint_config)
    return web.Response(status=200)


async def disconnect(context: Context, request: web.Request) -> web.StreamResponse:
    asked = await body(request, NetworkDisconnect)
    await context.engine.networks.disconnect(request.match_info["id"], asked.container, force=asked.force)
    return web.Response(status=200)


async def prune(context: Context, request: web.Request) -> web.StreamResponse:
    """Those of this host, and on a manager those of the cluster: a worker knows of neither use nor label."""
    wanted = prune_filters(request, ("label", "label!", "until"), time.time())
    pruned = await context.engine.networks.prune(wanted)
    if context.swarm.is_manager():
        pruned["NetworksDeleted"] += await context.swarm.control.prune_networks(wanted)
    return json_response(pruned)


async def _cluster_networks(context: Context, wanted: Mapping[str, list[str]]) -> list[dict[str, Any]]:
    if not context.swarm.is_manager():
        return []
    usable = {key: values for key, values in wanted.items() if key in ("id", "name", "label")}
    rows = [network_to_api(network) for network in await context.swarm.control.list_networks(usable)]
    for key in ("driver", "scope"):
        if wanted.get(key):
            rows = [row for row in rows if row[key.capitalize()] in wanted[key]]
    if wanted.get("type"):
        rows = [row for row in rows if "custom" in wanted["type"]]
    return [] if wanted.get("dangling") else rows


async def _find_in_cluster(context: Context, ref: str) -> Any:
    if not context.swarm.is_manager():
        raise NotFound(f"network {ref} not found")
    try:
        return await context.swarm.control.get_network(ref)
    except raft.NotFound as error:
        raise NotFound(f"network {ref} not found") from error


ROUTES = [
    Route("GET", "/networks", listing),
    Route("POST", "/networks/create", create, keyed=True),
    Route("POST", "/networks/prune", prune),
    Route("GET", "/networks/{id}", inspect),
    Route("DELETE", "/networks/{id}", remove, keyed=True),
    Route("POST", "/networks/{id}/connect", connect),
    Route("POST", "/networks/{id}/disconnect", disconnect),
]
