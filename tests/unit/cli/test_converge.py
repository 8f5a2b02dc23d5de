"""Waiting for a service goes on while the managers choose a leader, and ends with any other refusal."""

from __future__ import annotations

from typing import Any, cast

import pytest

from cli import converge
from cli.client import Client
from cli.errors import ApiError

SERVICE = {
    "ID": "s",
    "Spec": {"Name": "web", "Mode": {"Replicated": {"Replicas": 1}}, "UpdateConfig": {"Monitor": 0}},
}
TASK = {"Slot": 1, "NodeID": "n", "DesiredState": "running", "Status": {"State": "running"}}


class PlayedDaemon:
    """Answers what a swarm with one running task does, after the given refusals."""

    def __init__(self, *refusals: ApiError) -> None:
        self._refusals = list(refusals)

    def get(self, path: str, _query: Any = None) -> Any:
        if path != "/nodes" and self._refusals:
            raise self._refusals.pop(0)
        return {"/nodes": [], "/tasks": [TASK], "/services/s": SERVICE}[path]


def follow(*refusals: ApiError) -> None:
    converge.follow(cast(Client, PlayedDaemon(*refusals)), "s", quiet=True)


def test_no_leader_for_a_moment_is_waited_for() -> None:
    follow(ApiError(503, "the swarm does not have a leader"))


def test_no_leader_for_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converge, "_LEADERLESS_SECONDS_MAX", 0.0)
    with pytest.raises(ApiError, match="does not have a leader"):
        follow(*[ApiError(503, "the swarm does not have a leader")] * 9)


def test_another_refusal_ends_the_wait() -> None:
    with pytest.raises(ApiError, match="not found"):
        follow(ApiError(404, "service s not found"))
