"""Builds for the API: a Dockerfile and its context into an image, told as Docker's classic builder tells it.

Each build has a folder below `root` for its context and downloads, and a task of its own. Invariant: when the
caller stops reading, the build is cancelled and everything but finished steps (they are the cache) goes; what a
crash left is removed by `recover`.
"""

from __future__ import annotations

import asyncio
import base64
import collections
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from engine.build_config import BuildOptions
from engine.building.builder import SHORT_ID, Builder, CommandFailed, Emit, Message, Workshop
from engine.building.contexts import open_context
from engine.building.journal import Journal, leftovers
from engine.building.options import check_options
from engine.building.roots import Roots
from engine.building.running import CommandRunner
from engine.building.stages import parse_plan
from engine.errors import InvalidParameter
from engine.images.config import Image
from engine.images.reference import DEFAULT_DOMAIN, parse_reference
from engine.imaging import Imaging
from engine.storage.trees import remove_tree

logger = logging.getLogger(__name__)

MESSAGES_WAITING_MAX = 64
MESSAGES_KEPT_MAX = 1000
PRUNE_FILTERS = ("until", "id", "parent", "type", "description", "inuse", "shared", "private")
_HUB_KEYS = ("https://index.docker.io/v1/", "index.docker.io", DEFAULT_DOMAIN)


class Builds:
    def __init__(self, root: Path, imaging: Imaging, roots: Roots, runner: CommandRunner) -> None:
        self._root = root
        self._imaging = imaging
        self._roots = roots
        self._runner = runner
        root.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def recover(self) -> None:
        """After a crash: the containers and folders of builds that were under way."""
        for folder, containers in tuple(leftovers(self._root)):
            for name in containers:
                logger.info("container %s of a build that was cut off is removed", name)
                await self._runner.remove_left(name)
            await asyncio.to_thread(remove_tree, folder, ignore_errors=True)

    async def build(self, options: BuildOptions, body: AsyncIterator[bytes]) -> AsyncGenerator[Message, None]:
        """Docker's messages. An error before the first of them is raised; later it is the last message."""
        check_options(options)
        waiting: asyncio.Queue[Message] = asyncio.Queue(MESSAGES_WAITING_MAX)
        kept: collections.deque[Message] = collections.deque(maxlen=MESSAGES_KEPT_MAX)

        async def keep(message: Message) -> None:
            kept.append(message)

        building = asyncio.ensure_future(self._build(options, body, keep if options.quiet else waiting.put))
        try:
            is_told = False
            async with contextlib.aclosing(_until_done(waiting, building)) as messages:
                async for message in messages:
                    is_told = True
                    yield message
            error = building.exception()
            if error is not None and kept:
                for message in kept:
                    yield message
                is_told = True
            if error is not None:
                if not is_told or not isinstance(error, Exception):
                    raise error
                yield _error_message(error)
            elif options.quiet:
                yield {"stream": f"{building.result().id}\n"}
        finally:
            building.cancel()
            await asyncio.gather(building, return_exceptions=True)

    async def prune(self, filters: dict[str, list[str]]) -> dict[str, Any]:
        """The classic builder's cache is images, which `image prune` removes: here is nothing more to free."""
        for name in filters:
            if name not in PRUNE_FILTERS:
                raise InvalidParameter(f"invalid filter '{name}'")
        self._imaging.events.publish("builder", "prune", "", {"reclaimed": "0"})
        return {"CachesDeleted": [], "SpaceReclaimed": 0}

    async def _build(self, options: BuildOptions, body: AsyncIterator[bytes], emit: Emit) -> Image:
        journal = Journal(self._root)
        try:
            context = await open_context(journal.folder, options.remote, options.dockerfile, body)
            plan = parse_plan(context.dockerfile, target=options.target, labels=options.labels)

            def pull(name: str, platform: str) -> AsyncIterator[Message]:
                return self._imaging.pull(name, registry_auth(name, options.credentials), platform=platform)

            shop = Workshop(self._imaging.store, self._roots, self._runner, pull)
            image = await Builder(options, plan, context, journal, shop, emit).build()
            await emit({"aux": {"ID": image.id}})
            await emit({"stream": f"Successfully built {image.id[SHORT_ID]}\n"})
            for tag in options.tags:
                name = parse_reference(tag)
                await self._imaging.tag(image.id, name.familiar_name, name.tag)
                await emit({"stream": f"Successfully tagged {name.familiar}\n"})
            return image
        finally:
            await asyncio.shield(asyncio.to_thread(journal.close))


async def _until_done(
    waiting: asyncio.Queue[Message], building: asyncio.Future[Image]
) -> AsyncGenerator[Message, None]:
    while not building.done() or not waiting.empty():
        getting = asyncio.ensure_future(waiting.get())
        try:
            await asyncio.wait((getting, building), return_when=asyncio.FIRST_COMPLETED)
            if getting.done():
                yield getting.result()
        finally:
            getting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await getting


def _error_message(error: Exception) -> Message:
    detail: Message = {"message": str(error)}
    if isinstance(error, CommandFailed):
        detail = {"code": error.exit_code, **detail}
    return {"errorDetail": detail, "error": str(error)}


def registry_auth(name: str, credentials: dict[str, dict[str, str]]) -> str:
    """The value of X-Registry-Auth for an image's registry, out of those of X-Registry-Config; "" for none."""
    try:
        domain = parse_reference(name).name.partition("/")[0]
    except InvalidParameter:
        return ""
    keys = _HUB_KEYS if domain == DEFAULT_DOMAIN else (domain, f"https://{domain}", f"http://{domain}")
    found = next((credentials[key] for key in keys if key in credentials), None)
    return base64.urlsafe_b64encode(msgspec.json.encode(found)).decode() if found else ""
