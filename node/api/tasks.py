"""/tasks."""

from __future__ import annotations

from aiohttp import web

from node.api.context import Context, Route
from node.api.convert import task_to_api
from node.api.query import filters, flag, json_response
from node.api.services import task_details
from node.api.streams import log_options, one_by_one, stream_logs


async def listing(context: Context, request: web.Request) -> web.StreamResponse:
    control = context.swarm.control
    tasks = await control.list_tasks(filters(request))
    attached = any(task.networks for task in tasks)
    networks = {network.id: network for network in await control.list_networks({})} if attached else {}
    return json_response([task_to_api(task, networks) for task in tasks])


async def inspect(context: Context, request: web.Request) -> web.StreamResponse:
    control = context.swarm.control
    task = await control.get_task(request.match_info["id"])
    networks = {network.id: network for network in await control.list_networks({})}
    return json_response(task_to_api(task, networks))


async def logs(context: Context, request: web.Request) -> web.StreamResponse:
    options = log_options(request)
    task = await context.swarm.control.get_task(request.match_info["id"])
    details = await task_details(context, {"id": [task.id]}) if flag(request, "details") else None
    entries = context.swarm.task_logs(task.id, options)
    return await stream_logs(request, one_by_one(entries), tty=task.spec.container.tty, details=details)


ROUTES = [
    Route("GET", "/tasks", listing),
    Route("GET", "/tasks/{id}", inspect),
    Route("GET", "/tasks/{id}/logs", logs, streams=True),
]
