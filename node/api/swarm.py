"""/swarm: founding, joining, leaving, settings and tokens."""

from __future__ import annotations

import msgspec
from aiohttp import web

from node.api import bodies
from node.api.context import Context, Route
from node.api.convert import availability_from_api, check_address_pools, cluster_spec_from_api, cluster_to_api
from node.api.keys import request_of
from node.api.query import body, flag, json_response, number
from raft.errors import InvalidArgument


async def inspect(context: Context, _request: web.Request) -> web.StreamResponse:
    return json_response(cluster_to_api(await context.swarm.swarm_inspect()))


async def init(context: Context, request: web.Request) -> web.StreamResponse:
    asked = await body(request, bodies.SwarmInitBody)
    _refuse_data_path(asked.data_path_addr, asked.data_path_port)
    if flag(request, "dryRun"):
        if not asked.force_new_cluster:
            raise InvalidArgument("dryRun: only with ForceNewCluster is there anything to be said beforehand")
        return json_response(msgspec.to_builtins(await context.swarm.swarm_survey()))
    pools = asked.default_addr_pool or ()
    check_address_pools(pools, asked.subnet_size)
    node_id = await context.swarm.swarm_init(
        advertise=asked.advertise_addr,
        listen=asked.listen_addr,
        force_new_cluster=asked.force_new_cluster,
        spec=cluster_spec_from_api(asked.spec),
        pools=pools,
        subnet_size=asked.subnet_size,
        availability=availability_from_api(asked.availability or "active"),
    )
    return json_response(node_id)


async def join(context: Context, request: web.Request) -> web.StreamResponse:
    asked = await body(request, bodies.SwarmJoinBody)
    _refuse_data_path(asked.data_path_addr, 0)
    await context.swarm.swarm_join(
        remotes=asked.remote_addrs or (),
        token=asked.join_token,
        advertise=asked.advertise_addr,
        listen=asked.listen_addr,
        availability=availability_from_api(asked.availability or "active"),
    )
    return web.Response(status=200)


async def leave(context: Context, request: web.Request) -> web.StreamResponse:
    await context.swarm.swarm_leave(force=flag(request, "force"))
    return web.Response(status=200)


async def update(context: Context, request: web.Request) -> web.StreamResponse:
    asked = await body(request, bodies.SwarmSpecBody)
    current = (await context.swarm.swarm_inspect()).spec
    await context.swarm.swarm_update(
        number(request, "version", 0),
        cluster_spec_from_api(asked, current),
        rotate_worker_token=flag(request, "rotateWorkerToken"),
        rotate_manager_token=flag(request, "rotateManagerToken"),
        rotate_unlock_key=flag(request, "rotateManagerUnlockKey"),
        request=await request_of(request),
    )
    return web.Response(status=200)


async def unlock_key(context: Context, _request: web.Request) -> web.StreamResponse:
    """The key, empty while autolock is off."""
    return json_response({"UnlockKey": await context.swarm.swarm_unlock_key()})


async def unlock(context: Context, request: web.Request) -> web.StreamResponse:
    asked = await body(request, bodies.SwarmUnlockBody)
    await context.swarm.swarm_unlock(asked.unlock_key)
    return web.Response(status=200)


def _refuse_data_path(address: str, port: int) -> None:
    if address:
        raise InvalidArgument(
            "DataPathAddr is not supported yet: overlay traffic uses the advertised address"
        )
    if port not in (0, 4789):
        raise InvalidArgument("DataPathPort is not supported yet: overlay traffic uses port 4789")


ROUTES = [
    Route("GET", "/swarm", inspect),
    Route("POST", "/swarm/init", init),
    Route("POST", "/swarm/join", join),
    Route("POST", "/swarm/leave", leave),
    Route("POST", "/swarm/update", update, keyed=True),
    Route("GET", "/swarm/unlockkey", unlock_key),
    Route("POST", "/swarm/unlock", unlock),
]
