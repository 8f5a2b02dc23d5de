"""Images made here know their parents: what is listed, what removals take along, what they refuse."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.errors import Conflict, NotFound
from engine.images.config import Image
from engine.images.made import add_child, made_by
from engine.images.store import ImageStore
from tests.images import CREATED, image_archive, tar_of
from tests.unit.engine.images.test_image_store import MemoryDriver


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    store = ImageStore(tmp_path, MemoryDriver())
    store.load(io.BytesIO(image_archive([tar_of({"etc": None})], names=["base:1"])), lambda message: None)
    return store


def child(store: ImageStore, parent: Image | None, word: str, *, layer: bool = False) -> Image:
    def describe(diff_ids: Sequence[str], has_layer: bool) -> dict[str, Any]:
        assert has_layer == layer
        history = list(parent.raw["history"]) if parent else []
        return {
            "created": CREATED,
            "config": {"Cmd": [word]},
            "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
            "history": [*history, {"created_by": word} | ({} if layer else {"empty_layer": True})],
        }

    content = io.BytesIO(tar_of({word: word.encode()})) if layer else None
    return add_child(store, parent, describe, content, step=f"key of {word}")


def nobody(_image_id: str) -> list[tuple[str, bool]]:
    return []


def test_children_stand_on_their_parents_layers(store: ImageStore, tmp_path: Path) -> None:
    base = store.resolve("base:1")
    plain = child(store, base, "plain")
    layered = child(store, plain, "layered", layer=True)
    assert plain.diff_ids == base.diff_ids
    assert layered.diff_ids[:-1] == base.diff_ids and len(layered.diff_ids) == 2
    assert made_by(store, base.id, "key of plain") == [plain]
    assert made_by(store, "", "key of plain") == []
    assert child(store, None, "from nothing").diff_ids == ()
    again = ImageStore(tmp_path, MemoryDriver())
    assert again.resolve(layered.id).parent == plain.id
    assert [row["Id"] for row in again.history(layered.id)] == [layered.id, plain.id, base.id]


def test_a_failed_child_leaves_nothing(store: ImageStore, tmp_path: Path) -> None:
    before = {path.name for path in (tmp_path / "sha256").iterdir()}

    def describe(_diff_ids: Sequence[str], _has_layer: bool) -> dict[str, Any]:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        add_child(store, store.resolve("base:1"), describe, io.BytesIO(tar_of({"x": b"x"})))
    assert {path.name for path in (tmp_path / "sha256").iterdir()} == before


def test_steps_are_not_listed_unless_asked_for(store: ImageStore) -> None:
    step = child(store, store.resolve("base:1"), "step")
    last = child(store, step, "last")
    assert {row["Id"] for row in store.summaries({})} == {store.resolve("base:1").id, last.id}
    assert step.id in {row["Id"] for row in store.summaries({}, intermediate=True)}
    assert next(row for row in store.summaries({}) if row["Id"] == last.id)["ParentId"] == step.id


def test_steps_go_with_the_last_image_that_needs_them(store: ImageStore) -> None:
    first = child(store, store.resolve("base:1"), "first", layer=True)
    second = child(store, first, "second")
    one, two = child(store, second, "one"), child(store, second, "two")
    with pytest.raises(Conflict, match="image has dependent child images"):
        store.remove(second.id, force=True, in_use=nobody)
    assert store.remove(one.id, force=False, in_use=nobody) == [{"Deleted": one.id}]
    removed = store.remove(two.id, force=False, in_use=nobody)
    assert removed == [{"Deleted": i} for i in (two.id, second.id, first.id, first.chain_ids[-1])]
    assert store.resolve("base:1").repo_tags == ["base:1"]


def test_what_names_containers_or_noprune_hold_stays(store: ImageStore) -> None:
    base = store.resolve("base:1")
    first = child(store, base, "first")
    last = child(store, child(store, first, "second"), "last")
    store.remove(last.id, force=False, in_use=lambda id: [("c", False)] if id == first.id else [])
    assert store.resolve(first.id) is first
    last = child(store, first, "last")
    store.remove(last.id, force=False, in_use=nobody, noprune=True)
    assert store.resolve(first.id) is first
    store.tag(first.id, "kept", "1")
    assert store.remove("base:1", force=False, in_use=nobody) == [{"Untagged": "base:1"}]
    assert store.resolve(base.id).repo_tags == []
    store.remove("kept:1", force=False, in_use=nobody)
    with pytest.raises(NotFound):
        store.resolve(base.id)
