"""Managed plugins from and to registries: a plugin is a manifest whose configuration is its config.json.

Everything comes to temporary files first, checked; the caller makes a plugin of it. Knows no plugin that is installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import os
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import msgspec

from engine.errors import EngineFailure, InvalidParameter
from engine.images.reference import Reference, parse_reference
from engine.plugins.config import CONFIG_BYTES_MAX, PluginConfig, parse_config
from engine.plugins.store import unpack
from engine.registry.access import RegistryAccess
from engine.registry.answers import Refusal, Unreachable
from engine.registry.credentials import from_header
from engine.registry.manifests import (
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    DOCKER_PLUGIN,
    Descriptor,
    Manifest,
    ManifestList,
    digest_of,
    docker_manifest,
)
from engine.registry.progress import Meter, Report, status, step
from engine.registry.pull import finished, pull_error
from engine.registry.repository import Repository

CHUNK_BYTES = 1 << 20
ATTEMPTS = 3


class RemotePlugin(msgspec.Struct):
    """What a registry has: `layers` are temporary files, lowest first."""

    reference: Reference
    config: PluginConfig
    layers: list[BinaryIO]

    def fill(self, folder: Path) -> PluginConfig:
        """Unpack it into a new plugin's folder. Synchronous."""
        rootfs = folder / "rootfs"
        rootfs.mkdir(mode=0o755)
        for layer in self.layers:
            layer.seek(0)
            unpack(layer, rootfs)
        return self.config


