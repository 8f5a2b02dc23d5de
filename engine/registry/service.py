"""`engine.registry`: pulls and pushes as streams of Docker's messages; login, search, a look at a registry's image.

Credentials come with each call and are forgotten with it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from engine.errors import EngineError, InvalidParameter, NotFound, Unauthorized
from engine.events import EventBus
from engine.images.archive import JSON_BYTES_MAX
from engine.images.config import parse_image_config
from engine.images.platforms import check_platform, parse_platform, platform_of
from engine.images.reference import Reference, parse_reference
from engine.images.store import ImageStore
from engine.registry.access import RegistryAccess
from engine.registry.answers import Refusal
from engine.registry.credentials import Credentials, from_header
from engine.registry.download import Downloads
from engine.registry.endpoints import account_domain
from engine.registry.hub import search_hub
from engine.registry.manifests import ManifestList
from engine.registry.progress import Report, status
from engine.registry.pull import Pull
from engine.registry.push import Push
from engine.registry.remote_file import remote_file
from engine.registry.settings import RegistrySettings
from engine.registry.slots import Slots
from engine.registry.stream import reported

TAGS_MAX = 10_000


class RegistryService:
    def __init__(
        self,
        settings: Callable[[], RegistrySettings],
        store: ImageStore,
        events: EventBus,
        temp_dir: Path,
        access: RegistryAccess | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._events = events
        self._temp_dir = temp_dir
        self._access = access or RegistryAccess(settings)
        downloads = Slots(lambda: settings().max_concurrent_downloads)
        self._downloads = Downloads(store.incoming, store.has_blob, downloads)
        self._uploads = Slots(lambda: settings().max_concurrent_uploads)

    def pull(
        self, ref: str, auth: str = "", *, platform: str = "", all_tags: bool = False
    ) -> AsyncGenerator[dict[str, Any], None]:
        """`ref`: NAME[:TAG|@DIGEST]; without both the tag is latest. Errors before the first message are raised there."""
        name = parse_reference(ref, default_tag="" if all_tags else "latest")
        wanted = parse_platform(platform)
        credentials = from_header(auth)

        async def work(report: Report) -> None:
            errors: list[EngineError] = []
            for skip_mirrors in (False, True) if self._has_mirrors(name) else (True,):
                try:
                    async with self._access.repository(
                        name, credentials, skip_mirrors=skip_mirrors
                    ) as source:
                        bare = Reference(name.name)
                        pull = Pull(self._store, self._downloads, source, bare, wanted, report)
                        await self._pull(pull, name, all_tags, report)
                        return
                except EngineError as error:
                    errors.append(error)  # a mirror that lacks an image is no reason not to ask the registry
            raise errors[-1]

        return reported(work)

    def push(
        self, repository: str, tag: str, auth: str = "", *, platform: str = ""
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Without a tag all tags of the repository. NotFound when there is none, before the first message."""
        name = parse_reference(repository, default_tag="")
        if name.digest or (tag and ":" in tag):
            raise InvalidParameter("cannot push a digest reference")
        bare = Reference(name.name)
        names = [Reference(name.name, tag)] if tag else self._store.tags_of(name.name)
        try:
            images = [(self._store.resolve(each.familiar), each.tag) for each in names]
        except NotFound as error:
            raise NotFound(f"An image does not exist locally with the tag: {bare.familiar_name}") from error
        if not images:
            raise NotFound(f"An image does not exist locally with the tag: {bare.familiar_name}")
        wanted = parse_platform(platform)
        for image, _ in images:
            check_platform(image.raw, bare.familiar, wanted)
        credentials = from_header(auth)
        domain = name.name.partition("/")[0]
        sources = {
            s
            for image, _ in images
            for blob in image.blobs
            for s in self._store.repositories_of(blob, domain)
        }

        async def work(report: Report) -> None:
            report(status(f"The push refers to repository [{name.name}]"))
            async with self._access.repository(
                bare, credentials, push=True, sources=sorted(sources)
            ) as target:
                push = Push(self._store, target, domain, self._uploads, self._temp_dir, report)
                for image, tag_name in images:
                    digest = await push.image(image, tag_name)
                    await asyncio.to_thread(self._store.record_digest, image.id, name.name, digest)
                    shown = Reference(name.name, tag_name).familiar
                    self._events.publish("image", "push", shown, {"name": bare.familiar_name})

        return reported(work)

    async def fetch(self, ref: str, auth: str) -> None:
        """Pull the image unless it is here. NotFound says why it cannot be had."""
        try:
            self._store.resolve(ref)
        except NotFound as missing:
            try:
                async with contextlib.aclosing(self.pull(ref, auth)) as messages:
                    async for _ in messages:
                        pass
            except EngineError as error:
                raise NotFound(f"{missing}: {error}") from error

    def remote_file(self, address: str) -> AsyncIterator[bytes]:
        """See engine.registry.remote_file."""
        return remote_file(address)

    async def log_in(self, credentials: Credentials) -> dict[str, str]:
        """Docker's answer. Unauthorized when the registry does not know them."""
        domain = account_domain(credentials.serveraddress)
        try:
            await self._access.log_in(domain, credentials)
        except Refusal as refused:
            if refused.status in (401, 403):
                raise Unauthorized(f'Get "https://{domain}/v2/": {refused}') from refused
            raise
        return {"Status": "Login Succeeded", "IdentityToken": credentials.identitytoken}

    async def distribution(self, ref: str, auth: str = "") -> dict[str, Any]:
        """What a registry has under a name: its descriptor, and for which platforms."""
        name = parse_reference(ref)
        async with self._looking(name, from_header(auth)) as source:
            found = await source.manifest(name.digest or name.tag)
            if isinstance(found, ManifestList):
                platforms = [d.platform for d in found.manifests if d.platform]
            else:
                config = await source.small_blob(found.config.digest, JSON_BYTES_MAX)
                shown = platform_of(parse_image_config(config)[0])
                platforms = [{"architecture": shown.architecture, "os": shown.os}]
                if shown.variant:
                    platforms[0]["variant"] = shown.variant
        return {
            "Descriptor": {"mediaType": found.media_type, "digest": found.digest, "size": len(found.raw)},
            "Platforms": platforms,
        }

    async def search(
        self, term: str, limit: int, filters: Mapping[str, list[str]], auth: str = ""
    ) -> list[dict[str, Any]]:
        from_header(auth)  # wrong ones are told, though the index asks for none
        return await search_hub(term, limit, filters)

    @contextlib.asynccontextmanager
    async def _looking(self, name: Reference, credentials: Credentials) -> AsyncIterator[Any]:
        try:
            async with self._access.repository(name, credentials, skip_mirrors=True) as source:
                yield source
        except Refusal as refused:
            if refused.status in (401, 403, 404):
                raise Unauthorized(str(refused)) from refused
            raise

    async def _pull(self, pull: Pull, name: Reference, all_tags: bool, report: Report) -> None:
        tags = await pull.tags() if all_tags else [name.tag]
        if len(tags) > TAGS_MAX:
            raise InvalidParameter(f"{name.familiar} has {len(tags)} tags: pull them one by one")
        is_new = False
        for tag in tags:
            is_new |= await pull.image(tag, name.digest)
            shown = Reference(name.name, "" if name.digest else tag, name.digest).familiar
            self._events.publish("image", "pull", shown, {"name": name.familiar_name})
        words = "Downloaded newer image for" if is_new else "Image is up to date for"
        shown = Reference(name.name, "" if name.digest or all_tags else name.tag, name.digest).familiar
        report(status(f"Status: {words} {shown}"))

    def _has_mirrors(self, name: Reference) -> bool:
        return bool(self._settings().mirrors) and name.name.startswith("docker.io/")
