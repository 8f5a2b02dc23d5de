"""/exec: processes in running containers."""

from __future__ import annotations

from aiohttp import web

from engine.config import ApiStruct, ExecConfig
from engine.errors import Conflict
from node.api.checks import check_console_size
from node.api.context import Context, Route
from node.api.hijack import Session, hijack
from node.api.query import body, json_response, optional_body, terminal_size


class ExecStart(ApiStruct):
    """Body of POST /exec/{id}/start."""

    detach: bool = False
    tty: bool = False
    console_size: list[int] | None = None


async def create(context: Context, request: web.Request) -> web.StreamResponse:
    config = await body(request, ExecConfig)
    check_console_size(config.console_size)
    return json_response({"Id": await context.engine.exec_create(request.match_info["id"], config)}, 201)


async def start(context: Context, request: web.Request) -> web.StreamResponse:
    asked = await optional_body(request, ExecStart) or ExecStart()
    check_console_size(asked.console_size)
    exec_id = request.match_info["id"]
    known = await context.engine.exec_inspect(exec_id)
    if known["Running"] or known["ExitCode"] is not None:
        raise Conflict(f"Exec {exec_id} has already run: create a new one")
    tty = asked.tty or known["ProcessConfig"]["tty"]

    async def open_session() -> Session:
        session = await context.engine.exec_start(
            exec_id, detach=False, tty=tty, console_size=asked.console_size
        )
        assert session is not None, "an attached exec has a session"
        return session

    if not asked.detach:
        return await hijack(request, tty=tty, open_session=open_session)
    await context.engine.exec_start(exec_id, detach=True, tty=tty)
    return web.Response(status=200)


async def inspect(context: Context, request: web.Request) -> web.StreamResponse:
    return json_response(await context.engine.exec_inspect(request.match_info["id"]))


async def resize(context: Context, request: web.Request) -> web.StreamResponse:
    await context.engine.exec_resize(request.match_info["id"], *terminal_size(request))
    return web.Response(status=200)


ROUTES = [
    Route("POST", "/containers/{id}/exec", create),
    Route("POST", "/exec/{id}/start", start),
    Route("GET", "/exec/{id}/json", inspect),
    Route("POST", "/exec/{id}/resize", resize),
]
