"""Which images stand on which: those made here know their parent. Pure.

An image without a name that others were made from is a step: it is not listed, not pruned by itself, and goes with
the last image that needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from engine.errors import Conflict
from engine.images.config import Image


def has_children(image: Image, images: Mapping[str, Image]) -> bool:
    return any(other.parent == image.id for other in images.values())


def dependent(image: Image) -> Conflict:
    """Why it cannot be deleted."""
    short = image.id[7:19]
    return Conflict(
        f"conflict: unable to delete {short} (cannot be forced) - image has dependent child images"
    )


def finished(chosen: Iterable[Image], everything: Iterable[Image]) -> list[Image]:
    """Those of the chosen that are no steps."""
    parents = {image.parent for image in everything}
    return [image for image in chosen if image.repo_tags or image.id not in parents]


def unneeded_below(
    image: Image, images: Mapping[str, Image], in_use: Callable[[str], Sequence[tuple[str, bool]]]
) -> Iterator[Image]:
    """The steps below an image that has gone, topmost first; each must be removed before the next is asked for."""
    while (parent := images.get(image.parent)) is not None:
        if parent.repo_tags or in_use(parent.id) or has_children(parent, images):
            return
        yield parent
        image = parent


def with_ids(
    history: list[dict[str, Any]], image: Image, images: Mapping[str, Image]
) -> list[dict[str, Any]]:
    """The newest entries get the ids of the images that the steps made."""
    below: Image | None = image
    for row in history:
        if below is None:
            break
        row |= {"Id": below.id, "Tags": below.repo_tags or None}
        below = images.get(below.parent)
    return history
