"""Versions of the API: which are served, how a request names one, and the router's side of the /v1.NN prefix.

A request without the prefix is of the newest version, as Docker has it. The prefix is taken off before the routes
are looked at, so that a versioned request costs one look into the router's index instead of a walk over all routes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn, cast

from aiohttp import web
from aiohttp.web_urldispatcher import UrlMappingMatchInfo
from yarl import URL

API_VERSION = "1.51"
API_VERSION_MIN = "1.24"
_NUMBERS = re.compile(r"^(\d+)\.(\d+)$")
_PREFIX = re.compile(r"/v([0-9]+\.[0-9]+)(/.*)", re.DOTALL)


def version_problem(version: str) -> str:
    """Docker's words for a version that is not served; "" when it is."""
    match = _NUMBERS.match(version)
    asked = (int(match[1]), int(match[2])) if match else (0, 0)
    if asked > numbers(API_VERSION):
        return f"client version {version} is too new. Maximum supported API version is {API_VERSION}"
    if asked < numbers(API_VERSION_MIN):
        return (
            f"client version {version} is too old. Minimum supported API version is {API_VERSION_MIN}, "
            "please upgrade your client to a newer version"
        )
    return ""


def numbers(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return int(major), int(minor)


def asked_version(request: web.Request) -> str:
    return request.match_info.get("version", API_VERSION)


def is_before(request: web.Request, version: str) -> bool:
    """Whether the client speaks an API older than `version`."""
    return numbers(asked_version(request)) < numbers(version)


class _Path(NamedTuple):
    path_safe: str


class _Lookup(NamedTuple):
    """What the router reads of a request. A clone of the request would cost three times the lookup."""

    method: str
    rel_url: _Path


class VersionPrefix(web.AbstractResource):
    """Stands for every /v1.NN/PATH: whatever the router answers for PATH, with `version` among its variables.

    Registered after the routes; its place in the router's index is "/", where every lookup ends.
    """

    def __init__(self, router: web.UrlDispatcher) -> None:
        super().__init__()
        self._router = router

    @property
    def canonical(self) -> str:
        return "/v{version}"

    async def resolve(self, request: web.Request) -> tuple[UrlMappingMatchInfo | None, set[str]]:
        match = _PREFIX.fullmatch(request.rel_url.path_safe)
        if match is None or _PREFIX.fullmatch(match[2]) is not None:
            return None, set()
        lookup = _Lookup(request.method, _Path(match[2]))
        found = await self._router.resolve(cast(web.Request, lookup))
        if found.http_exception is not None:
            allowed = getattr(found.http_exception, "allowed_methods", ())
            return None, set(allowed)
        found["version"] = match[1]
        return found, set()

    def raw_match(self, path: str) -> bool:
        return _PREFIX.fullmatch(path) is not None

    def url_for(self, **_kwargs: str) -> URL:
        raise NotImplementedError("no address is made from a version prefix")

    def add_prefix(self, _prefix: str) -> NoReturn:
        raise NotImplementedError("the application is not served below another one")

    def get_info(self) -> Any:
        return {"formatter": self.canonical}

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[Any]:
        return iter(())
