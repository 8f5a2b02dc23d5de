"""The HTTP application: versions, headers, errors; the routes come from the route table."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import web

from node.api.context import SERVER_VERSION, Context, Handler, Route
from node.api.errors import outcome_of, status_of
from node.api.hijack import HEAD_SENT
from node.api.keys import KEY_HEADER, refuse_key
from node.api.older import adapted
from node.api.query import BODY_BYTES_MAX, is_gone, json_response
from node.api.versions import API_VERSION, VersionPrefix, version_problem
from raft.errors import MaybeCommitted

logger = logging.getLogger(__name__)

_HEADERS = {
    "Api-Version": API_VERSION,
    "Ostype": "linux",
    "Docker-Experimental": "false",
    "Server": f"swarmctl/{SERVER_VERSION} (linux)",
}
OUTCOME_HEADER = "Swarmctl-Outcome"
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)  # the user's to mend, not ours
_BROKEN_OFF = (web.RequestPayloadError, ConnectionError)  # by the client, before its request was whole


def build_app(context: Context, routes: Iterable[Route]) -> web.Application:
    """Every route is served with and without a /v1.NN prefix."""
    app = web.Application(middlewares=[_guard], client_max_size=BODY_BYTES_MAX)
    calls = _Calls()
    app.on_cleanup.append(calls.cancel)
    for route in routes:
        handler = route.handler if route.streams else calls.carried(route.handler)
        app.router.add_route(route.method, route.path, _bound(context, route, handler))
    app.router.register_resource(VersionPrefix(app.router))
    app.on_response_prepare.append(_add_headers)
    return app


def _ended_unheard(call: asyncio.Future[web.StreamResponse]) -> None:
    """The client has gone, so that a refusal interests nobody; a fault of ours is logged all the same."""
    error = None if call.cancelled() else call.exception()
    if error is None or isinstance(error, _BROKEN_OFF):  # it was about to answer
        return
    if not isinstance(error, Exception) or status_of(error) is None:
        logger.error("a call whose client has gone failed", exc_info=error)


class _Calls:
    """Calls that go on when their client has gone: a change that has begun is not left half-done."""

    def __init__(self) -> None:
        self._running: set[asyncio.Future[web.StreamResponse]] = set()

    def carried(self, handler: Handler) -> Handler:
        async def call(context: Context, request: web.Request) -> web.StreamResponse:
            running = asyncio.ensure_future(handler(context, request))
            self._running.add(running)
            running.add_done_callback(self._running.discard)
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                running.add_done_callback(_ended_unheard)
                raise

        return call

    async def cancel(self, _app: web.Application) -> None:
        """The server ends."""
        running = tuple(self._running)
        for call in running:
            call.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _bound(
    context: Context, route: Route, handler: Handler
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def call(request: web.Request) -> web.StreamResponse:
        version = request.match_info.get("version")
        if version is not None:
            problem = version_problem(version)
            if problem:
                return json_response({"message": problem}, 400)
        if not route.keyed:
            refuse_key(request)
        answer = await handler(context, request)
        return answer if version is None else adapted(route, version, answer)

    return call


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)
    request[HEAD_SENT] = True


def _cut_off(request: web.Request, error: Exception) -> web.StreamResponse:
    """A second answer would be read as the body of the first: the connection ends instead."""
    logger.warning("%s %s ended early: %r", request.method, request.path_qs, error)
    if request.transport is not None:
        request.transport.close()
    return web.Response()


@web.middleware
async def _guard(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Errors become {"message": ...} with the status of their class."""
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return json_response({"message": "page not found"}, 404)
    except web.HTTPMethodNotAllowed:
        return json_response({"message": "method not allowed: see the API reference"}, 405)
    except web.HTTPException as error:
        return json_response({"message": error.reason}, error.status)
    except web.RequestPayloadError as error:
        return json_response({"message": f"the request's body cannot be read: {error}"}, 400)
    except Exception as error:  # the border: everything must become an answer
        if isinstance(error, ConnectionError) and is_gone(request):
            return web.Response()  # nobody hears it
        if HEAD_SENT in request:
            return _cut_off(request, error)
        status = status_of(error)
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            where = f"write {error.filename}: " if error.filename else ""
            return json_response({"message": f"{where}{os.strerror(error.errno).lower()}"}, 500)
        if status is None:
            logger.exception("%s %s failed", request.method, request.path_qs)
            return json_response({"message": f"internal error: {error!r}"}, 500)
        if status == 304:
            return web.Response(status=304)
        response = json_response({"message": str(error)}, status)
        if outcome := outcome_of(error):
            response.headers[OUTCOME_HEADER] = outcome
        if isinstance(error, MaybeCommitted) and error.key:
            response.headers[KEY_HEADER] = error.key
        return response
