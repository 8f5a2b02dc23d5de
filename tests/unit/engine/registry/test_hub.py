"""Search: filters, refusals, and a hub that cannot be reached; and the proxy that leads there."""

from __future__ import annotations

import pytest

from engine.errors import EngineFailure, InvalidParameter
from engine.registry import hub
from engine.registry.transport import proxy_for
from tests.fake_registry import FakeRegistry, says

FOUND = {
    "results": [
        {"name": "library/hello", "description": "d", "is_official": True, "star_count": 9},
        {"name": "me/hello", "description": None, "star_count": 2},
    ]
}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, ["hello", "me/hello"]),
        ({"stars": ["3"]}, ["hello"]),
        ({"is-official": ["false"]}, ["me/hello"]),
        ({"is-automated": ["true"]}, []),
    ],
)
async def test_search(
    monkeypatch: pytest.MonkeyPatch, filters: dict[str, list[str]], names: list[str]
) -> None:
    async with FakeRegistry() as registry:
        monkeypatch.setattr(hub, "INDEX_URL", f"http://{registry.host}/v1/search")
        registry.faults["/v1/search"] = [says(200, FOUND)]
        rows = await hub.search_hub("hello", 0, filters)
    assert [row["name"] for row in rows] == names


@pytest.mark.parametrize(
    ("term", "limit", "filters", "words"),
    [
        ("x", 101, {}, "outside the range"),
        ("x", 0, {"color": ["red"]}, "invalid filter 'color'"),
        ("x", 0, {"stars": ["many"]}, "invalid filter 'stars="),
        ("reg.example/x", 0, {}, "only the hub can be searched, not reg.example"),
    ],
)
async def test_what_cannot_be_searched(
    term: str, limit: int, filters: dict[str, list[str]], words: str
) -> None:
    with pytest.raises(InvalidParameter, match=words):
        await hub.search_hub(term, limit, filters)


async def test_a_hub_out_of_reach_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "INDEX_URL", "http://127.0.0.1:1/v1/search")
    with pytest.raises(EngineFailure, match=r"cannot search the hub: .* connection refused"):
        await hub.search_hub("x", 0, {})


def test_proxies_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proxy_for("https://reg.example/v2/") is None
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "inside.example,10.0.0.1")
    assert proxy_for("https://reg.example/v2/") == "http://proxy.example:3128"
    assert proxy_for("http://reg.example/v2/") is None
    assert proxy_for("https://a.inside.example/v2/") is None
    assert proxy_for("https://10.0.0.1:5000/v2/") is None
