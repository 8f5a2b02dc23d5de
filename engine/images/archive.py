"""Archives with images in them: `docker save` (old and new) and OCI layouts; reading and writing.

Nothing is unpacked to the file system here: members are read by name from a seekable file, so a hostile
archive cannot place files. Digests that the archive announces are checked by the blob store.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

import msgspec

from engine.errors import InvalidParameter
from engine.images.blobs import BlobStore, compression_of
from engine.images.config import Image
from engine.images.platforms import Platform, best, host_platform, platform_of
from engine.images.reference import parse_reference

JSON_BYTES_MAX = 8 << 20
MEMBERS_MAX = 100_000
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_BLOBS = "blobs/sha256/"
_COMPRESSIONS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)


class FoundLayer(msgspec.Struct):
    """`digest` is what the archive announces for the blob ("" when it announces nothing)."""

    digest: str
    open: Callable[[], IO[bytes]]


class FoundImage(msgspec.Struct):
    config: bytes
    names: list[str]
    layers: list[FoundLayer]


def read_archive(source: IO[bytes], platform: Platform | None = None) -> Iterator[FoundImage]:
    """The images in it; layers can be opened until the next is asked for. InvalidParameter: what is wrong."""
    with _seekable(source) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                members = _Members(tar)
                if members.has("manifest.json"):
                    yield from _read_docker(members)
                elif members.has("index.json"):
                    yield from _read_oci(members, platform)
                else:
                    raise InvalidParameter(
                        "the archive holds no image: neither manifest.json nor index.json is in it; "
                        "use `image import` for a root file system"
                    )
        except tarfile.TarError as error:
            raise InvalidParameter(f"the archive cannot be read: {error}") from error


def write_archive(out: IO[bytes], images: Sequence[tuple[Image, list[str]]], blobs: BlobStore) -> None:
    """An OCI layout with the manifest.json that older programs read."""
    with tarfile.open(fileobj=out, mode="w|") as tar:
        writer = _Writer(tar)
        docker_manifest, descriptors = [], []
        for image, names in images:
            for digest in (image.id, *image.blobs):
                writer.add_blob(digest, blobs)
            manifest = msgspec.json.encode(_oci_manifest(image, blobs))
            digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
            writer.add_bytes(_blob_path(digest), manifest)
            descriptors += _descriptors(digest, len(manifest), names)
            docker_manifest.append(
                {
                    "Config": _blob_path(image.id),
                    "RepoTags": names or None,
                    "Layers": [_blob_path(blob) for blob in image.blobs],
                }
            )
        writer.add_bytes("repositories", msgspec.json.encode(_repositories(images)))
        index = {"schemaVersion": 2, "mediaType": _INDEX_TYPES[0], "manifests": descriptors}
        writer.add_bytes("index.json", msgspec.json.encode(index))
        writer.add_bytes("manifest.json", msgspec.json.encode(docker_manifest))
        writer.add_bytes("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')


class _Members:
    """The regular files of an archive by name; links inside it are followed, links out of it do not exist."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._by_name: dict[str, tarfile.TarInfo] = {}
        for count, member in enumerate(tar):
            if count >= MEMBERS_MAX:
                raise InvalidParameter(f"the archive has more than {MEMBERS_MAX} entries")
            self._by_name[member.name.removeprefix("./")] = member

    def has(self, name: str) -> bool:
        return name in self._by_name

    def open(self, name: str) -> IO[bytes]:
        member = self._by_name.get(name)
        if member is None:
            raise InvalidParameter(f"the archive is incomplete: {name} is missing")
        try:
            file = self._tar.extractfile(member)
        except (KeyError, RecursionError):  # links to nothing, or to each other
            file = None
        if file is None:
            raise InvalidParameter(f"the archive is damaged: {name} is not a file")
        return file

    def small(self, name: str) -> bytes:
        """The whole of a small file, checked against the digest that its name announces, if it does."""
        data = self.open(name).read(JSON_BYTES_MAX + 1)
        if len(data) > JSON_BYTES_MAX:
            raise InvalidParameter(f"{name} in the archive is larger than {JSON_BYTES_MAX} bytes")
        announced = _announced(name)
        actual = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if announced and announced != actual:
            raise InvalidParameter(
                f"content has digest {actual}, but {announced} was announced: the archive is damaged"
            )
        return data

    def json(self, name: str, kind: Any) -> Any:
        data = self.small(name)
        try:
            return msgspec.json.decode(data, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidParameter(f"{name} in the archive is not valid: {error}") from error


class _DockerEntry(msgspec.Struct, rename="pascal"):
    config: str
    layers: list[str] | None = None
    repo_tags: list[str] | None = None


class _Descriptor(msgspec.Struct, rename="camel"):
    digest: str
    media_type: str = ""
    annotations: dict[str, str] | None = None
    platform: dict[str, Any] | None = None


class _OciIndex(msgspec.Struct):
    manifests: list[_Descriptor] = []


class _OciManifest(msgspec.Struct):
    config: _Descriptor
    layers: list[_Descriptor] | None = None


def _read_docker(members: _Members) -> Iterator[FoundImage]:
    for entry in members.json("manifest.json", list[_DockerEntry]):
        yield FoundImage(
            config=members.small(entry.config),
            names=[_tagged(name) for name in entry.repo_tags or ()],
            layers=[_layer(members, path) for path in entry.layers or ()],
        )


def _read_oci(members: _Members, platform: Platform | None) -> Iterator[FoundImage]:
    for descriptor in members.json("index.json", _OciIndex).manifests:
        if (descriptor.platform or {}).get("os") != "unknown":  # such entries describe how others were built
            yield _read_descriptor(members, descriptor, platform)


def _read_descriptor(members: _Members, descriptor: _Descriptor, platform: Platform | None) -> FoundImage:
    chosen = descriptor
    if descriptor.media_type in _INDEX_TYPES:
        listed = members.json(_blob_path(descriptor.digest), _OciIndex).manifests
        chosen = _chosen(listed, platform)
        if chosen.media_type in _INDEX_TYPES:
            raise InvalidParameter("the archive nests image indexes more than once")
    manifest = members.json(_blob_path(chosen.digest), _OciManifest)
    annotations = descriptor.annotations or {}
    name = annotations.get("io.containerd.image.name") or annotations.get(
        "org.opencontainers.image.ref.name", ""
    )
    return FoundImage(
        config=members.small(_blob_path(manifest.config.digest)),
        names=[_tagged(name)] if ":" in name or "/" in name else [],
        layers=[_layer(members, _blob_path(layer.digest)) for layer in manifest.layers or ()],
    )


def _chosen(descriptors: Sequence[_Descriptor], platform: Platform | None) -> _Descriptor:
    """The image of an index for a platform, or that runs here; one without a platform is taken at its word."""
    host = host_platform()
    offered = [host if d.platform is None else platform_of(d.platform) for d in descriptors]
    at = best(platform or host, offered)
    if at is not None:
        return descriptors[at]
    known = ", ".join(map(str, offered))
    raise InvalidParameter(f"the archive holds no image for {platform or host}: only for {known or 'none'}")


def _tagged(name: str) -> str:
    """The familiar form. InvalidParameter when it names no tag."""
    reference = parse_reference(name)
    if reference.digest:
        raise InvalidParameter(f'invalid tag "{name}": an image in an archive is named by name and tag')
    return reference.familiar


def _layer(members: _Members, path: str) -> FoundLayer:
    return FoundLayer(digest=_announced(path), open=lambda: members.open(path))


def _announced(path: str) -> str:
    """The digest that a file's place in the archive announces; "" for the old layout's free names."""
    value = path.removeprefix(_BLOBS)
    return f"sha256:{value}" if path.startswith(_BLOBS) else ""


class _Writer:
    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._written: set[str] = set()

    def add_blob(self, digest: str, blobs: BlobStore) -> None:
        with blobs.open(digest) as file:
            self._add(_blob_path(digest), file, blobs.size(digest))

    def add_bytes(self, path: str, data: bytes) -> None:
        self._add(path, io.BytesIO(data), len(data))

    def _add(self, path: str, source: IO[bytes], size: int) -> None:
        if path in self._written:
            return
        self._written.add(path)
        info = tarfile.TarInfo(path)
        info.size, info.mode = size, 0o644
        self._tar.addfile(info, source)


def _oci_manifest(image: Image, blobs: BlobStore) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": CONFIG_TYPE, "digest": image.id, "size": blobs.size(image.id)},
        "layers": [
            {"mediaType": _layer_type(blobs, blob), "digest": blob, "size": blobs.size(blob)}
            for blob in image.blobs
        ],
    }


