from __future__ import annotations

import asyncio
import gc
import io
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from engine import errors
from node.api.app import build_app
from node.api.backend import EngineBackend, SwarmBackend
from node.api.context import Context, Route
from node.api.query import BODY_BYTES_MAX
from node.api.server import serve
from node.api.versions import API_VERSION, version_problem
from raft import errors as cluster_errors

RAISED: dict[str, Exception] = {
    "bad": errors.InvalidParameter("Cmd is wrong"),
    "forbidden": errors.Forbidden("not this one"),
    "missing": errors.NotFound("No such container: x"),
    "conflict": errors.Conflict("in use"),
    "failed": errors.EngineFailure("disk full"),
    "start": errors.StartFailed("exec: nope", 127),
    "later": errors.NotImplementedHere("not yet"),
    "away": errors.Unavailable("no supervisor"),
    "no-leader": cluster_errors.Unavailable("no leader"),
    "in-doubt": cluster_errors.MaybeCommitted("no majority confirmed the write"),
    "taken": cluster_errors.AlreadyExists("service x"),
    "locked": cluster_errors.Unauthenticated("invalid key provided"),
    "open": cluster_errors.Conflict("swarm is not locked"),
    "surprise": KeyError("x"),
}


async def _raise(_context: Context, request: web.Request) -> web.StreamResponse:
    raise RAISED[request.match_info["what"]]


async def _stop(_context: Context, _request: web.Request) -> web.StreamResponse:
    raise errors.NotModified("already stopped")


async def _size(_context: Context, request: web.Request) -> web.StreamResponse:
    return web.Response(text=str(len(await request.read())))


ROUTES = (Route("GET", "/raise/{what}", _raise), Route("POST", "/stop", _stop), Route("POST", "/size", _size))


@pytest.fixture
async def client() -> AsyncIterator[TestClient[web.Request, web.Application]]:
    context = Context(engine=cast(EngineBackend, None), swarm=cast(SwarmBackend, None))
    async with TestClient(TestServer(build_app(context, ROUTES))) as made:
        yield made


@pytest.mark.parametrize(
    ("what", "status", "message"),
    [
        ("bad", 400, "Cmd is wrong"),
        ("forbidden", 403, "not this one"),
        ("missing", 404, "No such container: x"),
        ("conflict", 409, "in use"),
        ("failed", 500, "disk full"),
        ("start", 400, "exec: nope"),
        ("later", 501, "not yet"),
        ("away", 503, "no supervisor"),
        ("no-leader", 503, "no leader"),
        ("in-doubt", 503, "no majority confirmed the write"),
        ("taken", 409, "service x"),
        ("locked", 401, "invalid key provided"),
        ("open", 409, "swarm is not locked"),
        ("surprise", 500, "internal error: KeyError('x')"),
    ],
)
async def test_every_error_is_an_answer(client: Any, what: str, status: int, message: str) -> None:
    answer = await client.get(f"/raise/{what}")
    assert (answer.status, await answer.json()) == (status, {"message": message})


@pytest.mark.parametrize(("what", "outcome"), [("in-doubt", "unknown"), ("no-leader", "none"), ("bad", None)])
async def test_a_refused_write_says_whether_it_may_have_been_made(
    client: Any, what: str, outcome: str | None
) -> None:
    answer = await client.get(f"/raise/{what}")
    assert answer.headers.get("Swarmctl-Outcome") == outcome


async def test_what_was_so_already_has_no_body(client: Any) -> None:
    answer = await client.post("/stop")
    assert (answer.status, await answer.read()) == (304, b"")


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("GET", "/stop", 405)])
async def test_paths_that_are_not_served(client: Any, method: str, path: str, status: int) -> None:
    answer = await client.request(method, path)
    assert answer.status == status
    assert set(await answer.json()) == {"message"}


async def test_every_answer_says_who_gave_it(client: Any) -> None:
    for path in ("/raise/bad", "/v1.40/raise/bad", "/nowhere"):
        answer = await client.get(path)
        assert (answer.headers["Api-Version"], answer.headers["Ostype"]) == (API_VERSION, "linux")
        assert answer.headers["Server"].startswith("swarmctl/")


@pytest.mark.parametrize("version", ["1.24", "1.40", API_VERSION])
async def test_versions_that_are_served(client: Any, version: str) -> None:
    assert (await client.get(f"/v{version}/raise/missing")).status == 404
    assert version_problem(version) == ""


@pytest.mark.parametrize(
    ("version", "word"), [("1.23", "too old"), ("0.99", "too old"), ("1.99", "too new"), ("2.0", "too new")]
)
async def test_versions_that_are_not(client: Any, version: str, word: str) -> None:
    answer = await client.get(f"/v{version}/raise/missing")
    assert answer.status == 400
    assert f"client version {version} is {word}" in (await answer.json())["message"]


async def test_a_body_has_a_limit(client: Any) -> None:
    small, large = io.BytesIO(bytes(BODY_BYTES_MAX - 1)), io.BytesIO(bytes(BODY_BYTES_MAX + 1))
    assert await (await client.post("/size", data=small)).text() == str(BODY_BYTES_MAX - 1)
    assert (await client.post("/size", data=large)).status == 413


@pytest.mark.parametrize(
    ("what", "logged"), [("no-leader", []), ("surprise", ["a call whose client has gone failed"])]
)
async def test_a_refusal_whose_client_has_gone_is_not_logged_as_a_fault(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str, logged: list[str]
) -> None:
    begun, may_end, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(_context: Context, _request: web.Request) -> web.StreamResponse:
        begun.set()
        try:
            await may_end.wait()
            raise RAISED[what]
        finally:
            ended.set()

    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, details: complaints.append(details))
    context = Context(engine=cast(EngineBackend, None), swarm=cast(SwarmBackend, None))
    socket = tmp_path / "api.sock"
    runner = await serve(build_app(context, [Route("GET", "/slow", slow)]), [socket])
    try:
        async with asyncio.timeout(10):
            _, writer = await asyncio.open_unix_connection(str(socket))
            writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            await begun.wait()
            writer.close()
            await writer.wait_closed()
            while len(asyncio.all_tasks()) > 2:  # this test and the call: the connection's has ended
                await asyncio.sleep(0.001)
            may_end.set()
            await ended.wait()
        with caplog.at_level(logging.ERROR, "node.api.app"):
            await asyncio.sleep(0.01)
            gc.collect()
    finally:
        await runner.cleanup()
    assert complaints == []
    assert [record.message for record in caplog.records] == logged
