"""/build, /build/prune, /commit, and /session, which only BuildKit has: it is told the way to the classic builder."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator
from typing import TypeVar

import msgspec
from aiohttp import web

from engine.build_config import CLASSIC_ONLY, BuildOptions, CommitOptions
from engine.config import ContainerConfig, Ulimit
from engine.errors import InvalidParameter, NotImplementedHere
from node.api.checks import ulimit_problems
from node.api.context import Context, Route
from node.api.query import closing, filters, flag, json_response, number, optional_body, stream_json

CHUNK_BYTES = 1 << 20
_T = TypeVar("_T")


async def build(context: Context, request: web.Request) -> web.StreamResponse:
    """The context is read to its end before the first message goes out."""
    messages = context.engine.builds.build(build_options(request), _context(request))
    async with closing(messages):
        try:
            return await stream_json(request, messages)
        except ConnectionError:  # it has heard of an error, or that the image is there, and hung up
            return web.Response()


async def _context(request: web.Request) -> AsyncIterator[bytes]:
    async for chunk in request.content.iter_chunked(CHUNK_BYTES):
        yield chunk


def build_options(request: web.Request) -> BuildOptions:
    query = request.query
    ulimits = _json(request, "ulimits", list[Ulimit]) or []
    for limit in ulimits:
        for problem in ulimit_problems(limit):
            raise InvalidParameter(problem)
    return BuildOptions(
        dockerfile=query.get("dockerfile", ""),
        tags=[tag for tag in query.getall("t", []) if tag],
        remote=query.get("remote", ""),
        quiet=flag(request, "q"),
        no_cache=flag(request, "nocache"),
        cache_from=_json(request, "cachefrom", list[str]) or [],
        pull=flag(request, "pull"),
        rm=flag(request, "rm", True) if query.get("rm") else True,
        force_rm=flag(request, "forcerm"),
        build_args=_json(request, "buildargs", dict[str, str | None]) or {},
        labels=_json(request, "labels", dict[str, str]) or {},
        target=query.get("target", ""),
        platform=query.get("platform", ""),
        network_mode=query.get("networkmode", ""),
        extra_hosts=[entry for entry in query.getall("extrahosts", []) if entry],
        memory=number(request, "memory", 0),
        memory_swap=number(request, "memswap", 0),
        cpu_shares=number(request, "cpushares", 0),
        cpu_period=number(request, "cpuperiod", 0),
        cpu_quota=number(request, "cpuquota", 0),
        cpuset_cpus=query.get("cpusetcpus", ""),
        cpuset_mems=query.get("cpusetmems", ""),
        shm_size=number(request, "shmsize", 0),
        ulimits=ulimits,
        cgroup_parent=query.get("cgroupparent", ""),
        squash=flag(request, "squash"),
        security_options=_json(request, "securityopt", list[str]) or [],
        isolation=query.get("isolation", ""),
        outputs=query.get("outputs", ""),
        version=query.get("version", ""),
        credentials=_credentials(request.headers.get("X-Registry-Config", "")),
    )


async def prune(context: Context, request: web.Request) -> web.StreamResponse:
    for name in ("keep-storage", "reserved-space", "max-used-space", "min-free-space"):
        number(request, name, 0)
    return json_response(await context.engine.builds.prune(dict(filters(request))))


async def commit(context: Context, request: web.Request) -> web.StreamResponse:
    query = request.query
    if not query.get("container"):
        raise InvalidParameter("name the container to commit (?container=)")
    options = CommitOptions(
        repo=query.get("repo", ""),
        tag=query.get("tag", ""),
        comment=query.get("comment", ""),
        author=query.get("author", ""),
        pause=flag(request, "pause", True),
        changes=query.getall("changes", []),
        config=await optional_body(request, ContainerConfig),
    )
    return json_response({"Id": await context.engine.commits.commit(query["container"], options)}, 201)


async def session(_context: Context, _request: web.Request) -> web.StreamResponse:
    raise NotImplementedHere(CLASSIC_ONLY)


def _json(request: web.Request, name: str, kind: type[_T]) -> _T | None:
    """A query parameter that is JSON; None when it is left out."""
    text = request.query.get(name, "")
    if not text:
        return None
    try:
        return msgspec.json.decode(text, type=kind | None)
    except msgspec.DecodeError as error:
        raise InvalidParameter(f"error reading {name}: {error}") from error


def _credentials(header: str) -> dict[str, dict[str, str]]:
    """X-Registry-Config: registry -> its AuthConfig, as base64 of JSON."""
    if not header:
        return {}
    try:
        decoded = base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))
        found = msgspec.json.decode(decoded, type=dict[str, dict[str, str]] | None)
    except (msgspec.DecodeError, binascii.Error, UnicodeDecodeError) as error:
        raise InvalidParameter(f"invalid X-Registry-Config header: {error}") from error
    return found or {}


ROUTES = [
    Route("POST", "/build", build, streams=True),
    Route("POST", "/build/prune", prune),
    Route("POST", "/commit", commit),
    Route("POST", "/session", session),
]
