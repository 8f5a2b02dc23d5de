"""The routes of /swarmctl/cluster: bodies of a line and a file, options, and errors with their status."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from node.api.app import build_app
from node.api.backend import EngineBackend, SwarmBackend
from node.api.context import Context
from node.api.query import BODY_BYTES_MAX
from node.api.routes import OWN_ROUTES
from raft.errors import InvalidArgument, Unavailable
from raft.objects.node import Availability

Client = TestClient[web.Request, web.Application]


class FakeCluster:
    """Records its calls; `passphrase` is the right one."""

    passphrase = "right"

    def __init__(self) -> None:
        self.cluster = self
        self.calls: list[tuple[object, ...]] = []

    async def backup(self, passphrase: str) -> list[bytes]:
        if passphrase != self.passphrase:
            raise InvalidArgument("a backup needs a passphrase")
        return [b"head", b"x" * 100_000]

    async def inspect_backup(self, data: bytes, passphrase: str) -> dict[str, Any]:
        self.calls.append(("inspect", len(data), passphrase))
        if passphrase != self.passphrase:
            raise InvalidArgument("wrong passphrase for this backup")
        return {"Index": 7}

    async def restore(self, data: bytes, passphrase: str, **options: object) -> dict[str, Any]:
        self.calls.append((data, passphrase, options))
        return {"NodeID": "n1"}

    async def check(self) -> dict[str, Any]:
        raise Unavailable("This node is not a swarm manager.")


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
async def client(cluster: FakeCluster) -> AsyncIterator[Client]:
    context = Context(engine=cast(EngineBackend, None), swarm=cast(SwarmBackend, cluster))
    async with TestClient(TestServer(build_app(context, OWN_ROUTES))) as made:
        yield made


def line_and_file(options: dict[str, object], file: bytes) -> bytes:
    return json.dumps(options).encode() + b"\n" + file


async def test_a_backup_is_bytes_of_known_length(client: Client) -> None:
    answer = await client.post("/swarmctl/cluster/backup", json={"Passphrase": "right"})
    assert answer.status == 200
    assert answer.headers["Content-Length"] == "100004"
    assert await answer.read() == b"head" + b"x" * 100_000
    refused = await client.post("/v1.51/swarmctl/cluster/backup", json={})
    assert (refused.status, (await refused.json())["message"]) == (400, "a backup needs a passphrase")


async def test_a_file_may_be_larger_than_other_bodies(client: Client, cluster: FakeCluster) -> None:
    file = b"\n{}\n" * (BODY_BYTES_MAX // 2)
    answer = await client.post(
        "/swarmctl/cluster/inspect-backup", data=io.BytesIO(line_and_file({"Passphrase": "right"}, file))
    )
    assert (answer.status, await answer.json()) == (200, {"Index": 7})
    assert cluster.calls == [("inspect", len(file), "right")]


async def test_options_of_a_restore(client: Client, cluster: FakeCluster) -> None:
    options = {
        "Passphrase": "right",
        "AdvertiseAddr": "10.0.0.1",
        "ListenAddr": "0.0.0.0:2378",
        "Availability": "drain",
        "DryRun": True,
    }
    answer = await client.post("/swarmctl/cluster/restore", data=line_and_file(options, b"file"))
    assert answer.status == 200
    await client.post("/swarmctl/cluster/restore", data=line_and_file({"Passphrase": "right"}, b"file"))
    asked = {
        "advertise": "10.0.0.1",
        "listen": "0.0.0.0:2378",
        "availability": Availability.DRAIN,
        "dry_run": True,
    }
    plain = {"advertise": "", "listen": "", "availability": None, "dry_run": False}
    assert cluster.calls == [(b"file", "right", asked), (b"file", "right", plain)]


@pytest.mark.parametrize(
    ("verb", "body", "status", "message"),
    [
        ("inspect-backup", b"no line", 400, "one line of JSON"),
        ("inspect-backup", b"{}\nfile", 400, "wrong passphrase"),
        ("inspect-backup", b'{"Passphrase": 3}\nfile', 400, "Passphrase"),
        ("restore", b"not json\nfile", 400, "invalid JSON"),
        ("restore", b'{"Availability": "gone"}\nfile', 400, "gone"),
        ("check", b"", 503, "not a swarm manager"),
    ],
)
async def test_refusals(client: Client, verb: str, body: bytes, status: int, message: str) -> None:
    answer = await client.post(f"/swarmctl/cluster/{verb}", data=body)
    assert answer.status == status
    assert message in (await answer.json())["message"]
