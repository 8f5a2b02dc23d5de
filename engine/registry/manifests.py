"""Manifests and lists of them: read strictly, judged, written. Pure.

Sources: OCI image specification, Docker image manifest version 2 schema 2.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from engine.errors import EngineFailure, InvalidParameter, NotFound
from engine.images.platforms import Platform, best, host_platform, platform_of

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_PLUGIN = "application/vnd.docker.plugin.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
LISTS = (DOCKER_LIST, OCI_INDEX)
ACCEPT = ", ".join((OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST))
LAYERS_MAX = 1000
_SCHEMA_1 = (
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
    "application/vnd.docker.distribution.manifest.v1+json",
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LAYER_TYPES = {
    DOCKER_LAYER,
    f"{DOCKER_LAYER}.gzip",
    f"{DOCKER_LAYER}.zstd",
    OCI_LAYER,
    f"{OCI_LAYER}+gzip",
    f"{OCI_LAYER}+zstd",
}


class Descriptor(msgspec.Struct, rename="camel", omit_defaults=True):
    digest: str
    media_type: str = ""
    size: int = 0
    platform: dict[str, Any] | None = None


class Manifest(msgspec.Struct):
    """One image: its configuration and layers, lowest first. `raw` is what the digest is of."""

    raw: bytes
    media_type: str
    digest: str
    config: Descriptor
    layers: list[Descriptor]


class ManifestList(msgspec.Struct):
    raw: bytes
    media_type: str
    digest: str
    manifests: list[Descriptor]


class _Body(msgspec.Struct, rename="camel"):
    schema_version: int = 0
    media_type: str = ""
    config: Descriptor | None = None
    layers: list[Descriptor] | None = None
    manifests: list[Descriptor] | None = None


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def parse_manifest(
    raw: bytes, content_type: str, expected: str = "", *, plugin: bool = False
) -> Manifest | ManifestList:
    """Of an image, or of a plugin.

    EngineFailure when the content is not `expected` (a digest), InvalidParameter when it is no manifest.
    """
    digest = digest_of(raw)
    if expected and digest != expected:
        raise EngineFailure(f"manifest verification failed for digest {expected}: the content has {digest}")
    content_type = content_type.partition(";")[0].strip()
    try:
        body = msgspec.json.decode(raw, type=_Body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidParameter(f"the registry's manifest {digest} is not valid: {error}") from error
    media_type = body.media_type or content_type
    if media_type in _SCHEMA_1 or body.schema_version == 1:
        raise InvalidParameter(
            "Docker Image manifest version 2, schema 1 is not supported: push the image anew with a current client"
        )
    if media_type in LISTS or (body.manifests is not None and body.config is None):
        for descriptor in body.manifests or ():
            _check(descriptor, digest)
        return ManifestList(raw, media_type, digest, body.manifests or [])
    if body.config is None or len(body.layers or ()) > LAYERS_MAX:
        raise InvalidParameter(f"unsupported manifest media type {media_type!r} of {digest}")
    manifest = Manifest(raw, media_type, digest, body.config, body.layers or [])
    _check_content(manifest, plugin=plugin)
    return manifest


def _check_content(manifest: Manifest, *, plugin: bool) -> None:
    """It is what was asked for, and every layer is of a kind that can be unpacked here."""
    if manifest.config.media_type not in ((DOCKER_PLUGIN,) if plugin else (DOCKER_CONFIG, OCI_CONFIG, "")):
        raise InvalidParameter(
            f"unsupported media type {manifest.config.media_type}: this is not a "
            f"{'plugin' if plugin else 'container image'}"
        )
    for descriptor in (manifest.config, *manifest.layers):
        _check(descriptor, manifest.digest)
    for layer in manifest.layers:
        if layer.media_type not in _LAYER_TYPES:
            raise InvalidParameter(f"unsupported media type {layer.media_type!r} of layer {layer.digest}")


def _check(descriptor: Descriptor, where: str) -> None:
    if not _DIGEST.fullmatch(descriptor.digest):
        raise InvalidParameter(
            f"manifest {where} names content by {descriptor.digest!r}: only sha256 is supported"
        )
    if descriptor.size < 0:
        raise InvalidParameter(
            f"manifest {where} gives {descriptor.digest} a size of {descriptor.size} bytes"
        )


def choose(listed: ManifestList, wanted: Platform | None) -> Descriptor:
    """The image of a list for a platform (this host's when none is asked for). NotFound in Docker's words."""
    platform = wanted or host_platform()
    at = best(platform, [platform_of(d.platform) if d.platform else None for d in listed.manifests])
    if at is None:
        raise NotFound(f"no matching manifest for {platform} in the manifest list entries")
    return listed.manifests[at]


def docker_manifest(config: Descriptor, layers: Sequence[Descriptor]) -> bytes:
    """As Docker writes it, to the byte: the same image pushed by both has one digest."""

    def shown(descriptor: Descriptor) -> dict[str, Any]:
        return {
            "mediaType": descriptor.media_type,
            "size": descriptor.size,
            "digest": descriptor.digest,
        }

    body = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": shown(config),
        "layers": [shown(layer) for layer in layers],
    }
    return msgspec.json.format(msgspec.json.encode(body), indent=3)
