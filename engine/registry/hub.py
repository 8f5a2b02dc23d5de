"""Search in the hub's index: the one thing that only the hub has. Source: Docker Engine API, ImageSearch."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec

from engine.errors import EngineFailure, InvalidParameter
from engine.filter_values import truth
from engine.images.reference import DEFAULT_DOMAIN
from engine.registry.answers import FAILURES, refusal, unreachable
from engine.registry.endpoints import account_domain
from engine.registry.transport import ERROR_BODY_BYTES_MAX, client_session, proxy_for

INDEX_URL = "https://index.docker.io/v1/search"
LIMIT_DEFAULT, LIMIT_MAX = 25, 100
ANSWER_BYTES_MAX = 4 << 20
SEARCH_S = 30.0
_FILTERS = ("is-official", "is-automated", "stars")


class _Found(msgspec.Struct):
    name: str = ""
    description: str | None = ""
    is_official: bool = False
    star_count: int = 0


class _Answer(msgspec.Struct):
    results: list[_Found] = []


async def search_hub(term: str, limit: int, filters: Mapping[str, list[str]]) -> list[dict[str, Any]]:
    """EngineFailure says that the hub cannot be reached; InvalidParameter names the filter that is wrong."""
    wanted = _checked(filters)
    if not 0 <= limit <= LIMIT_MAX:
        raise InvalidParameter(f"limit {limit} is outside the range of [1, {LIMIT_MAX}]")
    domain, slash, rest = term.partition("/")
    if slash and ("." in domain or ":" in domain or domain == "localhost"):
        if account_domain(domain) != DEFAULT_DOMAIN:
            raise InvalidParameter(
                f"only the hub can be searched, not {domain}: look at https://{domain}/v2/_catalog instead"
            )
        term = rest
    url = f"{INDEX_URL}?{urlencode({'q': term, 'n': limit or LIMIT_DEFAULT})}"
    rows = (await _asked(url)).results
    return [
        {
            "star_count": row.star_count,
            "is_official": row.is_official,
            "name": row.name.removeprefix("library/"),
            "is_automated": False,
            "description": row.description or "",
        }
        for row in rows
        if wanted(row)
    ]


def _checked(filters: Mapping[str, list[str]]) -> Any:
    for key in filters:
        if key not in _FILTERS:
            raise InvalidParameter(f"invalid filter '{key}'")
    official = truth("is-official", filters["is-official"]) if filters.get("is-official") else None
    automated = truth("is-automated", filters["is-automated"]) if filters.get("is-automated") else False
    stars = filters.get("stars") or ["0"]
    if not all(text.isascii() and text.isdecimal() for text in stars):
        raise InvalidParameter(f"invalid filter 'stars={stars}'")
    least = max(map(int, stars))
    return lambda row: not automated and row.star_count >= least and official in (None, row.is_official)


async def _asked(url: str) -> _Answer:
    tls = await asyncio.to_thread(ssl.create_default_context)
    try:
        async with asyncio.timeout(SEARCH_S), client_session() as session:
            async with session.get(url, ssl=tls, proxy=proxy_for(url)) as response:
                body = await response.content.read(
                    ERROR_BODY_BYTES_MAX if response.status >= 400 else ANSWER_BYTES_MAX
                )
    except FAILURES as error:
        raise EngineFailure(f"cannot search the hub: {unreachable('GET', url, error)}") from error
    if response.status >= 400:
        raise EngineFailure(f"cannot search the hub: {refusal(response.status, body)}")
    try:
        return msgspec.json.decode(body, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EngineFailure(f"cannot search the hub: its answer is not valid: {error}") from error
