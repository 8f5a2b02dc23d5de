"""A prune takes no more than what its filters say; one that is not known is an error, not everything."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import quote

import aiohttp
import pytest

from engine.container import Container
from engine.errors import InvalidParameter
from engine.filters import prune_filter
from node.api.app import build_app
from node.api.backend import EngineBackend, SwarmBackend
from node.api.context import Context
from node.api.routes import ROUTES
from node.api.server import serve

Filters = dict[str, list[str]]


class FakeArea:
    """Images or networks of the engine."""

    def __init__(self, name: str, asked: list[tuple[str, Filters]], answer: dict[str, Any]) -> None:
        self.name, self.asked, self.answer = name, asked, answer

    async def prune(self, filters: Filters) -> dict[str, Any]:
        self.asked.append((self.name, filters))
        return self.answer


class FakeBackend:
    """Engine and swarm; keeps the filters of each prune."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Filters]] = []
        self.control = self
        self.manager = False

    def is_manager(self) -> bool:
        return self.manager

    async def prune_containers(self, filters: Filters) -> dict[str, Any]:
        self.asked.append(("containers", filters))
        return {}

    @property
    def images(self) -> FakeArea:
        return FakeArea("images", self.asked, {})

    @property
    def networks(self) -> FakeArea:
        return FakeArea("networks", self.asked, {"NetworksDeleted": ["local"]})

    async def prune_networks(self, filters: Filters) -> Any:
        self.asked.append(("networks", filters))
        return ["of the cluster"]

    async def list_networks(self, _filters: Filters) -> list[dict[str, Any]]:
        return []


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
async def client(tmp_path: Path, backend: FakeBackend) -> AsyncIterator[aiohttp.ClientSession]:
    context = Context(engine=cast(EngineBackend, backend), swarm=cast(SwarmBackend, backend))
    runner = await serve(build_app(context, ROUTES), [tmp_path / "s"])
    async with aiohttp.ClientSession(
        "http://d", connector=aiohttp.UnixConnector(str(tmp_path / "s"))
    ) as session:
        yield session
    await runner.cleanup()


async def prune(client: aiohttp.ClientSession, what: str, filters: Filters) -> tuple[int, dict[str, Any]]:
    async with client.post(f"/{what}/prune?filters={quote(json.dumps(filters))}") as answer:
        return answer.status, await answer.json()


@pytest.mark.parametrize("what", ["containers", "images", "networks"])
async def test_until_is_a_point_in_time_for_the_engine(
    client: aiohttp.ClientSession, backend: FakeBackend, what: str
) -> None:
    asked = {"label": ["a=1"], "label!": ["b"], "until": ["1h30m"]}
    assert (await prune(client, what, asked))[0] == 200
    ((kind, filters),) = backend.asked
    (until,) = filters.pop("until")
    assert (kind, filters) == (what, {"label": ["a=1"], "label!": ["b"]})
    assert -10 < float(until) - (time.time() - 5400) < 2


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1700000000", 1.7e9), ("2023-11-14T22:13:20Z", 1.7e9), ("2023-11-14T23:13:20.5+01:00", 1.7e9 + 0.5)],
)
async def test_forms_of_until(
    client: aiohttp.ClientSession, backend: FakeBackend, text: str, seconds: float
) -> None:
    assert (await prune(client, "containers", {"until": [text]}))[0] == 200
    assert float(backend.asked[0][1]["until"][0]) == seconds


@pytest.mark.parametrize(
    ("what", "filters", "words"),
    [
        ("containers", {"status": ["exited"]}, "invalid filter 'status'"),
        ("containers", {"until": ["1h", "2h"]}, "more than one until filter"),
        ("containers", {"until": ["yesterday"]}, "invalid value for \"until\": 'yesterday' is no time"),
        ("images", {"reference": ["x"]}, "invalid filter 'reference'"),
        ("networks", {"name": ["x"]}, "invalid filter 'name'"),
        ("networks", {"until": ["1x"]}, "'1x'"),
    ],
)
async def test_wrong_filter_prunes_nothing(
    client: aiohttp.ClientSession, backend: FakeBackend, what: str, filters: Filters, words: str
) -> None:
    status, answer = await prune(client, what, filters)
    assert (status, backend.asked) == (400, [])
    assert words in answer["message"]


@pytest.mark.parametrize(("manager", "deleted"), [(False, ["local"]), (True, ["local", "of the cluster"])])
async def test_networks_of_the_cluster_are_the_managers_to_prune(
    client: aiohttp.ClientSession, backend: FakeBackend, manager: bool, deleted: list[str]
) -> None:
    backend.manager = manager
    assert await prune(client, "networks", {}) == (200, {"NetworksDeleted": deleted})


async def test_filter_of_prune_is_none_of_the_list(client: aiohttp.ClientSession) -> None:
    async with client.get(f"/networks?filters={quote(json.dumps({'until': ['x']}))}") as answer:
        assert (answer.status, (await answer.json())["message"]) == (400, "invalid filter 'until'")


@pytest.mark.parametrize(
    ("filters", "taken"),
    [
        ({}, True),
        ({"label": ["a"]}, True),
        ({"label": ["a=1", "b"]}, False),
        ({"label!": ["a=2"]}, True),
        ({"label!": ["a"]}, False),
        ({"label!": ["a", "b"]}, True),
        ({"until": ["100"]}, False),
        ({"until": ["100.5"]}, True),
    ],
)
def test_containers_that_a_prune_takes(filters: Filters, taken: bool) -> None:
    container = cast(Container, SimpleNamespace(labels={"a": "1"}, created_at=100.0))
    assert prune_filter(filters, 0.0)(container) is taken


def test_unknown_filter_of_a_container_prune_is_named() -> None:
    with pytest.raises(InvalidParameter, match="invalid filter 'name'"):
        prune_filter({"name": ["x"]}, 0.0)
