"""/services."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from engine.errors import InvalidParameter
from engine.names import random_name
from engine.registry.credentials import from_header
from node.api.bodies import ServiceBody
from node.api.context import Context, Route
from node.api.convert import service_spec, service_to_api
from node.api.keys import writer
from node.api.query import body, filters, flag, json_response, number
from node.api.streams import LogEntry, log_options, one_by_one, stream_logs
from raft.objects.service import ServiceSpec


async def listing(context: Context, request: web.Request) -> web.StreamResponse:
    control = context.swarm.control
    rows = [service_to_api(service) for service in await control.list_services(filters(request))]
    if flag(request, "status"):
        statuses = await control.service_statuses()
        for row in rows:
            status = statuses.get(row["ID"])
            row["ServiceStatus"] = {
                "RunningTasks": status.running if status else 0,
                "DesiredTasks": status.desired if status else 0,
                "CompletedTasks": status.completed if status else 0,
            }
    return json_response(rows)


async def create(context: Context, request: web.Request) -> web.StreamResponse:
    asked = await body(request, ServiceBody)
    asked.name = asked.name or random_name()
    spec = _with_auth(service_spec(asked), request.headers.get("X-Registry-Auth", ""))
    service = await (await writer(context, request)).create_service(spec)
    return json_response({"ID": service.id, "Warnings": None}, 201)


async def inspect(context: Context, request: web.Request) -> web.StreamResponse:
    return json_response(service_to_api(await context.swarm.control.get_service(request.match_info["id"])))


async def update(context: Context, request: web.Request) -> web.StreamResponse:
    spec = service_spec(await body(request, ServiceBody))
    auth = request.headers.get("X-Registry-Auth", "") or await _known_auth(context, request)
    spec = _with_auth(spec, auth)
    await (await writer(context, request)).update_service(
        request.match_info["id"], number(request, "version", 0), spec, request.query.get("rollback", "")
    )
    return json_response({"Warnings": None})


async def _known_auth(context: Context, request: web.Request) -> str:
    """An update without credentials keeps those that the service has, or had (`registryAuthFrom`)."""
    source = request.query.get("registryAuthFrom", "") or "spec"
    if source not in ("spec", "previous-spec"):
        raise InvalidParameter(f"unsupported registryAuthFrom value: {source}: use spec or previous-spec")
    service = await context.swarm.control.get_service(request.match_info["id"])
    spec = service.spec if source == "spec" else service.previous_spec
    if spec is None:
        raise InvalidParameter("service does not have a previous spec")
    return str(spec.task.container.registry_auth)


def _with_auth(spec: ServiceSpec, auth: str) -> ServiceSpec:
    from_header(auth)  # nodes would only find out later that it is damaged
    container = msgspec.structs.replace(spec.task.container, registry_auth=auth)
    return msgspec.structs.replace(spec, task=msgspec.structs.replace(spec.task, container=container))


async def remove(context: Context, request: web.Request) -> web.StreamResponse:
    await (await writer(context, request)).remove_service(request.match_info["id"])
    return web.Response(status=200)


async def logs(context: Context, request: web.Request) -> web.StreamResponse:
    options = log_options(request)
    service = await context.swarm.control.get_service(request.match_info["id"])
    details = await task_details(context, {"service": [service.id]}) if flag(request, "details") else None
    entries = context.swarm.service_logs(service.id, options)
    return await stream_logs(
        request, one_by_one(entries), tty=service.spec.task.container.tty, details=details
    )


async def task_details(context: Context, wanted: dict[str, list[str]]) -> Callable[[LogEntry], str]:
    """The words in front of each line by which clients tell whose it is."""
    known: dict[str, Any] = {task.id: task for task in await context.swarm.control.list_tasks(wanted)}

    def words(entry: LogEntry) -> str:
        task_id = str(getattr(entry, "task_id", ""))
        task = known.get(task_id)
        node_id, service_id = (task.node_id, task.service_id) if task else ("", "")
        return (
            f"com.docker.swarm.node.id={node_id},com.docker.swarm.service.id={service_id},"
            f"com.docker.swarm.task.id={task_id}"
        )

    return words


ROUTES = [
    Route("GET", "/services", listing),
    Route("POST", "/services/create", create, keyed=True),
    Route("GET", "/services/{id}", inspect),
    Route("POST", "/services/{id}/update", update, keyed=True),
    Route("DELETE", "/services/{id}", remove, keyed=True),
    Route("GET", "/services/{id}/logs", logs, streams=True),
]
