"""Which image a step would make, if it was made before.

Two places are looked at: images that an earlier build made from the same parent by the same step, and the history
of images that `cache_from` names (they may come from elsewhere and know no parents). The key of a step is what it
does, with the digest of what it copies, the arguments it uses and the configuration that it leaves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from engine.errors import InvalidParameter, NotFound
from engine.images.config import Image
from engine.images.made import made_by
from engine.images.store import ImageStore


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """`created_by` is what the history says; `config` the configuration after it."""

    created_by: str
    config: dict[str, Any]
    author: str = ""
    words: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        facts = json.dumps([self.created_by, self.words, self.config, self.author], sort_keys=True)
        return hashlib.sha256(facts.encode()).hexdigest()


class Cached(msgspec.Struct, frozen=True):
    """`image` as it is, or the part of `image` below and with layer number `layer`; None: the step made none."""

    image: Image
    is_part: bool = False
    layer: int | None = None


class StepCache:
    """One build's view. After the first step of a stage that is not there, nothing of that stage is looked up."""

    def __init__(self, store: ImageStore, cache_from: Sequence[str], *, is_off: bool) -> None:
        self._store = store
        self._is_off = is_off
        self._is_missed = False
        self._names = list(cache_from)

    def begin_stage(self) -> None:
        self._is_missed = False

    def find(self, parent: Image | None, step: Step) -> Cached | None:
        if self._is_off or self._is_missed:
            return None
        found = self._made_here(parent, step) or self._part_of_source(parent, step)
        self._is_missed = found is None
        return found

    def _made_here(self, parent: Image | None, step: Step) -> Cached | None:
        made = made_by(self._store, parent.id if parent else "", step.key)
        for image in made:
            if not self._names or any(self._stands_on(source, image.id) for source in self._sources()):
                return Cached(image)
        return None

    def _sources(self) -> list[Image]:
        found = []
        for name in self._names:
            try:
                found.append(self._store.resolve(name))
            except (NotFound, InvalidParameter):
                continue
        return found

    def _stands_on(self, image: Image, ancestor: str) -> bool:
        while image.id != ancestor:
            if not image.parent:
                return False
            try:
                image = self._store.resolve(image.parent)
            except NotFound:
                return False
        return True

    def _part_of_source(self, parent: Image | None, step: Step) -> Cached | None:
        for source in self._sources():
            found = history_match(parent, source, step.created_by)
            if found is not None:
                return found
        return None


def history_match(parent: Image | None, source: Image, created_by: str) -> Cached | None:
    """When the source's history goes on from the parent's with that very step."""
    above = parent.raw.get("history") or [] if parent else []
    layers = parent.diff_ids if parent else ()
    steps = source.raw.get("history") or []
    if len(steps) <= len(above) or source.diff_ids[: len(layers)] != layers:
        return None
    if any(not _is_same(a, b) for a, b in zip(above, steps, strict=False)):
        return None
    step = steps[len(above)]
    if step.get("created_by") != created_by:
        return None
    if step.get("empty_layer"):
        return Cached(source, is_part=True)
    return Cached(source, is_part=True, layer=len(layers)) if len(source.diff_ids) > len(layers) else None


def _is_same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return a.get("created_by") == b.get("created_by") and bool(a.get("empty_layer")) == bool(
        b.get("empty_layer")
    )
