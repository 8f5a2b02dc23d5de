"""What is promised of every answer, whatever was asked. Pure."""

from __future__ import annotations

import json
import re

from tests.fuzz.shapes import Operation
from tests.fuzz.wire import Answer

# What any operation may answer: not understood, not there, not with this method, not now, too much.
ALWAYS = frozenset((400, 404, 405, 409, 413))
# Refused by name where Docker has a feature that is not there (NotImplementedHere), or in another role or state.
ALSO = frozenset((403, 501, 503))
# The only failures of the engine itself that a request may bring about: their message names the cause.
ENGINE_FAILURES: tuple[tuple[str, str], ...] = (
    (
        "update out of sequence",
        "the object has changed since the version that is given; Docker answers 500 too",
    ),
    (r"(Get|Head|Post) .{1,4}https?://", "a registry cannot be reached: the test's namespace has no way out"),
)
# Their answers go on until one side ends them.
STREAMS = frozenset(
    (
        "GET /containers/{id}/logs", "GET /containers/{id}/stats", "GET /events", "GET /services/{id}/logs",
        "GET /tasks/{id}/logs", "POST /containers/{id}/attach", "POST /containers/{id}/wait", "POST /exec/{id}/start",
        "GET /containers/{id}/attach/ws", "POST /session",
    )
)  # fmt: skip


def problems(operation: Operation, answer: Answer, bound: float) -> list[str]:
    """Each broken promise in words; none for an answer that is as it should be."""
    if answer.late:
        return [f"no whole answer within {bound:.0f} s"]
    if answer.status == 0:
        return ["the connection ended without an answer"]
    if answer.status >= 500 and answer.status not in ALSO:
        if not is_engine_failure(answer):
            return [f"status {answer.status}: {answer.body[:300]!r}"]
    elif answer.status not in ALWAYS | ALSO | operation.answers.keys():
        return [f"status {answer.status}, which is documented nowhere: {answer.body[:200]!r}"]
    if answer.status >= 400 and operation.method != "HEAD":
        return refusal_problems(answer)
    return []


def is_engine_failure(answer: Answer) -> bool:
    text = answer.body.decode(errors="replace")
    return any(re.search(pattern, text) for pattern, _ in ENGINE_FAILURES)


def refusal_problems(answer: Answer) -> list[str]:
    """A refusal says why, as JSON."""
    try:
        message = answer.json()["message"]
    except (ValueError, KeyError, TypeError):
        return [f"status {answer.status} without a message: {answer.body[:200]!r}"]
    if not isinstance(message, str) or not message:
        return [f"status {answer.status} with the message {json.dumps(message)}"]
    if "Traceback" in message or "Error(" in message:
        return [f"status {answer.status} with a message for programmers: {message[:300]}"]
    return []
