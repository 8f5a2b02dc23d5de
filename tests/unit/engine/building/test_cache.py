"""Steps that were made before: by their parent and key, or by the history of an image from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec
import pytest

from engine.building.cache import Cached, Step, StepCache, history_match
from engine.building.images import describe_step
from engine.errors import NotFound
from engine.images.config import Image, ImageConfig
from engine.images.store import ImageStore


def image(id: str, *steps: tuple[str, bool], parent: str = "", step: str = "", config: Any = None) -> Image:
    """`steps`: (created by, has a layer)."""
    history = [{"created_by": said, **({} if layer else {"empty_layer": True})} for said, layer in steps]
    layers = tuple(f"sha256:{said}" for said, layer in steps if layer)
    return Image(
        id=id,
        raw={"history": history, "config": config or {}, "os": "linux", "architecture": "arm64"},
        config=ImageConfig(),
        diff_ids=layers,
        blobs=layers,
        size=0,
        loaded_at=0.0,
        parent=parent,
        step=step,
    )


class FakeStore:
    def __init__(self, *images: Image) -> None:
        self._images = images

    def all(self) -> list[Image]:
        return list(self._images)

    def resolve(self, ref: str) -> Image:
        for one in self._images:
            if one.id == ref:
                return one
        raise NotFound(ref)


def cache(images: Sequence[Image], *cache_from: str, is_off: bool = False) -> StepCache:
    return StepCache(cast(ImageStore, FakeStore(*images)), cache_from, is_off=is_off)


BASE = image("base", ("base", True))
STEP = Step(created_by="RUN x", config={"Env": ["A=1"]})
MADE = image("made", ("base", True), ("RUN x", True), parent="base", step=STEP.key)


def test_a_key_tells_steps_apart() -> None:
    others = [
        msgspec.structs.replace(STEP, created_by="RUN y"),
        msgspec.structs.replace(STEP, config={"Env": ["A=2"]}),
        msgspec.structs.replace(STEP, author="me"),
        msgspec.structs.replace(STEP, words=("RUN", "x")),
        msgspec.structs.replace(STEP, words=("RUN x",)),
    ]
    assert len({STEP.key, *(other.key for other in others)}) == 6
    assert Step(created_by="RUN x", config={"Env": ["A=1"]}).key == STEP.key


def test_after_a_miss_nothing_of_the_stage_is_looked_up() -> None:
    steps = cache([BASE, MADE])
    assert steps.find(BASE, STEP) == Cached(MADE)
    assert steps.find(None, STEP) is None
    assert steps.find(BASE, STEP) is None
    steps.begin_stage()
    assert steps.find(BASE, STEP) == Cached(MADE)
    assert cache([BASE, MADE], is_off=True).find(BASE, STEP) is None


def test_cache_from_names_what_may_be_used() -> None:
    above = image("above", ("base", True), ("RUN x", True), ("CMD", False), parent="made", step="k")
    assert cache([BASE, MADE, above], "above").find(BASE, STEP) == Cached(MADE)
    assert cache([BASE, MADE, above], "nosuch").find(BASE, STEP) is None


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([("base", True), ("RUN x", True)], (True, 1)),
        ([("base", True), ("RUN x", True), ("more", True)], (True, 1)),
        ([("base", True), ("RUN x", False)], (True, None)),
        ([("base", True)], None),
        ([("base", True), ("RUN y", True)], None),
        ([("other", True), ("RUN x", True)], None),
    ],
)
def test_histories(steps: list[tuple[str, bool]], expected: tuple[bool, int | None] | None) -> None:
    source = image("source", *steps)
    found = history_match(BASE, source, "RUN x")
    assert (found and (found.is_part, found.layer)) == expected
    assert cache([BASE, source], "source").find(BASE, STEP) == found


def test_a_history_without_the_parents_layers_does_not_match() -> None:
    source = image("source", ("base", True), ("RUN x", True))
    source.diff_ids = ("sha256:other", "sha256:RUN x")
    assert history_match(BASE, source, "RUN x") is None


def test_a_step_is_described_after_its_parent() -> None:
    describe = describe_step(BASE, {"Cmd": ["c"]}, "CMD c", author="me", comment="words")
    raw = describe(["sha256:base"], False)
    assert raw["history"][0] == {"created_by": "base"}
    assert {key: raw["history"][1][key] for key in ("created_by", "author", "comment", "empty_layer")} == {
        "created_by": "CMD c",
        "author": "me",
        "comment": "words",
        "empty_layer": True,
    }
    assert (raw["architecture"], raw["author"], raw["config"]) == ("arm64", "me", {"Cmd": ["c"]})
    assert raw["rootfs"] == {"type": "layers", "diff_ids": ["sha256:base"]}
    assert "empty_layer" not in describe(["sha256:base", "sha256:new"], True)["history"][1]
