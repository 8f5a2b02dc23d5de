"""/images: list, inspect, history, tag, remove, load, save, import."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from aiohttp import web

from engine.errors import InvalidParameter
from node.api.context import Context, Route
from node.api.query import closing, filters, flag, json_response, platform, prune_filters, stream_json

CHUNK_BYTES = 1 << 20


async def listing(context: Context, request: web.Request) -> web.StreamResponse:
    return json_response(await context.engine.images.summaries(filters(request)))


async def inspect(context: Context, request: web.Request) -> web.StreamResponse:
    return json_response(await context.engine.images.inspect(request.match_info["name"], platform(request)))


async def history(context: Context, request: web.Request) -> web.StreamResponse:
    return json_response(await context.engine.images.history(request.match_info["name"], platform(request)))


async def tag(context: Context, request: web.Request) -> web.StreamResponse:
    repo = request.query.get("repo", "")
    await context.engine.images.tag(request.match_info["name"], repo, request.query.get("tag", ""))
    return web.Response(status=201)


async def remove(context: Context, request: web.Request) -> web.StreamResponse:
    removed = await context.engine.images.remove(
        request.match_info["name"], force=flag(request, "force"), noprune=flag(request, "noprune")
    )
    return json_response(removed)


async def load(context: Context, request: web.Request) -> web.StreamResponse:
    messages = context.engine.images.load(
        _upload(request), quiet=flag(request, "quiet"), platform=platform(request)
    )
    return await stream_json(request, messages)


async def save_many(context: Context, request: web.Request) -> web.StreamResponse:
    refs = [ref for text in request.query.getall("names", []) for ref in text.split(",")]
    if not refs:
        raise InvalidParameter("name at least one image to save (?names=)")
    return await _send_archive(context, request, refs)


async def save(context: Context, request: web.Request) -> web.StreamResponse:
    return await _send_archive(context, request, [request.match_info["name"]])


async def create(context: Context, request: web.Request) -> web.StreamResponse:
    """Import (fromSrc=-) or pull (fromImage)."""
    query = request.query
    if query.get("fromSrc"):
        source = query["fromSrc"]
        archive = _upload(request) if source == "-" else context.engine.registry.remote_file(source)
        repo, tag_name = query.get("repo", ""), query.get("tag", "")
        if not tag_name and ":" in repo.rpartition("/")[2]:
            repo, _, tag_name = repo.rpartition(":")
        messages = context.engine.images.import_rootfs(
            archive,
            repo,
            tag_name,
            query.getall("changes", []),
            query.get("message", ""),
            platform(request),
        )
        return await stream_json(request, messages)
    name = query.get("fromImage", "")
    if not name:
        raise InvalidParameter("name an image (fromImage=) or an archive (fromSrc=-)")
    version = query.get("tag", "")
    repository, at, _ = name.partition("@")
    if version and not at:
        if ":" in repository.rpartition("/")[2]:
            repository = repository.rpartition(":")[0]
        name = f"{repository}@{version}" if version.startswith("sha256:") else f"{repository}:{version}"
    tagged = "@" in name or ":" in name.rpartition("/")[2]
    messages = context.engine.images.pull(
        name, request.headers.get("X-Registry-Auth", ""), platform=platform(request), all_tags=not tagged
    )
    return await stream_json(request, messages)


async def prune(context: Context, request: web.Request) -> web.StreamResponse:
    wanted = prune_filters(request, ("dangling", "label", "label!", "until"), time.time())
    return json_response(await context.engine.images.prune(wanted))


async def _upload(request: web.Request) -> AsyncIterator[bytes]:
    async for chunk in request.content.iter_chunked(CHUNK_BYTES):
        yield chunk


async def _send_archive(context: Context, request: web.Request, refs: list[str]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-tar"})
    async with closing(context.engine.images.save(refs, platform(request))) as chunks:
        async for chunk in chunks:
            if not response.prepared:
                await response.prepare(request)
            await response.write(chunk)
    await response.write_eof()
    return response


ROUTES = [
    Route("GET", "/images/json", listing),
    Route("POST", "/images/create", create, streams=True),
    Route("POST", "/images/load", load),
    Route("POST", "/images/prune", prune),
    Route("GET", "/images/get", save_many, streams=True),
    Route("GET", "/images/{name:.+}/get", save, streams=True),
    Route("GET", "/images/{name:.+}/json", inspect),
    Route("GET", "/images/{name:.+}/history", history),
    Route("POST", "/images/{name:.+}/tag", tag),
    Route("DELETE", "/images/{name:.+}", remove),
]
