"""What calls of the API hand on to registries: names, platforms, and whose credentials a service gets."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from engine.errors import InvalidParameter
from node.api import distribution, images, query, services
from node.api.context import Context
from raft.objects.service import ContainerSpec, ServiceSpec, TaskSpec

AUTH = base64.urlsafe_b64encode(json.dumps({"username": "anna"}).encode()).decode()


class FakeImages:
    def __init__(self) -> None:
        self.called: list[tuple[Any, ...]] = []

    async def pull(self, ref: str, auth: str, **options: Any) -> AsyncIterator[dict[str, Any]]:
        self.called.append((ref, auth, options))
        raise InvalidParameter("seen")
        yield {}

    async def push(self, name: str, tag: str, auth: str, **options: Any) -> AsyncIterator[dict[str, Any]]:
        self.called.append((name, tag, auth, options))
        raise InvalidParameter("seen")
        yield {}


def request(path: str, headers: dict[str, str] | None = None, **match: str) -> web.Request:
    return make_mocked_request("POST", path, headers=headers or {}, match_info=match)


@pytest.mark.parametrize(
    ("wanted", "ref", "all_tags"),
    [
        ("fromImage=a&tag=1", "a:1", False),
        ("fromImage=a", "a", True),
        ("fromImage=a:2", "a:2", False),
        ("fromImage=a:2&tag=1", "a:1", False),
        ("fromImage=r:5000/a", "r:5000/a", True),
        ("fromImage=a&tag=sha256:1", "a@sha256:1", False),
        ("fromImage=a@sha256:1&tag=2", "a@sha256:1", False),
    ],
)
async def test_what_is_pulled(wanted: str, ref: str, all_tags: bool) -> None:
    fake = FakeImages()
    context = cast(Context, SimpleNamespace(engine=SimpleNamespace(images=fake)))
    path = f"/images/create?{wanted}&platform=linux/arm64"
    with pytest.raises(InvalidParameter, match="seen"):
        await images.create(context, request(path, {"X-Registry-Auth": AUTH}))
    assert fake.called == [(ref, AUTH, {"platform": "linux/arm64", "all_tags": all_tags})]


async def test_what_is_pushed() -> None:
    fake = FakeImages()
    context = cast(Context, SimpleNamespace(engine=SimpleNamespace(images=fake)))
    path = '/images/r/a/push?tag=1&platform={"os":"linux","architecture":"arm","variant":"v7"}'
    with pytest.raises(InvalidParameter, match="seen"):
        await distribution.push(context, request(path, {"X-Registry-Auth": AUTH}, name="r/a"))
    assert fake.called == [("r/a", "1", AUTH, {"platform": "linux/arm/v7"})]


def test_a_second_platform_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="multiple platform parameters not supported"):
        query.platform(request("/x?platform=linux/amd64&platform=linux/arm64"))


def spec_with(auth: str) -> ServiceSpec:
    return ServiceSpec(task=TaskSpec(container=ContainerSpec(image="a", registry_auth=auth)))


class FakeControl:
    def __init__(self, previous: ServiceSpec | None) -> None:
        self.service = SimpleNamespace(spec=spec_with("now"), previous_spec=previous)

    async def get_service(self, ref: str) -> Any:
        return self.service


@pytest.mark.parametrize(("source", "auth"), [("", "now"), ("spec", "now"), ("previous-spec", "before")])
async def test_an_update_without_credentials_keeps_those_of_the_service(source: str, auth: str) -> None:
    context = cast(Context, SimpleNamespace(swarm=SimpleNamespace(control=FakeControl(spec_with("before")))))
    asked = request(f"/services/web/update?registryAuthFrom={source}", id="web")
    assert await services._known_auth(context, asked) == auth


async def test_credentials_of_nowhere_are_refused() -> None:
    context = cast(Context, SimpleNamespace(swarm=SimpleNamespace(control=FakeControl(None))))
    for source, words in (
        ("elsewhere", "unsupported registryAuthFrom"),
        ("previous-spec", "does not have a previous spec"),
    ):
        with pytest.raises(InvalidParameter, match=words):
            asked = request(f"/services/web/update?registryAuthFrom={source}", id="web")
            await services._known_auth(context, asked)
    with pytest.raises(InvalidParameter, match="X-Registry-Auth"):
        services._with_auth(spec_with(""), "{")
    given = services._with_auth(spec_with(""), AUTH)
    assert given == spec_with(AUTH)
