"""Writes of the cluster's state over HTTP: sent again with their key, and what a failed one says of itself."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp.test_utils import TestClient, TestServer

from engine.errors import NotFound as NoSuchNetwork
from node.api.app import build_app
from node.api.backend import EngineBackend, SwarmBackend
from node.api.context import Context
from node.api.routes import ROUTES
from node.manager.controlapi import ControlApi
from node.manager.forward import ControlProxy
from raft import errors
from raft.objects.base import Kind
from raft.store import LocalProposer, Store

KEY = "Idempotency-Key"


class Swarm:
    """One manager, all of it but the consensus."""

    def __init__(self) -> None:
        self.store = Store()
        self.proposer = LocalProposer(self.store)
        leadership = cast(Any, self)
        self.is_leader, self.leader_id = True, "m1"
        api = ControlApi(self.store, leadership)
        self.control = ControlProxy("m1", api, leadership, cast(Any, None))

    def members(self) -> dict[str, str]:
        return {"m1": "10.9.0.1:2377"}

    async def read_barrier(self) -> None:
        await self.proposer.read_barrier()

    def is_manager(self) -> bool:
        return True

    def local_state(self) -> str:
        return "active"


class Networks:
    async def inspect(self, ref: str) -> dict[str, Any]:
        raise NoSuchNetwork(f"network {ref} not found")


class Engine:
    networks = Networks()


@pytest.fixture
def swarm() -> Swarm:
    return Swarm()


@pytest.fixture
async def http(swarm: Swarm) -> AsyncIterator[TestClient[Any, Any]]:
    context = Context(engine=cast(EngineBackend, Engine()), swarm=cast(SwarmBackend, swarm))
    async with TestClient(TestServer(build_app(context, ROUTES))) as client:
        yield client


async def new_key(http: TestClient[Any, Any], text: str) -> dict[str, str]:
    index = (await http.get("/_ping")).headers["Swarmctl-Index"]
    return {KEY: f"{index}-{hashlib.sha256(text.encode()).hexdigest()[:20]}"}


SECRET = {"Name": "key", "Data": "eA=="}
NETWORK = {"Name": "net", "Driver": "overlay"}
SERVICE = {"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "hello"}}}


@pytest.mark.parametrize(
    ("noun", "body"), [("secrets", SECRET), ("networks", NETWORK), ("services", SERVICE), ("configs", SECRET)]
)
async def test_calls_can_be_sent_again(http: TestClient[Any, Any], noun: str, body: dict[str, Any]) -> None:
    creation, removal = await new_key(http, "create"), await new_key(http, "remove")
    answers = [
        await http.post(f"/{prefix}{noun}/create", json=body, headers=creation) for prefix in ("", "v1.41/")
    ]
    assert [answer.status for answer in answers] == [201, 201]
    assert await answers[0].json() == await answers[1].json()
    assert (await http.post(f"/{noun}/create", json=body)).status == 409
    path = f"/{noun}/{body['Name']}"
    statuses = [(await http.delete(path, headers=removal)).status for _ in range(2)]
    assert statuses[0] == statuses[1] < 300
    assert (await http.delete(path)).status == 404


async def test_update_can_be_sent_again(http: TestClient[Any, Any], swarm: Swarm) -> None:
    await http.post("/services/create", json=SERVICE)
    version = (await (await http.get("/services/web")).json())["Version"]["Index"]
    key = await new_key(http, "update")
    body = {**SERVICE, "Labels": {"n": "1"}}
    for _ in range(2):
        answer = await http.post(f"/services/web/update?version={version}", json=body, headers=key)
        assert answer.status == 200
    late = await http.post(f"/services/web/update?version={version}", json=body)
    assert (late.status, late.headers["Swarmctl-Outcome"]) == (500, "none")


async def test_key_stands_for_one_call(http: TestClient[Any, Any], swarm: Swarm) -> None:
    key = await new_key(http, "create")
    await http.post("/secrets/create", json=SECRET, headers=key)
    other = await http.post("/secrets/create", json={**SECRET, "Name": "other"}, headers=key)
    assert other.status == 400
    assert "was used for another call" in (await other.json())["message"]
    assert swarm.store.view().by_name(Kind.SECRET, "other") is None


@pytest.mark.parametrize(
    ("method", "path", "key", "text"),
    [
        ("POST", "/secrets/create", "mine", "it must be INDEX-RANDOM"),
        ("POST", "/containers/create", "1-0123456789abcdef", "which this one does not: leave it out"),
        ("POST", "/networks/create", "1-0123456789abcdef", "which this one does not: leave it out"),
        ("GET", "/services", "1-0123456789abcdef", "which this one does not: leave it out"),
    ],
)
async def test_key_that_promises_nothing_is_refused(
    http: TestClient[Any, Any], method: str, path: str, key: str, text: str
) -> None:
    answer = await http.request(method, path, json={"Name": "x"}, headers={KEY: key})
    assert answer.status == 400
    assert text in (await answer.json())["message"]


@pytest.mark.parametrize(
    ("error", "status", "outcome"),
    [
        (errors.MaybeCommitted("may have been written: x", "7-abc"), 503, "unknown"),
        (errors.Unavailable("nothing was written: x"), 503, "none"),
        (errors.AlreadyExists("x"), 409, "none"),
    ],
)
async def test_answer_says_whether_it_may_have_been_written(
    http: TestClient[Any, Any],
    swarm: Swarm,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: int,
    outcome: str,
) -> None:
    async def fail(spec: object) -> None:
        raise error

    monkeypatch.setattr(swarm, "control", SimpleNamespace(create_secret=fail))
    answer = await http.post("/secrets/create", json=SECRET)
    assert (answer.status, answer.headers["Swarmctl-Outcome"]) == (status, outcome)
    assert (await answer.json())["message"] == str(error)
    assert answer.headers.get(KEY) == ("7-abc" if outcome == "unknown" else None)
