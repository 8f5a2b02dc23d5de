"""The host as a whole: ping, version, info, events, disk usage."""

from __future__ import annotations

import platform
import sys

from aiohttp import web

from engine.errors import InvalidParameter
from node.api.context import SERVER_VERSION, Context, Route
from node.api.keys import INDEX_HEADER
from node.api.query import filters, json_response, moment, stream_lines
from node.api.versions import API_VERSION, API_VERSION_MIN

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
DISK_USERS = ("image", "container", "volume", "build-cache")


async def ping(context: Context, request: web.Request) -> web.StreamResponse:
    state = context.swarm.local_state()
    if state == "active":
        state = "active/manager" if context.swarm.is_manager() else "active/worker"
    headers = {
        "Cache-Control": "no-cache, no-store, must-revalidate",
        "Pragma": "no-cache",
        "Swarm": state,
        "Builder-Version": "1",
    }
    if context.swarm.is_manager():
        headers[INDEX_HEADER] = str(context.swarm.control.index)
    if request.method == "HEAD":
        headers["Content-Length"] = "0"
    text = "" if request.method == "HEAD" else "OK"
    return web.Response(text=text, content_type="text/plain", charset="utf-8", headers=headers)


async def version(context: Context, _request: web.Request) -> web.StreamResponse:
    architecture = _MACHINES.get(platform.machine(), platform.machine())
    details = {
        "ApiVersion": API_VERSION,
        "Arch": architecture,
        "BuildTime": "",
        "Experimental": "false",
        "GitCommit": "",
        "GoVersion": f"none (Python {platform.python_version()})",
        "KernelVersion": platform.release(),
        "MinAPIVersion": API_VERSION_MIN,
        "Os": "linux",
    }
    supervisor = context.engine.supervisor()
    return json_response(
        {
            "Platform": {"Name": "swarmctl"},
            "Components": [
                {"Name": "Engine", "Version": SERVER_VERSION, "Details": details},
                {"Name": "supervisor", "Version": supervisor["Build"], "Details": supervisor},
            ],
            "Version": SERVER_VERSION,
            "ApiVersion": API_VERSION,
            "MinAPIVersion": API_VERSION_MIN,
            "GitCommit": "",
            "GoVersion": details["GoVersion"],
            "Os": sys.platform,
            "Arch": architecture,
            "KernelVersion": platform.release(),
            "Experimental": False,
            "BuildTime": "",
        }
    )


async def info(context: Context, _request: web.Request) -> web.StreamResponse:
    shown = await context.engine.host.info()
    shown["Swarm"] = await context.swarm.info()
    return json_response(shown)


async def events(context: Context, request: web.Request) -> web.StreamResponse:
    stream = context.engine.events(moment(request, "since"), moment(request, "until"), filters(request))
    return await stream_lines(request, stream)


async def disk_usage(context: Context, request: web.Request) -> web.StreamResponse:
    """Whole, or only of the kinds that `type` names."""
    wanted = request.query.getall("type", [])
    for kind in wanted:
        if kind not in DISK_USERS:
            raise InvalidParameter(f"unknown object type: {kind}")
    return json_response(await context.engine.host.disk_usage(frozenset(wanted or DISK_USERS)))


ROUTES = [
    Route("GET", "/_ping", ping),
    Route("HEAD", "/_ping", ping),
    Route("GET", "/version", version),
    Route("GET", "/info", info),
    Route("GET", "/events", events, streams=True),
    Route("GET", "/system/df", disk_usage),
]
