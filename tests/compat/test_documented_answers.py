"""Every answer of a GET has the types that the specification documents, and the fields that it requires."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import HostDaemon
from tests.fuzz import wire
from tests.fuzz.drafts import PLACE
from tests.fuzz.shapes import OPERATIONS, Operation, Schema, mismatches, resolved
from tests.fuzz.world import BOUND_S, World

pytestmark = pytest.mark.root

QUERIES = {
    "/containers/json": ("?all=1&size=1", "?all=1"),
    "/containers/{id}/json": ("?size=1", ""),
    "/containers/{id}/stats": ("?stream=0&one-shot=1",),
    "/events": ("?since=1&until=0s",),
    "/images/json": ("?shared-size=1&manifests=1&all=1", ""),
    "/images/{name}/json": ("?manifests=1", ""),
    "/networks/{id}": ("?verbose=1", ""),
    "/services": ("?status=1", ""),
    "/system/df": ("?verbose=1", ""),
}
# Not JSON; or of what this daemon does not hold, or cannot reach.
OTHERS = {
    "/containers/{id}/logs", "/containers/{id}/export", "/containers/{id}/attach/ws", "/containers/{id}/archive",
    "/images/get", "/images/{name}/get", "/images/{name}/attestations", "/images/search", "/_ping",
    "/plugins/privileges", "/plugins/{name}/json", "/services/{id}/logs", "/tasks/{id}/logs",
    "/distribution/{name}/json",
}  # fmt: skip
# Docker itself answers otherwise than its specification.
DOCKERS = (".HostConfig.MemorySwappiness is null, not integer",)
ASKED = tuple(op for op in OPERATIONS if op.method == "GET" and op.path not in OTHERS)


@pytest.fixture(scope="module")
def objects(
    tmp_path_factory: pytest.TempPathFactory, hello_archive: Path
) -> Iterator[tuple[World, dict[str, list[str]]]]:
    """A daemon with one of each, and the names to ask for: by the first part of the path."""
    daemon = HostDaemon(tmp_path_factory.mktemp("documented"))
    try:
        daemon.start()
        world = World(daemon, hello_archive)
        world.ensure()
        world.ensure_swarm()
        rich = ("--memory=64m", "-p", "80", "-v", "fuzz-vol:/v", "--network=fuzz-net", "--health-cmd=true")
        daemon.ok(
            "run",
            "-d",
            "--name=rich",
            *rich,
            "--restart=on-failure:3",
            "--label=a=b",
            "hello",
            "sleep",
            "1000",
        )
        daemon.ok(
            "service", "create", "-d", "--name=global", "--mode=global", "--secret=fuzz-secret", "hello"
        )
        world.ok("POST", f"/exec/{world.names['EXEC']}/start", {"Detach": True})
        yield (
            world,
            {
                "containers": ["rich", "fuzz-run", "fuzz-idle"],
                "exec": [world.names["EXEC"]],
                "images": ["hello"],
                "networks": [row["Id"] for row in world.ok("GET", "/networks")],
                "volumes": ["fuzz-vol"],
                "nodes": ["host1"],
                "services": ["fuzz-service", "global"],
                "tasks": [row["ID"] for row in world.ok("GET", "/tasks")],
                "secrets": ["fuzz-secret"],
                "configs": ["fuzz-config"],
            },
        )
    finally:
        daemon.run("swarm", "leave", "--force")
        daemon.close()


@pytest.mark.parametrize("operation", ASKED, ids=str)
def test_an_answer_is_as_documented(
    operation: Operation, objects: tuple[World, dict[str, list[str]]]
) -> None:
    world, names = objects
    schema = operation.answers[200]
    assert schema is not None
    targets = [operation.path]
    if "{" in operation.path:
        targets = [PLACE.sub(name, operation.path) for name in names[operation.path.split("/")[1]]]
    found: list[str] = []
    for target in [target + query for target in targets for query in QUERIES.get(operation.path, ("",))]:
        if target.startswith("/containers/fuzz-idle/top"):
            continue
        data = wire.written("GET", target, [("Connection", "close")], None)
        answer = wire.send(world.socket, data, "GET", BOUND_S)
        assert (answer.status, answer.late) == (200, False), (
            f"{target}: {answer.status} {answer.body[:300]!r}"
        )
        problems = [problem for problem in compared(answer, schema) if not problem.endswith(DOCKERS)]
        found += [f"{target}: {problem}" for problem in problems]
    assert found == [], "\n".join(found)


def compared(answer: wire.Answer, schema: Schema) -> Iterator[str]:
    """A stream has one object on each line."""
    if resolved(schema).get("type") == "array" or not answer.body.count(b"\n") > 1:
        yield from mismatches(answer.json(), schema)
        return
    for line in answer.body.splitlines():
        yield from mismatches(json.loads(line), schema)
