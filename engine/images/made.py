"""Images that are made here: out of others, by builds and commits (each knows its parent, and the step that made it),
and out of root file systems."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import IO, Any

import msgspec

from engine.building.metadata import apply_changes
from engine.errors import InvalidParameter
from engine.images.archive import FoundImage, FoundLayer
from engine.images.blobs import BlobStore
from engine.images.config import Image
from engine.images.platforms import Platform, host_platform
from engine.images.reference import parse_reference
from engine.images.store import ImageStore

Describe = Callable[[Sequence[str], bool], Mapping[str, Any]]


def add_child(
    store: ImageStore, parent: Image | None, describe: Describe, layer: IO[bytes] | str | None, step: str = ""
) -> Image:
    """An image on `parent` with at most one layer more: an archive, or a blob that is here.

    `describe(diff ids, is there a new one)` gives its configuration.
    """

    def made(store_of_blobs: BlobStore) -> FoundImage:
        blobs, diff_ids = (list(parent.blobs), list(parent.diff_ids)) if parent else ([], [])
        if layer is not None:
            blobs.append(layer if isinstance(layer, str) else store_of_blobs.add(layer)[0])
            diff_ids.append(store_of_blobs.diff_id_of_new(blobs[-1]))
        layers = [FoundLayer(digest=blob, open=partial(store_of_blobs.open, blob)) for blob in blobs]
        config = msgspec.json.encode(describe(diff_ids, layer is not None))
        return FoundImage(config=config, names=[], layers=layers)

    return store.adopt_made(made, parent.id if parent else "", step)


def import_rootfs(
    store: ImageStore,
    source: IO[bytes],
    repo: str,
    tag: str,
    changes: Sequence[str],
    message: str,
    platform: Platform | None = None,
) -> str:
    """One layer from a root file system archive; returns the image id."""
    name = parse_reference(f"{repo}:{tag}" if tag else repo) if repo else None
    if name and name.digest:
        raise InvalidParameter("cannot import digest reference")
    if platform is not None and platform.os != "linux":
        raise InvalidParameter(f'operating system "{platform.os}": only linux images can be imported here')
    changed = apply_changes({}, changes)

    def made(blobs: BlobStore) -> FoundImage:
        blob, _ = blobs.add(source)
        created = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        config = {
            "created": created,
            "architecture": (platform or host_platform()).architecture,
            "os": "linux",
            **({"variant": platform.variant} if platform and platform.variant else {}),
            "config": changed,
            "rootfs": {"type": "layers", "diff_ids": [blobs.diff_id(blob)]},
            "history": [{"created": created, "comment": message or "Imported from -"}],
        }
        layer = FoundLayer(digest=blob, open=lambda: blobs.open(blob))
        names = [name.familiar] if name else []
        return FoundImage(config=msgspec.json.encode(config), names=names, layers=[layer])

    return store.adopt_made(made).id


def made_by(store: ImageStore, parent_id: str, step: str) -> list[Image]:
    """What that step made of that image ("" for none) before, the newest first."""
    made = [image for image in store.all() if image.parent == parent_id and image.step == step]
    return sorted(made, key=lambda image: image.loaded_at, reverse=True)
