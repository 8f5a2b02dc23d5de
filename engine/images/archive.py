"""Archives with images in them: `docker save` (old and new) and OCI layouts; reading and writing.

Nothing is unpacked to the file system here: members are read by name from a seekable file, so a hostile
archive cannot place files. Digests that the archive announces are checked by the blob store.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

import msgspec

from engine.errors import InvalidParameter
from engine.images.blobs import BlobStore
from engine.images.config import Image
from engine.images.reference import parse_reference

JSON_BYTES_MAX = 8 << 20
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
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


def read_archive(source: IO[bytes]) -> Iterator[FoundImage]:
    """The images in it. InvalidParameter says what is wrong with the archive."""
    with _seekable(source) as file:
        try:
            with tarfile.open(fileobj=file) as tar:
                members = _Members(tar)
                if members.has("manifest.json"):
                    yield from _read_docker(members)
                elif members.has("index.json"):
                    yield from _read_oci(members)
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
        index = {"schemaVersion": 2, "mediaType": _INDEX_TYPES[0], "manifests": descriptors}
        writer.add_bytes("index.json", msgspec.json.encode(index))
        writer.add_bytes("manifest.json", msgspec.json.encode(docker_manifest))
        writer.add_bytes("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')


class _Members:
    """The regular files of an archive by name; links inside it are followed, links out of it do not exist."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._by_name = {member.name.removeprefix("./"): member for member in tar.getmembers()}

    def has(self, name: str) -> bool:
        return name in self._by_name

    def open(self, name: str) -> IO[bytes]:
        member = self._by_name.get(name)
        if member is None:
            raise InvalidParameter(f"the archive is incomplete: {name} is missing")
        try:
            file = self._tar.extractfile(member)
        except KeyError:
            file = None
        if file is None:
            raise InvalidParameter(f"the archive is damaged: {name} is not a file")
        return file

    def json(self, name: str, kind: Any) -> Any:
        data = self.open(name).read(JSON_BYTES_MAX + 1)
        if len(data) > JSON_BYTES_MAX:
            raise InvalidParameter(f"{name} in the archive is larger than {JSON_BYTES_MAX} bytes")
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.DecodeError as error:
            raise InvalidParameter(f"{name} in the archive is not valid: {error}") from error


class _DockerEntry(msgspec.Struct, rename="pascal"):
    config: str
    layers: list[str]
    repo_tags: list[str] | None = None


class _Descriptor(msgspec.Struct, rename="camel"):
    digest: str
    media_type: str = ""
    annotations: dict[str, str] | None = None
    platform: dict[str, Any] | None = None


class _OciIndex(msgspec.Struct):
    manifests: list[_Descriptor]


class _OciManifest(msgspec.Struct):
    config: _Descriptor
    layers: list[_Descriptor]


def _read_docker(members: _Members) -> Iterator[FoundImage]:
    for entry in members.json("manifest.json", list[_DockerEntry]):
        names = list(entry.repo_tags or ())
        for name in names:
            parse_reference(name)
        yield FoundImage(
            config=members.open(entry.config).read(JSON_BYTES_MAX),
            names=names,
            layers=[_layer(members, path) for path in entry.layers],
        )


def _read_oci(members: _Members) -> Iterator[FoundImage]:
    for descriptor in members.json("index.json", _OciIndex).manifests:
        yield from _read_descriptor(members, descriptor, nested=False)


def _read_descriptor(members: _Members, descriptor: _Descriptor, *, nested: bool) -> Iterator[FoundImage]:
    path = _blob_path(descriptor.digest)
    if descriptor.media_type in _INDEX_TYPES:
        if nested:
            raise InvalidParameter("the archive nests image indexes more than once")
        inner = members.json(path, _OciIndex).manifests
        chosen = next((d for d in inner if (d.platform or {}).get("os") in (None, "linux")), None)
        if chosen is None:
            raise InvalidParameter("the archive holds no image for linux")
        chosen.annotations = descriptor.annotations
        yield from _read_descriptor(members, chosen, nested=True)
        return
    manifest = members.json(path, _OciManifest)
    annotations = descriptor.annotations or {}
    name = annotations.get("io.containerd.image.name") or annotations.get(
        "org.opencontainers.image.ref.name", ""
    )
    names = [name] if ":" in name or "/" in name else []
    yield FoundImage(
        config=members.open(_blob_path(manifest.config.digest)).read(JSON_BYTES_MAX),
        names=names,
        layers=[_layer(members, _blob_path(layer.digest)) for layer in manifest.layers],
    )


def _layer(members: _Members, path: str) -> FoundLayer:
    prefix = "blobs/sha256/"
    announced = f"sha256:{path.removeprefix(prefix)}" if path.startswith(prefix) else ""
    return FoundLayer(digest=announced, open=lambda: members.open(path))


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
        compressed = file.read(2) == b"\x1f\x8b"
    return "application/vnd.oci.image.layer.v1.tar" + ("+gzip" if compressed else "")


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


def _blob_path(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or not value:
        raise InvalidParameter(f"the archive names content by {digest!r}: only sha256 is supported")
    return f"blobs/sha256/{value}"


@contextlib.contextmanager
def _seekable(source: IO[bytes]) -> Iterator[IO[bytes]]:
    """The archive itself, or its uncompressed form in a temporary file."""
    magic = source.read(2)
    source.seek(0)
    if magic != b"\x1f\x8b":
        yield source
        return
    with tempfile.TemporaryFile() as file:
        try:
            with gzip.open(source) as uncompressed:
                shutil.copyfileobj(uncompressed, file, 1 << 20)
        except (OSError, EOFError) as error:
            raise InvalidParameter(f"the archive cannot be uncompressed: {error}") from error
        file.seek(0)
        yield file
