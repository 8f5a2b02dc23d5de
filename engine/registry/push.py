"""One image from the store to a registry: layers that it lacks, several at once, then the manifest.

Layers go as they came; those that are not compressed are compressed for it, in a temporary file. An image that
came from a registry goes with the manifest that it came with, so that it keeps its digest.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

from engine.errors import EngineError
from engine.images.blobs import compression_of
from engine.images.config import Image
from engine.images.index import Packed
from engine.images.store import ImageStore
from engine.registry.answers import Refusal, Unreachable
from engine.registry.manifests import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    Descriptor,
    Manifest,
    digest_of,
    docker_manifest,
    parse_manifest,
)
from engine.registry.progress import Meter, Report, status, step
from engine.registry.pull import finished
from engine.registry.repository import Repository
from engine.registry.slots import Slots
from engine.registry.transport import AGAIN

CHUNK_BYTES = 1 << 20
MOUNT_SOURCES_MAX = 3


class Push:
    """To one repository, whose domain is `domain`. `slots` is shared by all pushes of this host."""

    def __init__(
        self,
        store: ImageStore,
        target: Repository,
        domain: str,
        slots: Slots,
        temp_dir: Path,
        report: Report,
    ) -> None:
        self._store = store
        self._target = target
        self._domain = domain
        self._slots = slots
        self._temp_dir = temp_dir
        self._report = report

    async def image(self, image: Image, tag: str) -> str:
        """The digest under which the registry has it now. Refusal, in the registry's words."""
        with self._store.leased(image.chain_ids, [image.id, *image.blobs]):
            for blob in image.blobs:
                self._report(step("Preparing", blob))
            tasks = [asyncio.create_task(self._layer(blob)) for blob in dict.fromkeys(image.blobs)]
            try:
                described = await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            by_blob = dict(zip(dict.fromkeys(image.blobs), described, strict=True))
            await self._config(image.id)
            raw, media_type = self._manifest(image, [by_blob[blob] for blob in image.blobs])
            await self._target.put_manifest(tag, raw, media_type)
        digest = digest_of(raw)
        self._report(status(f"{tag}: digest: {digest} size: {len(raw)}"))
        self._report({"progressDetail": {}, "aux": {"Tag": tag, "Digest": digest, "Size": len(raw)}})
        return digest

    def _manifest(self, image: Image, layers: Sequence[Descriptor]) -> tuple[bytes, str]:
        kept = self._store.manifest_of(image.id)
        if kept:
            manifest = parse_manifest(kept, "")
            if isinstance(manifest, Manifest) and [d.digest for d in manifest.layers] == [
                d.digest for d in layers
            ]:
                return kept, manifest.media_type or DOCKER_MANIFEST
        config = Descriptor(image.id, DOCKER_CONFIG, self._store.blob_size(image.id))
        return docker_manifest(config, layers), DOCKER_MANIFEST

    async def _config(self, digest: str) -> None:
        if not await self._target.has_blob(digest):
            await self._upload(digest, "", self._store.blob_size(digest), None)

    async def _layer(self, blob: str) -> Descriptor:
        """What the manifest says of it, when the registry has it."""
        if self._slots.are_taken():
            self._report(step("Waiting", blob))
        async with self._slots:
            compression = await asyncio.to_thread(self._compression, blob)
            known = self._store.packed(blob) if not compression else Packed(blob, self._store.blob_size(blob))
            if known is not None and await self._has(known.digest, blob):
                return Descriptor(known.digest, f"{DOCKER_LAYER}.{compression or 'gzip'}", known.size)
            if compression:
                await self._upload(blob, blob, self._store.blob_size(blob), None)
                return Descriptor(blob, f"{DOCKER_LAYER}.{compression}", self._store.blob_size(blob))
            with tempfile.TemporaryFile(dir=self._temp_dir) as file:
                packed = await finished(asyncio.to_thread(self._pack, blob, file))
                await asyncio.to_thread(self._store.record_packed, blob, packed)
                if not await self._has(packed.digest, blob):
                    await self._upload(packed.digest, blob, packed.size, file)
            return Descriptor(packed.digest, f"{DOCKER_LAYER}.gzip", packed.size)

    async def _has(self, digest: str, shown: str) -> bool:
        """It is there, or can be had there from a repository that we know of."""
        if await self._target.has_blob(digest):
            self._report(step("Layer already exists", shown))
            return True
        for source in self._store.repositories_of(digest, self._domain)[:MOUNT_SOURCES_MAX]:
            if source != self._target.path and await self._mounted(digest, source):
                self._report(step(f"Mounted from {source}", shown))
                return True
        return False

    async def _mounted(self, digest: str, source: str) -> bool:
        try:
            return not await self._target.mount(digest, source)
        except Refusal as refused:
            if refused.status in (401, 403, 404):
                return False  # we may not read there; the layer is sent instead
            raise

    async def _upload(self, digest: str, shown: str, size: int, file: IO[bytes] | None) -> None:
        """`shown`: the layer, "" for what nobody is told of. Begun anew when the connection breaks, so often."""
        connection = self._target.connection
        meter = Meter(self._report, "Pushing", shown, size) if shown else None

        def send() -> AsyncIterator[bytes]:
            return self._send(digest, file, meter)

        attempt = 1
        while True:
            try:
                location = await self._target.mount(digest, "")
                await self._target.upload(digest, size, location, send)
                break
            except (Refusal, Unreachable) as error:
                if not _again(error) or attempt >= connection.attempts_max:
                    raise
                await connection.pause(connection.delay_s(attempt, error))
                attempt += 1
        if meter is not None:
            self._report(step("Pushed", shown))

    async def _send(self, digest: str, file: IO[bytes] | None, meter: Meter | None) -> AsyncIterator[bytes]:
        source: Any = file if file is not None else await asyncio.to_thread(self._store.open_blob, digest)
        try:
            source.seek(0)
            sent = 0
            while chunk := await asyncio.to_thread(source.read, CHUNK_BYTES):
                yield chunk
                sent += len(chunk)
                if meter is not None:
                    meter.at(sent)
        finally:
            if file is None:
                source.close()

    def _compression(self, blob: str) -> str:
        with self._store.open_blob(blob) as file:
            return compression_of(file.read(4))

    def _pack(self, blob: str, out: IO[bytes]) -> Packed:
        """Gzip, the same bytes every time."""
        hashed = _Hashed(out)
        with self._store.open_blob(blob) as source:
            with gzip.GzipFile(
                filename="", mode="wb", fileobj=cast("IO[bytes]", hashed), mtime=0, compresslevel=6
            ) as gz:
                while chunk := source.read(CHUNK_BYTES):
                    gz.write(chunk)
        return Packed(f"sha256:{hashed.sha.hexdigest()}", hashed.size)


class _Hashed:
    """A file that knows the digest and size of what was written to it."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self.sha = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.sha.update(data)
        self.size += len(data)
        return self._out.write(data)

    def flush(self) -> None:
        self._out.flush()


def _again(error: EngineError) -> bool:
    if isinstance(error, Refusal):
        return error.status in AGAIN
    return isinstance(error, Unreachable) and error.again