class PluginDistribution:
    def __init__(self, access: RegistryAccess, temp_dir: Path) -> None:
        self._access = access
        self._temp_dir = temp_dir

    async def config(self, remote: str, auth: str) -> PluginConfig:
        """NotFound in Docker's words; InvalidParameter when it is an image."""
        name = parse_reference(remote)
        async with self._reading(name, auth) as source:
            return (await self._described(source, name))[1]

    @contextlib.asynccontextmanager
    async def fetched(self, remote: str, auth: str, report: Report) -> AsyncIterator[RemotePlugin]:
        """The temporary files last as long as the context."""
        name = parse_reference(remote)
        with contextlib.ExitStack() as files:
            async with self._reading(name, auth) as source:
                manifest, config = await self._described(source, name)
                report(status(f"Pulling from {source.path}", name.digest or name.tag))
                layers: list[BinaryIO] = []
                for layer in manifest.layers:
                    file = files.enter_context(tempfile.TemporaryFile(dir=self._temp_dir))
                    await self._load(source, layer, file, report)
                    layers.append(cast(BinaryIO, file))
            await finished(asyncio.to_thread(_check_contents, layers, _diff_ids(config)))
            yield RemotePlugin(name, config, layers)
            report(status(f"Digest: {manifest.digest}"))

    async def push(self, remote: str, config: PluginConfig, rootfs: Path, auth: str, report: Report) -> str:
        """The digest."""
        name = parse_reference(remote)
        report(status(f"The push refers to repository [{name.name}]"))
        with tempfile.TemporaryFile(dir=self._temp_dir) as file:
            digest, diff_id, size = await finished(asyncio.to_thread(_pack, rootfs, file))
            content = msgspec.structs.replace(config, rootfs={"type": "layers", "diff_ids": [diff_id]})
            raw_config = msgspec.json.encode(content)
            layer = Descriptor(digest, f"{DOCKER_LAYER}.gzip", size)
            described = Descriptor(digest_of(raw_config), DOCKER_PLUGIN, len(raw_config))
            bare = Reference(name.name)
            async with self._access.repository(bare, from_header(auth), push=True) as target:
                await self._send(target, layer, file, report)
                with tempfile.TemporaryFile(dir=self._temp_dir) as small:
                    small.write(raw_config)
                    await self._send(target, described, small, report)
                raw = docker_manifest(described, [layer])
                await target.put_manifest(name.tag, raw, DOCKER_MANIFEST)
        report(status(f"{name.tag}: digest: {digest_of(raw)} size: {len(raw)}"))
        return digest_of(raw)

    @contextlib.asynccontextmanager
    async def _reading(self, name: Reference, auth: str) -> AsyncIterator[Repository]:
        try:
            async with self._access.repository(name, from_header(auth), skip_mirrors=True) as source:
                yield source
        except Refusal as refused:
            raise pull_error(refused, name) from refused

    async def _described(self, source: Repository, name: Reference) -> tuple[Manifest, PluginConfig]:
        found = await source.manifest(name.digest or name.tag, plugin=True)
        if isinstance(found, ManifestList):
            raise InvalidParameter(f"{name.familiar} is a list of images: this is not a plugin")
        config = parse_config(await source.small_blob(found.config.digest, CONFIG_BYTES_MAX))
        if len(_diff_ids(config)) != len(found.layers):
            raise InvalidParameter(
                f"{name.familiar} has {len(found.layers)} layers, but its configuration names {len(_diff_ids(config))}"
            )
        return found, config

    async def _load(self, source: Repository, layer: Descriptor, file: IO[bytes], report: Report) -> None:
        """Begun anew when the connection breaks."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._load_once(source, layer, file, report)
                break
            except Unreachable as error:
                if attempt == ATTEMPTS:
                    raise
                await source.connection.pause(source.connection.delay_s(attempt, error))
        report(step("Download complete", layer.digest))

    async def _load_once(
        self, source: Repository, layer: Descriptor, file: IO[bytes], report: Report
    ) -> None:
        file.seek(0)
        file.truncate()
        meter, seen, size = Meter(report, "Downloading", layer.digest, layer.size), hashlib.sha256(), 0
        async with source.blob(layer.digest) as response:
            try:
                async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                    size += len(chunk)
                    if layer.size and size > layer.size:
                        raise EngineFailure(f"layer {layer.digest} is larger than its manifest says")
                    seen.update(chunk)
                    await asyncio.to_thread(file.write, chunk)
                    meter.at(size)
            except OSError as error:
                raise Unreachable(f"layer {layer.digest}: {error}", again=True) from error
        if f"sha256:{seen.hexdigest()}" != layer.digest:
            raise EngineFailure(f"filesystem layer verification failed for digest {layer.digest}")

    async def _send(self, target: Repository, blob: Descriptor, file: IO[bytes], report: Report) -> None:
        if await target.has_blob(blob.digest):
            report(step("Layer already exists", blob.digest))
            return
        meter = Meter(report, "Pushing", blob.digest, blob.size)

        async def chunks() -> AsyncIterator[bytes]:
            file.seek(0)
            sent = 0
            while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                yield chunk
                sent += len(chunk)
                meter.at(sent)

        await target.upload(blob.digest, blob.size, await target.mount(blob.digest, ""), chunks)
        report(step("Pushed", blob.digest))


def _diff_ids(config: PluginConfig) -> list[str]:
    return [str(diff_id) for diff_id in (config.rootfs or {}).get("diff_ids") or ()]


def _check_contents(layers: Sequence[BinaryIO], diff_ids: Sequence[str]) -> None:
    """What is unpacked is what the configuration promises."""
    for layer, diff_id in zip(layers, diff_ids, strict=True):
        layer.seek(0)
        seen = hashlib.sha256()
        try:
            with gzip.GzipFile(fileobj=layer) as plain:
                while chunk := plain.read(CHUNK_BYTES):
                    seen.update(chunk)
        except (gzip.BadGzipFile, EOFError) as error:
            raise InvalidParameter(f"a layer of the plugin is no gzip archive: {error}") from error
        if f"sha256:{seen.hexdigest()}" != diff_id:
            raise EngineFailure(f"filesystem layer verification failed for {diff_id}")


def _pack(rootfs: Path, out: IO[bytes]) -> tuple[str, str, int]:
    """The root as a packed layer, the same bytes every time: (digest, diff id, bytes)."""
    packed = _Hashed(out.write)
    with gzip.GzipFile(filename="", mode="wb", fileobj=cast("IO[bytes]", packed), mtime=0) as gz:
        plain = _Hashed(gz.write)
        with tarfile.open(fileobj=cast("IO[bytes]", plain), mode="w|", format=tarfile.PAX_FORMAT) as tar:
            for path in sorted(rootfs.rglob("*")):
                member = tar.gettarinfo(str(path), str(path.relative_to(rootfs)))
                if member is not None:
                    _add(tar, member, path)
    return packed.digest, plain.digest, packed.size


def _add(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    member.uname = member.gname = ""
    member.pax_headers = {
        f"SCHILY.xattr.{name}": os.getxattr(path, name, follow_symlinks=False).decode(
            "utf-8", "surrogateescape"
        )
        for name in os.listxattr(path, follow_symlinks=False)
    }
    if member.isreg():
        with path.open("rb") as file:
            tar.addfile(member, file)
    else:
        tar.addfile(member)


class _Hashed:
    """A file that knows the digest and size of what was written to it."""

    def __init__(self, write: Callable[[Any], object]) -> None:
        self._write = write
        self._sha = hashlib.sha256()
        self.size = 0

    @property
    def digest(self) -> str:
        return f"sha256:{self._sha.hexdigest()}"

    def write(self, data: Any) -> int:
        self._sha.update(data)
        self.size += len(data)
        self._write(data)
        return len(data)

    def flush(self) -> None:
        """Everything is written at once."""
