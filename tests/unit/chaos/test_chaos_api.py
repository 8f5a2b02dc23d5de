"""What an answer says of a write's effect; in doubt it is unknown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chaos.api import Api, judged
from chaos.history import Outcome


@pytest.mark.parametrize(
    ("status", "header", "message", "outcome"),
    [
        (200, "", "", Outcome.OK),
        (201, "", "", Outcome.OK),
        (400, "none", "name is wrong", Outcome.FAIL),
        (404, "none", "config x not found", Outcome.REFUSED),
        (409, "none", "name conflicts with an existing object", Outcome.REFUSED),
        (500, "none", "update out of sequence", Outcome.REFUSED),
        (500, "", "internal error: KeyError('x')", Outcome.UNKNOWN),
        (503, "none", "The swarm does not have a leader.", Outcome.FAIL),
        (503, "unknown", "no majority confirmed the write within 10 s", Outcome.UNKNOWN),
    ],
)
def test_outcomes(status: int, header: str, message: str, outcome: Outcome) -> None:
    assert judged(status, header, json.dumps({"message": message}).encode()).outcome is outcome


def test_an_answer_that_is_cut_off_is_none() -> None:
    assert judged(200, "", b'{"ID": "x').outcome is Outcome.UNKNOWN


async def test_a_socket_that_nobody_serves_was_not_reached(tmp_path: Path) -> None:
    api = Api(tmp_path / "none.sock", 1.0)
    try:
        answer = await api.call("POST", "/configs/create", {})
    finally:
        await api.close()
    assert (answer.status, answer.outcome) == (0, Outcome.FAIL)
