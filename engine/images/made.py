"""Images that are made here out of others, by builds and commits: each knows its parent, and the step that made it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import IO, Any

import msgspec

from engine.images.archive import FoundImage, FoundLayer
from engine.images.blobs import BlobStore
from engine.images.config import Image
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


def made_by(store: ImageStore, parent_id: str, step: str) -> list[Image]:
    """What that step made of that image ("" for none) before, the newest first."""
    made = [image for image in store.all() if image.parent == parent_id and image.step == step]
    return sorted(made, key=lambda image: image.loaded_at, reverse=True)
