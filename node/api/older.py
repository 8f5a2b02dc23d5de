"""Requests and answers of older versions of the API. Pure; the only place that knows what changed.

Handlers take and make the newest shape. A row of `_CHANGES` says what an answer had before the version it names: clients
that speak an older one get it put back (Docker Engine API version history).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from aiohttp import web

from engine.config import ContainerCreate, HostConfig
from node.api.context import Route
from node.api.versions import numbers

_JSON = "application/json"
_ID_SHORT = 12


class _Change(NamedTuple):
    method: str
    path: str
    before: tuple[int, int]
    put_back: Callable[[Any], None]


def adapted(route: Route, version: str, answer: web.StreamResponse) -> web.StreamResponse:
    """The answer as a client of `version` knows it; the same object when nothing differs."""
    changes = _of_route.get((route.method, route.path))
    if changes is None:
        return answer
    asked = numbers(version)
    wanted = [change for change in changes if asked < change.before]
    is_json = isinstance(answer, web.Response) and answer.status == 200 and answer.content_type == _JSON
    if not wanted or not is_json:
        return answer
    assert isinstance(answer, web.Response)
    body = msgspec.json.decode(answer.body if isinstance(answer.body, bytes) else b"null")
    for change in wanted:
        change.put_back(body)
    answer.body = msgspec.json.encode(body)
    answer.content_type = _JSON
    return answer


def meant_by_older(body: ContainerCreate, version: str) -> None:
    """What a container gets where a client of `version` says nothing: defaults changed."""
    asked = numbers(version)
    host = body.host_config = body.host_config or HostConfig()
    if asked < (1, 40):
        host.ipc_mode = host.ipc_mode or "shareable"
    if asked < (1, 41):
        host.cgroupns_mode = host.cgroupns_mode or "host"


def _virtual_size(image: dict[str, Any]) -> None:
    image["VirtualSize"] = image["Size"]


def _virtual_sizes(images: list[dict[str, Any]]) -> None:
    for image in images:
        _virtual_size(image)


def _virtual_sizes_of_usage(usage: dict[str, Any]) -> None:
    _virtual_sizes(usage.get("Images") or [])


def _builder_size(usage: dict[str, Any]) -> None:
    """And one parent of a build record where there are several now."""
    records = usage.get("BuildCache") or []
    usage["BuilderSize"] = sum(record["Size"] for record in records if not record["Shared"])
    for record in records:
        record["Parent"] = (record.get("Parents") or [""])[0]


def _image_of_a_container(image: dict[str, Any]) -> None:
    """Of the classic builder's last container, which is long gone."""
    image |= {"Container": "", "ContainerConfig": {}}


def _short_id_among_aliases(container: dict[str, Any]) -> None:
    for name, endpoint in container["NetworkSettings"]["Networks"].items():
        short = container["Id"][:_ID_SHORT]
        aliases = endpoint.get("Aliases") or []
        if name not in ("bridge", "host", "none") and short not in aliases:
            endpoint["Aliases"] = [*aliases, short]


def _no_dns_names(container: dict[str, Any]) -> None:
    for endpoint in container["NetworkSettings"]["Networks"].values():
        endpoint.pop("DNSNames", None)


def _bridge_filters(info: dict[str, Any]) -> None:
    info |= {"BridgeNfIptables": False, "BridgeNfIp6tables": False}


def _expected_commits(info: dict[str, Any]) -> None:
    for name in ("ContainerdCommit", "RuncCommit", "InitCommit"):
        commit = info.setdefault(name, {"ID": ""})
        commit["Expected"] = commit["ID"]


def _kernel_memory(info: dict[str, Any]) -> None:
    info |= {"KernelMemory": False, "KernelMemoryTCP": False}


def _plain_security_options(info: dict[str, Any]) -> None:
    """`name=seccomp,profile=builtin` was `seccomp`."""
    options = info.get("SecurityOptions") or []
    info["SecurityOptions"] = [option.partition(",")[0].removeprefix("name=") for option in options]
    info["ExecutionDriver"] = "<not supported>"


# The oldest last: each puts back what the next newer one left.
_CHANGES = (
    _Change("GET", "/info", (1, 50), _bridge_filters),
    _Change("GET", "/info", (1, 46), _expected_commits),
    _Change("GET", "/info", (1, 42), _kernel_memory),
    _Change("GET", "/info", (1, 25), _plain_security_options),
    _Change("GET", "/images/json", (1, 44), _virtual_sizes),
    _Change("GET", "/images/{name:.+}/json", (1, 45), _image_of_a_container),
    _Change("GET", "/images/{name:.+}/json", (1, 44), _virtual_size),
    _Change("GET", "/system/df", (1, 44), _virtual_sizes_of_usage),
    _Change("GET", "/system/df", (1, 42), _builder_size),
    _Change("GET", "/containers/{id}/json", (1, 45), _short_id_among_aliases),
    _Change("GET", "/containers/{id}/json", (1, 44), _no_dns_names),
)

_of_route: dict[tuple[str, str], list[_Change]] = {}
for _change in _CHANGES:
    _of_route.setdefault((_change.method, _change.path), []).append(_change)
ADAPTED_ROUTES = frozenset(_of_route)
