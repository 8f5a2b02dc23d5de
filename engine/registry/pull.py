"""One image from a registry into the store: manifest, configuration, layers; downloaded together, unpacked in order.

Invariant: an image gets its name when everything of it is here; a pull that fails or is cancelled leaves no
layer, no name, only what it has downloaded (engine.images.incoming).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from engine.errors import EngineError, InvalidParameter, NotFound
from engine.images.archive import JSON_BYTES_MAX
from engine.images.config import chain_ids, parse_image_config
from engine.images.platforms import Platform, check_platform
from engine.images.reference import Reference
from engine.images.store import ImageStore
from engine.registry.answers import Refusal
from engine.registry.download import Downloads
from engine.registry.manifests import Descriptor, Manifest, ManifestList, choose
from engine.registry.progress import Meter, Report, status, step
from engine.registry.repository import Repository

_T = TypeVar("_T")


class Pull:
    """Of one repository. `name` has neither tag nor digest; `store` is where images go."""

    def __init__(
        self,
        store: ImageStore,
        downloads: Downloads,
        source: Repository,
        name: Reference,
        platform: Platform | None,
        report: Report,
    ) -> None:
        self._store = store
        self._downloads = downloads
        self._source = source
        self._name = name
        self._platform = platform
        self._report = report

    async def image(self, tag: str = "", digest: str = "") -> bool:
        """True when the name means another image than before. Errors in Docker's words."""
        wanted = Reference(self._name.name, "" if digest else tag, digest)
        try:
            found = await self._source.manifest(digest or tag)
            self._report(status(f"Pulling from {self._source.path}", digest or tag))
            top = found.digest
            if isinstance(found, ManifestList):
                found = await self._chosen(found)
            is_new = await self._bring(wanted, found, top)
        except Refusal as refused:
            raise pull_error(refused, wanted) from refused
        self._report(status(f"Digest: {top}"))
        return is_new

    async def tags(self) -> list[str]:
        try:
            return await self._source.tags()
        except Refusal as refused:
            raise pull_error(refused, self._name) from refused

    async def _chosen(self, listed: ManifestList) -> Manifest:
        chosen = await self._source.manifest(choose(listed, self._platform).digest)
        if isinstance(chosen, ManifestList):
            raise InvalidParameter(f"manifest list {listed.digest} holds another list: this is not supported")
        return chosen

    async def _configuration(self, manifest: Manifest) -> bytes:
        """From the store when the image is here."""
        if self._is_here(manifest):
            return await asyncio.to_thread(self._read_config, manifest.config.digest)
        return await self._source.small_blob(manifest.config.digest, JSON_BYTES_MAX)

    def _is_here(self, manifest: Manifest) -> bool:
        return any(image.id == manifest.config.digest for image in self._store.all())

    def _read_config(self, digest: str) -> bytes:
        with self._store.open_blob(digest) as file:
            return file.read()

    async def _bring(self, wanted: Reference, manifest: Manifest, top: str) -> bool:
        config = await self._configuration(manifest)
        raw, _, diff_ids = parse_image_config(config)
        if len(diff_ids) != len(manifest.layers):
            raise InvalidParameter(
                f"image has {len(manifest.layers)} layers, but its configuration names {len(diff_ids)}"
            )
        if raw.get("os", "linux") not in ("", "linux"):
            raise InvalidParameter(f'image operating system "{raw["os"]}" cannot be used on this platform')
        check_platform(raw, wanted.familiar, self._platform)
        chain = chain_ids(diff_ids)
        announced = [layer.digest for layer in manifest.layers]
        try:
            with self._store.leased(chain, [manifest.config.digest, *announced]) as here:
                blobs = [blob or digest for blob, digest in zip(here, announced, strict=True)]
                await self._layers(manifest.layers, diff_ids, chain, here)
                own = manifest.raw if blobs == announced else b""
                commit = asyncio.to_thread(self._store.commit_pulled, config, blobs, own, wanted, top)
                return await finished(commit)
        except BaseException:
            await finished(asyncio.to_thread(self._store.drop_unneeded, chain))
            raise

    async def _layers(
        self, layers: Sequence[Descriptor], diff_ids: Sequence[str], chain: Sequence[str], here: Sequence[str]
    ) -> None:
        """All are unpacked afterwards; those that are `here` already are left alone."""
        for blob, layer in zip(here, layers, strict=True):
            self._report(step("Already exists" if blob else "Pulling fs layer", layer.digest))
        fetches = [
            None if blob else asyncio.create_task(self._downloads.fetch(self._source, layer, self._report))
            for blob, layer in zip(here, layers, strict=True)
        ]
        try:
            parent: str | None = None
            for fetch, layer, diff_id, chain_id in zip(fetches, layers, diff_ids, chain, strict=True):
                if fetch is not None:
                    await _first_failure(fetch, fetches)
                    await self._unpack(layer, diff_id, chain_id, parent)
                parent = chain_id
        finally:
            started = [fetch for fetch in fetches if fetch is not None]
            for fetch in started:
                fetch.cancel()
            await asyncio.gather(*started, return_exceptions=True)

    async def _unpack(self, layer: Descriptor, diff_id: str, chain_id: str, parent: str | None) -> None:
        loop = asyncio.get_running_loop()

        def report(message: dict[str, object]) -> None:
            loop.call_soon_threadsafe(self._report, message)

        meter = Meter(report, "Extracting", layer.digest, layer.size)
        await finished(
            asyncio.to_thread(self._store.unpack_incoming, layer.digest, diff_id, chain_id, parent, meter.at)
        )
        self._report(step("Pull complete", layer.digest))


async def _first_failure(wanted: asyncio.Task[None], fetches: Sequence[asyncio.Task[None] | None]) -> None:
    """Until `wanted` is done; the failure of any other ends the waiting."""
    running = {fetch for fetch in fetches if fetch is not None and not fetch.done()}
    while not wanted.done():
        done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for fetch in done:
            fetch.result()
    wanted.result()


async def finished(work: Awaitable[_T]) -> _T:
    """Wait for a thread's work to its end, also when we are cancelled: it must not go on behind our back."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


def pull_error(refused: Refusal, name: Reference) -> EngineError:
    """In Docker's words."""
    if refused.code == "DENIED":
        return NotFound(
            f"pull access denied for {name.familiar_name}, repository does not exist or may require "
            f"'docker login': {refused}"
        )
    if refused.code == "MANIFEST_UNKNOWN":
        return NotFound(f"manifest for {name.familiar} not found: {refused}")
    if refused.code == "NAME_UNKNOWN":
        return NotFound(f"repository {name.familiar_name} not found: {refused}")
    if refused.status == 404:
        return NotFound(f"manifest for {name.familiar} not found: {refused}")
    return refused
