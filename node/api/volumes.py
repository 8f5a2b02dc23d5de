"""/volumes."""

from __future__ import annotations

from aiohttp import web

from engine.config import VolumeCreate
from engine.errors import NotFound, NotImplementedHere, Unavailable
from node.api.context import Context, Route
from node.api.query import filters, flag, json_response, no_content, number, optional_body
from node.api.versions import is_before


async def listing(context: Context, request: web.Request) -> web.StreamResponse:
    return json_response(await context.engine.volumes.summaries(filters(request)))


async def create(context: Context, request: web.Request) -> web.StreamResponse:
    asked = await optional_body(request, VolumeCreate) or VolumeCreate()
    if asked.cluster_volume_spec is not None:
        raise NotImplementedHere("ClusterVolumeSpec: cluster volumes are not supported yet: leave it out")
    return json_response(await context.engine.volumes.create(asked), 201)


async def inspect(context: Context, request: web.Request) -> web.StreamResponse:
    return json_response(await context.engine.volumes.inspect(request.match_info["name"]))


async def remove(context: Context, request: web.Request) -> web.StreamResponse:
    await context.engine.volumes.remove(request.match_info["name"], force=flag(request, "force"))
    return no_content()


async def prune(context: Context, request: web.Request) -> web.StreamResponse:
    wanted = dict(filters(request))
    if is_before(request, "1.42"):  # when volumes with a name were no exception
        wanted["all"] = ["true"]
    return json_response(await context.engine.volumes.prune(wanted))


async def update(context: Context, request: web.Request) -> web.StreamResponse:
    """Only volumes of a cluster can be changed, and there are none here."""
    if not context.swarm.is_manager():
        raise Unavailable("volume update only valid for cluster volumes, but swarm is unavailable")
    number(request, "version", -1)
    name = request.match_info["name"]
    raise NotFound(f"volume {name} not found: it is no cluster volume")


ROUTES = [
    Route("GET", "/volumes", listing),
    Route("POST", "/volumes/create", create),
    Route("POST", "/volumes/prune", prune),
    Route("GET", "/volumes/{name}", inspect),
    Route("PUT", "/volumes/{name}", update),
    Route("DELETE", "/volumes/{name}", remove),
]
