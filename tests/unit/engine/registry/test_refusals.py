"""Challenges and refusals, as registries and token servers word them."""

from __future__ import annotations

import json

import pytest

from engine.registry.answers import Challenge, challenges, refusal


def test_challenges_of_one_and_of_several_headers() -> None:
    bearer = (
        'Bearer realm="https://auth.example/token?x=1,2",service="reg\\"istry",scope="repository:a:pull,push"'
    )
    assert challenges([bearer, 'Basic realm="here"']) == [
        Challenge(
            "bearer",
            {
                "realm": "https://auth.example/token?x=1,2",
                "service": 'reg"istry',
                "scope": "repository:a:pull,push",
            },
        ),
        Challenge("basic", {"realm": "here"}),
    ]
    assert challenges(["Basic"]) == [Challenge("basic", {})]
    assert challenges(["BASIC realm=x, Bearer realm=y"]) == [
        Challenge("basic", {"realm": "x"}),
        Challenge("bearer", {"realm": "y"}),
    ]
    assert challenges([]) == []


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (404, {"errors": [{"code": "NAME_UNKNOWN", "message": "no such"}]}, "name unknown: no such"),
        (400, {"errors": [{"code": "X", "detail": "why"}]}, "x: why"),
        (401, {"details": "incorrect username or password"}, "unauthorized: incorrect username or password"),
        (401, "", "unauthorized: authentication required"),
        (403, "", "denied: requested access to the resource is denied"),
        (429, "", "toomanyrequests: too many requests"),
        (500, "<html>", "unknown: received unexpected HTTP status 500: <html>"),
    ],
)
def test_refusals(status: int, body: object, words: str) -> None:
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    assert str(refusal(status, data)) == words


def test_a_scope_that_is_too_small_is_a_denial() -> None:
    """As the hub answers for what does not exist."""
    asked = challenges(['Bearer realm="x",error="insufficient_scope"'])
    refused = refusal(401, b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}', asked)
    assert (refused.code, str(refused)) == ("DENIED", "denied: requested access to the resource is denied")


def test_retry_after_is_taken_in_seconds_only() -> None:
    assert refusal(429, b"", (), "12").retry_after_s == 12
    assert refusal(429, b"", (), "Wed, 21 Oct 2026 07:28:00 GMT").retry_after_s is None
