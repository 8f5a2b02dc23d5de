"""One repository of a registry: manifests, tags, blobs in and out. Source: OCI distribution specification."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from urllib.parse import quote, urljoin

import aiohttp
import msgspec

from engine.errors import EngineFailure
from engine.registry.answers import FAILURES, Refusal, unreachable
from engine.registry.manifests import ACCEPT, Manifest, ManifestList, digest_of, parse_manifest
from engine.registry.transport import Body, Connection

MANIFEST_BYTES_MAX = 4 << 20
TAG_PAGES_MAX = 1000
_NEXT = re.compile(r"<([^>]*)>\s*;.*\brel=\"?next\"?")


class _Tags(msgspec.Struct):
    tags: list[str] | None = None


class Repository:
    """`path` is the name without its domain: library/hello."""

    def __init__(self, connection: Connection, path: str) -> None:
        self.connection = connection
        self.path = path

    async def manifest(self, tag_or_digest: str, *, plugin: bool = False) -> Manifest | ManifestList:
        """EngineFailure when its content is not what was promised; Refusal (MANIFEST_UNKNOWN...)."""
        target = f"{self._base}/manifests/{tag_or_digest}"
        async with self.connection.exchange("GET", target, headers={"Accept": ACCEPT}) as response:
            raw = await self._small(response, MANIFEST_BYTES_MAX)
            by_digest = tag_or_digest if ":" in tag_or_digest else ""
            promised = by_digest or response.headers.get("Docker-Content-Digest", "")
            content_type = response.headers.get("Content-Type", "")
            return parse_manifest(raw, content_type, promised, plugin=plugin)

    async def tags(self) -> list[str]:
        found: list[str] = []
        target = f"{self._base}/tags/list"
        for _ in range(TAG_PAGES_MAX):
            async with self.connection.exchange("GET", target) as response:
                data = await self._small(response, MANIFEST_BYTES_MAX)
                link = _NEXT.search(response.headers.get("Link", ""))
            try:
                found += msgspec.json.decode(data, type=_Tags).tags or []
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise EngineFailure(
                    f"the registry's list of tags of {self.path} is not valid: {error}"
                ) from error
            if link is None:
                return found
            target = urljoin(f"{self.connection.endpoint.url}{self._base}/tags/list", link[1])
        raise EngineFailure(f"the registry's list of tags of {self.path} does not end")

    async def small_blob(self, digest: str, limit: int) -> bytes:
        """A configuration. EngineFailure when it is larger, or not what its digest says."""
        async with self.blob(digest) as response:
            data = await self._small(response, limit)
        if digest_of(data) != digest:
            raise EngineFailure(f"filesystem layer verification failed for digest {digest}")
        return data

    @contextlib.asynccontextmanager
    async def blob(self, digest: str, start: int = 0) -> AsyncIterator[aiohttp.ClientResponse]:
        """Its bytes; from `start` on when the status is 206. 416: there is nothing at `start`."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        target = f"{self._base}/blobs/{digest}"
        async with self.connection.exchange(
            "GET", target, headers=headers, allowed=(416,) if start else (), attempts=1
        ) as response:
            yield response

    async def has_blob(self, digest: str) -> bool:
        target = f"{self._base}/blobs/{digest}"
        async with self.connection.exchange("HEAD", target, allowed=(404,)) as response:
            return response.status != 404

    async def mount(self, digest: str, source: str) -> str:
        """Take the blob from another repository: "" when that was done, else the URL of a begun upload."""
        query = f"?mount={digest}&from={quote(source)}" if source else ""
        target = f"{self._base}/blobs/uploads/{query}"
        async with self.connection.exchange("POST", target, headers={"Content-Length": "0"}) as response:
            if response.status == 201:
                return ""
            return self._location(response)

    async def upload(self, digest: str, size: int, location: str, body: Body) -> None:
        """All bytes in one PATCH, then the digest; the registry checks it."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        async with self.connection.exchange(
            "PATCH", location, headers=headers, body=body, attempts=1
        ) as response:
            location = self._location(response)
        separator = "&" if "?" in location else "?"
        target = f"{location}{separator}digest={quote(digest, safe='')}"
        async with self.connection.exchange("PUT", target, headers={"Content-Length": "0"}, attempts=1):
            pass

    async def put_manifest(self, tag: str, raw: bytes, media_type: str) -> None:
        target = f"{self._base}/manifests/{tag}"
        async with self.connection.exchange(
            "PUT", target, headers={"Content-Type": media_type}, body=raw
        ) as response:
            told = response.headers.get("Docker-Content-Digest", "")
        if told and told != digest_of(raw):
            raise EngineFailure(f"the registry stored another manifest than was sent: {told}")

    @property
    def _base(self) -> str:
        return f"/v2/{self.path}"

    def _location(self, response: aiohttp.ClientResponse) -> str:
        location = response.headers.get("Location", "")
        if not location:
            raise Refusal("UNKNOWN", "the registry began an upload, but did not say where", response.status)
        return urljoin(str(response.url), location)

    async def _small(self, response: aiohttp.ClientResponse, limit: int) -> bytes:
        data = bytearray()
        try:
            async for chunk in response.content.iter_any():
                data += chunk
                if len(data) > limit:
                    raise EngineFailure(f"{response.url} answers with more than {limit} bytes")
        except FAILURES as error:
            raise unreachable("GET", str(response.url), error) from error
        return bytes(data)
