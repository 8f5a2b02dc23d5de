"""Images for the API: the synchronous image store behind asynchronous, streaming verbs.

Heavy work runs in threads; streams go through temporary files beside the store, so that a client that is
slow or goes away half way neither blocks nor leaves anything behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from engine.containers import Containers
from engine.errors import InvalidParameter, NotFound
from engine.events import EventBus
from engine.images import lineage, made
from engine.images.config import Image
from engine.images.platforms import check_platform, parse_platform
from engine.images.reference import parse_reference
from engine.images.store import ImageStore
from engine.registry.service import RegistryService

CHUNK_BYTES = 1 << 20


class Imaging:
    def __init__(
        self,
        store: ImageStore,
        containers: Containers,
        events: EventBus,
        temp_dir: Path,
        registry: RegistryService,
    ) -> None:
        self.store = store
        self._registry = registry
        self._containers = containers
        self.events = events
        self._temp_dir = temp_dir
        temp_dir.mkdir(parents=True, exist_ok=True)

    async def summaries(
        self, filters: Mapping[str, list[str]], *, intermediate: bool = False
    ) -> list[dict[str, Any]]:
        users = [container.image_id for container in self._containers.all()]
        return self.store.summaries(filters, users, intermediate=intermediate)

    async def inspect(self, ref: str, platform: str = "") -> dict[str, Any]:
        self._check_platform(ref, platform)
        return self.store.inspect(ref)

    async def history(self, ref: str, platform: str = "") -> list[dict[str, Any]]:
        self._check_platform(ref, platform)
        return self.store.history(ref)

    async def tag(self, ref: str, repo: str, tag: str) -> None:
        image = self.store.resolve(ref)
        self.store.tag(ref, repo, tag)
        self._tell("tag", image, parse_reference(f"{repo}:{tag}" if tag else repo).familiar)

    async def remove(self, ref: str, *, force: bool, noprune: bool) -> list[dict[str, str]]:
        image = self.store.resolve(ref)
        known = {each.id: each for each in self.store.all()}
        removed = await asyncio.to_thread(
            self.store.remove, ref, force=force, in_use=self._users, noprune=noprune
        )
        for entry in removed:
            if "Untagged" in entry:
                self._tell("untag", image, image.id)
            elif entry["Deleted"] in known:  # not of a layer
                self._tell("delete", known[entry["Deleted"]], entry["Deleted"])
        return removed

    async def load(
        self, source: AsyncIterator[bytes], *, quiet: bool, platform: str = ""
    ) -> AsyncIterator[dict[str, Any]]:
        """Docker's progress messages, ending with `Loaded image: ...` for each."""
        wanted = parse_platform(platform)
        loaded: list[str] = []
        async with self._received(source) as file:
            async for message in self._reported(
                lambda report: loaded.extend(self.store.load(file, report, wanted))
            ):
                if not quiet or "stream" in message:
                    yield message
        for image in self._distinct(loaded):
            self._tell("load", image, image.id)

    async def import_rootfs(
        self,
        source: AsyncIterator[bytes],
        repo: str,
        tag: str,
        changes: Iterable[str],
        message: str,
        platform: str = "",
    ) -> AsyncIterator[dict[str, Any]]:
        wanted = parse_platform(platform)
        async with self._received(source) as file:
            image_id = await asyncio.to_thread(
                made.import_rootfs, self.store, file, repo, tag, list(changes), message, wanted
            )
        self._tell("import", self.store.resolve(image_id), image_id)
        yield {"status": image_id}

    async def save(self, refs: list[str], platform: str = "") -> AsyncIterator[bytes]:
        """A tar archive. NotFound is raised before the first byte."""
        for ref in refs:
            for image in self.store.named(ref):
                check_platform(image.raw, ref, parse_platform(platform))
        with tempfile.TemporaryFile(dir=self._temp_dir) as file:
            await asyncio.to_thread(self.store.save, refs, file)
            file.seek(0)
            for image in self._distinct(refs):
                self._tell("save", image, image.id)
            while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                yield chunk

    def pull(
        self, ref: str, auth: str = "", *, platform: str = "", all_tags: bool = False
    ) -> AsyncGenerator[dict[str, Any], None]:
        """See RegistryService.pull."""
        return self._registry.pull(ref, auth, platform=platform, all_tags=all_tags)

    def push(
        self, repository: str, tag: str, auth: str = "", *, platform: str = ""
    ) -> AsyncGenerator[dict[str, Any], None]:
        """See RegistryService.push."""
        return self._registry.push(repository, tag, auth, platform=platform)

    async def prune(self, filters: Mapping[str, list[str]]) -> dict[str, Any]:
        """Images that no container has: those without a name, with dangling=false all of them."""
        others = {key: values for key, values in filters.items() if key != "dangling"}
        unnamed = filters.get("dangling") or ["true"]
        if unnamed[0] not in ("true", "1", "false", "0") or len(set(unnamed)) > 1:
            raise InvalidParameter(f"invalid filter 'dangling={unnamed}'")
        everything = unnamed[0] in ("false", "0")
        used = {container.image_id for container in self._containers.all()}
        deleted: list[dict[str, str]] = []
        reclaimed = 0
        for image in lineage.finished(self.store.filtered(others), self.store.all()):
            if image.id in used or (image.repo_tags and not everything):
                continue
            reclaimed += image.size
            for ref in image.repo_tags or [image.id]:
                deleted += await self.remove(ref, force=False, noprune=False)
        reclaimed += await asyncio.to_thread(self.store.collect_incoming)
        self.events.publish("image", "prune", "", {"reclaimed": str(reclaimed)})
        return {"ImagesDeleted": deleted, "SpaceReclaimed": reclaimed}

    def _distinct(self, refs: Iterable[str]) -> list[Image]:
        """The images of these names, each once; those that went meanwhile are left out."""
        found: dict[str, Image] = {}
        for ref in refs:
            with contextlib.suppress(NotFound):
                found |= {image.id: image for image in self.store.named(ref)}
        return list(found.values())

    def _tell(self, action: str, image: Image, name: str) -> None:
        self.events.publish("image", action, image.id, {**image.config.labels, "name": name})

    def _check_platform(self, ref: str, platform: str) -> None:
        """NotFound when the image is not here, or not for the platform that is asked for."""
        check_platform(self.store.resolve(ref).raw, ref, parse_platform(platform))

    def _users(self, image_id: str) -> list[tuple[str, bool]]:
        """(container id, is running) for each container of the image."""
        return [(c.id, c.is_running) for c in self._containers.all() if c.image_id == image_id]

    @contextlib.asynccontextmanager
    async def _received(self, source: AsyncIterator[bytes]) -> AsyncIterator[IO[bytes]]:
        with tempfile.TemporaryFile(dir=self._temp_dir) as file:
            async for chunk in source:
                await asyncio.to_thread(file.write, chunk)
            file.seek(0)
            yield file

    async def _reported(
        self, work: Callable[[Callable[[dict[str, Any]], None]], Any]
    ) -> AsyncIterator[dict[str, Any]]:
        """Run `work(report)` in a thread and yield what it reports, then its error, if any, is raised."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

        def report(message: dict[str, Any]) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, message)

        def run() -> None:
            try:
                work(report)
            finally:
                loop.call_soon_threadsafe(queue.put_nowait, None)

        task = asyncio.ensure_future(asyncio.to_thread(run))
        try:
            while (message := await queue.get()) is not None:
                yield message
        finally:
            await asyncio.gather(task, return_exceptions=True)
        error = task.exception()
        if error is not None:
            raise error
