"""/containers: create, start, stop, inspect, logs, attach and the rest."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

from aiohttp import web

from engine.config import ContainerCreate, LogRecord
from engine.errors import Conflict, InvalidParameter
from node.api.checks import check_container
from node.api.context import Context, Route
from node.api.convert import check_container_mount
from node.api.hijack import Session, hijack
from node.api.older import meant_by_older
from node.api.query import (
    body,
    encode_json,
    filters,
    flag,
    json_response,
    no_content,
    number,
    prune_filters,
    stream_lines,
    terminal_size,
)
from node.api.sockets import serve_socket
from node.api.streams import LogEntry, attributes_text, log_options, stream_logs
from node.api.versions import asked_version

STATUSES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")


async def create(context: Context, request: web.Request) -> web.StreamResponse:
    asked = await body(request, ContainerCreate)
    meant_by_older(asked, asked_version(request))
    check_container(asked)
    for mount in (asked.host_config and asked.host_config.mounts) or ():
        check_container_mount(mount)
    container_id, warnings = await context.engine.create_container(
        request.query.get("name", ""), asked, platform=request.query.get("platform", "")
    )
    return json_response({"Id": container_id, "Warnings": warnings}, 201)


async def listing(context: Context, request: web.Request) -> web.StreamResponse:
    limit = number(request, "limit", 0)
    wanted = filters(request)
    for status in wanted.get("status", ()):
        if status not in STATUSES:
            raise InvalidParameter(f"invalid filter 'status={status}'")
    rows = await context.engine.list_containers(flag(request, "all"), limit, flag(request, "size"), wanted)
    return json_response(rows)


async def inspect(context: Context, request: web.Request) -> web.StreamResponse:
    return json_response(await context.engine.inspect_container(_ref(request), flag(request, "size")))


async def start(context: Context, request: web.Request) -> web.StreamResponse:
    await context.engine.start_container(_ref(request))
    return no_content()


async def stop(context: Context, request: web.Request) -> web.StreamResponse:
    await context.engine.stop_container(_ref(request), _timeout(request), request.query.get("signal", ""))
    return no_content()


async def restart(context: Context, request: web.Request) -> web.StreamResponse:
    await context.engine.restart_container(_ref(request), _timeout(request), request.query.get("signal", ""))
    return no_content()


async def kill(context: Context, request: web.Request) -> web.StreamResponse:
    await context.engine.kill_container(_ref(request), request.query.get("signal", ""))
    return no_content()


async def remove(context: Context, request: web.Request) -> web.StreamResponse:
    if flag(request, "link"):
        await context.engine.remove_link(_ref(request))
        return no_content()
    await context.engine.remove_container(
        _ref(request), force=flag(request, "force"), volumes=flag(request, "v")
    )
    return no_content()


async def wait(context: Context, request: web.Request) -> web.StreamResponse:
    """The head goes out at once: clients start the container only after they have seen it."""
    ref = _ref(request)
    await context.engine.inspect_container(ref)
    waiting = asyncio.ensure_future(context.engine.wait_container(ref, request.query.get("condition", "")))
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    try:
        await asyncio.sleep(0)
        if waiting.done() and waiting.exception() is not None:
            await waiting
        await response.prepare(request)
        result = await waiting
    finally:
        waiting.cancel()
    answer: dict[str, Any] = {"StatusCode": result.exit_code}
    if result.error:
        answer["Error"] = {"Message": result.error}
    with contextlib.suppress(ConnectionError):  # a client may have what it wants and be gone
        await response.write(encode_json(answer) + b"\n")
        await response.write_eof()
    return response


async def logs(context: Context, request: web.Request) -> web.StreamResponse:
    ref = _ref(request)
    options = log_options(request)
    tty = context.engine.container_is_tty(ref)
    batches = context.engine.container_log_batches(ref, options)
    details = _details if flag(request, "details") else None
    return await stream_logs(request, batches, tty=tty, details=details)


def _details(entry: LogEntry) -> str:
    return attributes_text(entry.attributes) if isinstance(entry, LogRecord) else ""


async def attach(context: Context, request: web.Request) -> web.StreamResponse:
    """The session is opened before the head goes out: clients start the container when they have seen it."""
    session = await _attached(context, request)

    async def opened() -> Session:
        return session

    try:
        return await hijack(request, tty=session.tty, open_session=opened)
    finally:
        await session.close()


async def attach_ws(context: Context, request: web.Request) -> web.StreamResponse:
    """The same by a WebSocket: raw bytes in both directions, whatever stream they belong to."""
    if not web.WebSocketResponse().can_prepare(request):
        raise InvalidParameter("attach/ws needs a WebSocket: send the handshake of RFC 6455")
    session = await _attached(context, request)
    try:
        return await serve_socket(request, session)
    finally:
        await session.close()


async def _attached(context: Context, request: web.Request) -> Session:
    streams = {name: flag(request, name) for name in ("stdin", "stdout", "stderr", "stream", "logs")}
    keys = request.query.get("detachKeys", "")
    return await context.engine.attach_container(_ref(request), **streams, keys=keys)


async def resize(context: Context, request: web.Request) -> web.StreamResponse:
    await context.engine.resize_container(_ref(request), *terminal_size(request))
    return web.Response(status=200)


async def rename(context: Context, request: web.Request) -> web.StreamResponse:
    try:
        await context.engine.rename_container(_ref(request), request.query.get("name", ""))
    except Conflict as error:
        raise Conflict(f"Error when allocating new name: {error}") from error
    return no_content()


async def pause(context: Context, request: web.Request) -> web.StreamResponse:
    await context.engine.pause_container(_ref(request))
    return no_content()


async def unpause(context: Context, request: web.Request) -> web.StreamResponse:
    await context.engine.unpause_container(_ref(request))
    return no_content()


async def top(context: Context, request: web.Request) -> web.StreamResponse:
    return json_response(await context.engine.top_container(_ref(request), request.query.get("ps_args", "")))


async def stats(context: Context, request: web.Request) -> web.StreamResponse:
    samples = context.engine.stats_container(
        _ref(request), stream=flag(request, "stream", True), one_shot=flag(request, "one-shot")
    )
    return await stream_lines(request, samples)


async def update(context: Context, request: web.Request) -> web.StreamResponse:
    changes = await body(request, dict[str, Any])
    return json_response({"Warnings": await context.engine.update_container(_ref(request), changes)})


async def prune(context: Context, request: web.Request) -> web.StreamResponse:
    wanted = prune_filters(request, ("label", "label!", "until"), time.time())
    return json_response(await context.engine.prune_containers(wanted))


def _ref(request: web.Request) -> str:
    return request.match_info["id"]


def _timeout(request: web.Request) -> int | None:
    return number(request, "t", 0) if "t" in request.query else None


ROUTES = [
    Route("POST", "/containers/create", create),
    Route("GET", "/containers/json", listing),
    Route("POST", "/containers/prune", prune),
    Route("GET", "/containers/{id}/json", inspect),
    Route("POST", "/containers/{id}/start", start),
    Route("POST", "/containers/{id}/stop", stop),
    Route("POST", "/containers/{id}/restart", restart),
    Route("POST", "/containers/{id}/kill", kill),
    Route("DELETE", "/containers/{id:.+}", remove),
    Route("POST", "/containers/{id}/wait", wait, streams=True),
    Route("GET", "/containers/{id}/logs", logs, streams=True),
    Route("POST", "/containers/{id}/attach", attach),
    Route("GET", "/containers/{id}/attach/ws", attach_ws, streams=True),
    Route("POST", "/containers/{id}/resize", resize),
    Route("POST", "/containers/{id}/rename", rename),
    Route("POST", "/containers/{id}/pause", pause),
    Route("POST", "/containers/{id}/unpause", unpause),
    Route("GET", "/containers/{id}/top", top),
    Route("GET", "/containers/{id}/stats", stats, streams=True),
    Route("POST", "/containers/{id}/update", update),
]