def _layer_type(blobs: BlobStore, blob: str) -> str:
    with blobs.open(blob) as file:
        compression = compression_of(file.read(4))
    return "application/vnd.oci.image.layer.v1.tar" + (f"+{compression}" if compression else "")


def _descriptors(digest: str, size: int, names: Sequence[str]) -> list[dict[str, Any]]:
    described = {"mediaType": MANIFEST_TYPE, "digest": digest, "size": size}
    if not names:
        return [described]
    return [
        {
            **described,
            "annotations": {
                "io.containerd.image.name": f"{parse_reference(name).name}:{parse_reference(name).tag}",
                "org.opencontainers.image.ref.name": parse_reference(name).tag,
            },
        }
        for name in names
    ]


def _repositories(images: Sequence[tuple[Image, list[str]]]) -> dict[str, dict[str, str]]:
    """What the oldest programs read: name -> tag -> the top layer."""
    table: dict[str, dict[str, str]] = {}
    for image, names in images:
        for name in names if image.blobs else ():
            reference = parse_reference(name)
            table.setdefault(reference.familiar_name, {})[reference.tag] = image.blobs[-1].partition(":")[2]
    return table


def _blob_path(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or not value:
        raise InvalidParameter(f"the archive names content by {digest!r}: only sha256 is supported")
    return f"{_BLOBS}{value}"


@contextlib.contextmanager
def _seekable(source: IO[bytes]) -> Iterator[IO[bytes]]:
    """The archive itself, or its uncompressed form in a temporary file."""
    magic = source.read(6)
    source.seek(0)
    opener = next((opener for prefix, opener in _COMPRESSIONS.items() if magic.startswith(prefix)), None)
    if opener is None:
        yield source
        return
    with tempfile.TemporaryFile() as file:
        try:
            with opener(source) as uncompressed:
                shutil.copyfileobj(uncompressed, file, 1 << 20)
        except (EOFError, zlib.error, lzma.LZMAError) as error:
            raise InvalidParameter(f"the archive cannot be uncompressed: {error}") from error
        except OSError as error:
            if error.errno is not None:  # the host's trouble, such as a full disk
                raise
            raise InvalidParameter(f"the archive cannot be uncompressed: {error}") from error
        file.seek(0)
        yield file
