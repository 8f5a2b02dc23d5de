"""The route table against the operations of the Docker Engine API 1.56 (tests/data/docker_operations.txt)."""

from __future__ import annotations

import re
from pathlib import Path

from node.api.routes import OWN_ROUTES, ROUTES

OPERATIONS = Path(__file__).parent / "data" / "docker_operations.txt"

# What is not served yet. An operation that is built leaves this list; nothing else may.
MISSING = {
    "GET /images/{name}/attestations",
}  # fmt: skip


def served() -> set[str]:
    """Paths as the specification writes them: without the patterns of aiohttp."""
    return {route.method + " " + re.sub(r":[^}]*", "", route.path) for route in ROUTES}


def test_every_operation_is_served_or_listed_as_missing() -> None:
    operations = set(OPERATIONS.read_text().splitlines())
    assert operations - served() == MISSING & operations


def test_nothing_is_listed_as_missing_that_is_served_or_unknown() -> None:
    operations = set(OPERATIONS.read_text().splitlines())
    assert MISSING & served() == set()
    assert MISSING - operations == set()


def test_nothing_is_served_that_docker_does_not_have() -> None:
    operations = set(OPERATIONS.read_text().splitlines())
    assert served() - operations == set()


def test_no_route_stands_twice() -> None:
    rows = [(route.method, route.path) for route in (*ROUTES, *OWN_ROUTES)]
    assert len(rows) == len(set(rows))


def test_what_docker_does_not_have_keeps_apart() -> None:
    assert all(route.path.startswith("/swarmctl/") for route in OWN_ROUTES)
