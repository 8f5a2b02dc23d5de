"""The /v1.NN prefix at the router, and answers in the shape of older versions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from engine.config import ContainerCreate, HostConfig
from node.api.app import build_app
from node.api.backend import EngineBackend, SwarmBackend
from node.api.context import Context, Route
from node.api.older import ADAPTED_ROUTES, meant_by_older
from node.api.query import json_response
from node.api.routes import ROUTES
from node.api.versions import API_VERSION, is_before

ANSWERS: dict[str, Any] = {
    "/info": {"SecurityOptions": ["name=seccomp,profile=builtin"]},
    "/images/json": [{"Id": "sha256:1", "Size": 5}],
    "/images/{name:.+}/json": {"Id": "sha256:1", "Size": 5},
    "/system/df": {
        "Images": [{"Size": 5}],
        "BuildCache": [
            {"Size": 3, "Shared": False, "Parents": ["p"]},
            {"Size": 4, "Shared": True, "Parents": None},
        ],
    },
    "/containers/{id}/json": {
        "Id": "0123456789abcdef",
        "NetworkSettings": {"Networks": {"n": {"Aliases": ["a"], "DNSNames": ["a", "0123456789ab"]}}},
    },
}


async def _answer(_context: Context, request: web.Request) -> web.StreamResponse:
    resource = request.match_info.route.resource
    assert resource is not None
    return json_response(ANSWERS[resource.canonical.replace("{name}", "{name:.+}")])


async def _echo(_context: Context, request: web.Request) -> web.StreamResponse:
    return json_response(
        {"path": request.path, "name": request.match_info["name"], "old": is_before(request, "1.42")}
    )


@pytest.fixture
async def client() -> AsyncIterator[TestClient[web.Request, web.Application]]:
    context = Context(engine=cast(EngineBackend, None), swarm=cast(SwarmBackend, None))
    routes = (*(Route("GET", path, _answer) for path in ANSWERS), Route("GET", "/echo/{name:.+}/x", _echo))
    async with TestClient(TestServer(build_app(context, routes))) as made:
        yield made


@pytest.mark.parametrize(
    ("path", "name", "old"),
    [
        ("/echo/a/x", "a", False),
        ("/v1.41/echo/a/x", "a", True),
        ("/v1.42/echo/a/b:1/x", "a/b:1", False),
        (f"/v{API_VERSION}/echo/v1.24/x", "v1.24", False),
        ("/v1.24/echo/a%2Fb%20c/x", "a/b c", True),
    ],
)
async def test_the_prefix_is_no_part_of_the_path(client: Any, path: str, name: str, old: bool) -> None:
    answer = await (await client.get(path)).json()
    assert (answer["name"], answer["old"]) == (name, old)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1.40/nowhere", 404),
        ("GET", "/v1.40/", 404),
        ("GET", "/v1.40", 404),
        ("GET", "/v1.40/v1.40/info", 404),
        ("GET", "/vx/info", 404),
        ("DELETE", "/v1.40/info", 405),
        ("GET", "/v1.23/info", 400),
        ("GET", "/v9.99/info", 400),
    ],
)
async def test_what_is_not_served_below_a_version(client: Any, method: str, path: str, status: int) -> None:
    answer = await client.request(method, path)
    assert answer.status == status
    assert set(await answer.json()) == {"message"}


async def shown(client: Any, path: str, version: str) -> Any:
    answer = await client.get(f"/v{version}{path}" if version else path)
    assert answer.content_type == "application/json"
    return await answer.json()


async def test_images_had_a_virtual_size(client: Any) -> None:
    for version, virtual in (("1.43", 5), ("1.44", None), ("", None)):
        assert (await shown(client, "/images/json", version))[0].get("VirtualSize") == virtual
        assert (await shown(client, "/images/a/b/json", version)).get("VirtualSize") == virtual
        assert (await shown(client, "/system/df", version))["Images"][0].get("VirtualSize") == virtual
    assert "ContainerConfig" in await shown(client, "/images/a/json", "1.44")
    assert "ContainerConfig" not in await shown(client, "/images/a/json", "1.45")


async def test_the_size_of_build_records_had_a_sum(client: Any) -> None:
    old = await shown(client, "/system/df", "1.41")
    assert (old["BuilderSize"], [record["Parent"] for record in old["BuildCache"]]) == (3, ["p", ""])
    assert "BuilderSize" not in await shown(client, "/system/df", "1.42")


async def test_names_of_a_container_were_aliases(client: Any) -> None:
    def network(answer: Any) -> Any:
        return answer["NetworkSettings"]["Networks"]["n"]

    oldest = network(await shown(client, "/containers/x/json", "1.43"))
    assert oldest == {"Aliases": ["a", "0123456789ab"]}
    assert network(await shown(client, "/containers/x/json", "1.44"))["Aliases"] == ["a", "0123456789ab"]
    newest = network(await shown(client, "/containers/x/json", "1.45"))
    assert newest == {"Aliases": ["a"], "DNSNames": ["a", "0123456789ab"]}


async def test_info_of_the_oldest(client: Any) -> None:
    oldest = await shown(client, "/info", "1.24")
    assert (oldest["SecurityOptions"], oldest["ExecutionDriver"]) == (["seccomp"], "<not supported>")
    assert oldest["RuncCommit"]["Expected"] == oldest["RuncCommit"]["ID"]
    assert oldest["BridgeNfIptables"] is False
    assert await shown(client, "/info", API_VERSION) == ANSWERS["/info"]


def test_defaults_that_were_others() -> None:
    def modes(version: str, host: HostConfig | None = None) -> tuple[str, str]:
        body = ContainerCreate(image="x", host_config=host)
        meant_by_older(body, version)
        assert body.host_config is not None
        return body.host_config.ipc_mode, body.host_config.cgroupns_mode

    assert [modes(version) for version in ("1.39", "1.40", "1.41")] == [
        ("shareable", "host"),
        ("", "host"),
        ("", ""),
    ]
    own = HostConfig(ipc_mode="private", cgroupns_mode="private")
    assert modes("1.24", own) == ("private", "private")


def test_only_routes_that_exist_are_adapted() -> None:
    assert {(route.method, route.path) for route in ROUTES} >= ADAPTED_ROUTES
