"""The generator itself: repeatable, harmless to the machine, and a judge that can condemn."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fuzz import cuts, values
from tests.fuzz.drafts import Draft, Drafting
from tests.fuzz.judgement import problems
from tests.fuzz.shapes import OPERATIONS, mismatches, operation
from tests.fuzz.wire import Answer

FOLDER = "/tmp/folder-of-the-test"
KEYS_OF_PATHS = ("source", "device", "pathonhost", "mountpoint")


def drafts(seed: int, count: int) -> list[Draft]:
    random_ = random.Random(seed)
    drafting = Drafting(random_, FOLDER, {"EXEC": "e", "TASK": "t"})
    return [drafting.draft(random_.choice(OPERATIONS), random_.random()) for _ in range(count)]


def test_a_seed_says_everything() -> None:
    assert [draft.data for draft in drafts(7, 60)] == [draft.data for draft in drafts(7, 60)]
    assert [draft.data for draft in drafts(7, 60)] != [draft.data for draft in drafts(8, 60)]


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from leaves(entry, key.lower())
    elif isinstance(value, list):
        for entry in value:
            yield from leaves(entry, name)
    else:
        yield name, value


@pytest.mark.parametrize("seed", range(20))
def test_nothing_of_the_machine_is_asked_for(seed: int) -> None:
    random_ = random.Random(seed)
    drawn = [values.valid(op.body, random_) for op in OPERATIONS if op.body for _ in range(5)]
    for value in drawn:
        for _ in range(3):
            value = values.twisted(value, random_)
        for name, leaf in leaves(values.harmless(value, FOLDER)):
            assert not (isinstance(leaf, str) and leaf.lower() == "host")
            if name in KEYS_OF_PATHS and isinstance(leaf, str) and leaf.startswith("/"):
                assert leaf in (FOLDER, "/dev/null")
            assert name not in ("cgroupparent", "cgroup") or leaf in ("", None)


def test_what_would_reach_the_machine_is_taken_out() -> None:
    asked = {
        "PidMode": "host",
        "hostconfig": {"BINDS": ["/:/host", "vol:/v", f"{FOLDER}:/own"], "CgroupParent": "/x"},
        "Mounts": [{"Type": "bind", "Source": "/etc"}, {"source": "../x"}],
        "Devices": [{"PathOnHost": "/dev/sda"}],
        "DriverOpts": {"device": "/dev/sda1"},
    }
    assert values.harmless(asked, FOLDER) == {
        "PidMode": "none",
        "hostconfig": {"BINDS": ["vol:/v", f"{FOLDER}:/own"], "CgroupParent": ""},
        "Mounts": [{"Type": "bind", "Source": FOLDER}, {"source": FOLDER}],
        "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/fuzz"}],
        "DriverOpts": {"device": FOLDER},
    }


def test_hostile_marks_stand_as_they_are() -> None:
    assert values.encoded({"a": "@1e400@", "b": ["@nan@"]}) == b'{"a": 1e400, "b": [NaN]}'
    assert len(values.encoded(["@deep-list@"])) == 2 * values.NESTED + 2


def test_every_cut_is_bytes_that_no_client_sends_whole() -> None:
    assert len(cuts.CUTS) > 40
    random_ = random.Random(1)
    methods = {cuts.any_method(random_)[0] for _ in range(200)}
    assert {"PATCH", "TRACE", "CONNECT"} <= methods


def answer(status: int, body: Any, *, late: bool = False) -> Answer:
    headers = {"content-type": "application/json"}
    return Answer(status, headers, json.dumps(body).encode(), 0.1, late)


LISTING = operation("GET", "/containers/json")


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (answer(500, {"message": "internal error: KeyError('x')"}), "status 500"),
        (answer(418, {"message": "x"}), "documented nowhere"),
        (answer(404, "gone"), "without a message"),
        (answer(404, {"message": ""}), "with the message"),
        (answer(400, {"message": "KeyError('x')"}), "for programmers"),
        (answer(0, None), "without an answer"),
        (answer(200, [], late=True), "no whole answer"),
    ],
)
def test_a_broken_promise_is_found(given: Answer, word: str) -> None:
    (problem,) = problems(LISTING, given, 5.0)
    assert word in problem


def test_kept_promises_are_no_problem() -> None:
    for given in (
        answer(200, []),
        answer(400, {"message": "invalid filter"}),
        answer(404, {"message": "no"}),
    ):
        assert problems(LISTING, given, 5.0) == []


def test_an_answer_is_held_against_its_schema() -> None:
    schema = {
        "type": "object",
        "required": ["Id"],
        "properties": {
            "Id": {"type": "string"}, "N": {"type": "integer"}, "T": {"type": "string", "format": "date-time"},
            "L": {"type": "array", "items": {"type": "boolean"}}, "E": {"type": "string", "enum": ["a"]},
        },
        "values": {"type": "string"},
    }  # fmt: skip
    good = {"Id": "x", "N": 1, "T": "2026-01-02T03:04:05.123456789Z", "L": None, "E": "a", "more": "x"}
    assert list(mismatches(good, schema)) == []
    bad = {"N": True, "T": "yesterday", "L": [1], "E": "b", "more": 1}
    assert [problem.split()[0] for problem in mismatches(bad, schema)] == [
        "answer.Id", "answer.N", "answer.T", "answer.L[0]", "answer.E", "answer.more"
    ]  # fmt: skip
