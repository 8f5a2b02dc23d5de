"""Which images a prune deletes. The store's own filters are tested with the store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from engine.containers import Containers
from engine.errors import InvalidParameter
from engine.events import EventBus
from engine.images.store import ImageStore
from engine.imaging import Imaging
from engine.registry.service import RegistryService


class FakeStore:
    """Images: one without a name, one with a name, one that a container has,
    and a step that a child stands on."""

    def __init__(self) -> None:
        self.asked: Mapping[str, list[str]] = {}
        self.removed: list[str] = []

    def filtered(self, filters: Mapping[str, list[str]]) -> list[Any]:
        self.asked = filters
        return [
            SimpleNamespace(id="unnamed", repo_tags=[], size=1, parent=""),
            SimpleNamespace(id="named", repo_tags=["a:1", "b:1"], size=10, parent=""),
            SimpleNamespace(id="used", repo_tags=[], size=100, parent=""),
            SimpleNamespace(id="step", repo_tags=[], size=1000, parent=""),
        ]

    def all(self) -> list[Any]:
        return [SimpleNamespace(id="child", repo_tags=["c:1"], size=1, parent="step")]

    def collect_incoming(self) -> int:
        return 0

    def resolve(self, ref: str) -> Any:
        return SimpleNamespace(id=ref, config=SimpleNamespace(labels={}))

    def remove(self, ref: str, **_options: Any) -> list[dict[str, str]]:
        self.removed.append(ref)
        return []


class FakeContainers:
    def all(self) -> list[Any]:
        return [SimpleNamespace(image_id="used")]


@pytest.mark.parametrize(
    ("filters", "removed"),
    [
        ({}, ["unnamed"]),
        ({"dangling": []}, ["unnamed"]),
        ({"dangling": ["true"]}, ["unnamed"]),
        ({"dangling": ["0"]}, ["unnamed", "a:1", "b:1"]),
        ({"dangling": ["false"], "label": ["x"]}, ["unnamed", "a:1", "b:1"]),
    ],
)
async def test_unused_images_are_deleted(
    tmp_path: Path, filters: dict[str, list[str]], removed: list[str]
) -> None:
    store = FakeStore()
    imaging = Imaging(
        cast(ImageStore, store),
        cast(Containers, FakeContainers()),
        EventBus(),
        tmp_path / "t",
        cast(RegistryService, None),
    )
    await imaging.prune(filters)
    assert store.removed == removed
    assert store.asked == {key: values for key, values in filters.items() if key != "dangling"}


@pytest.mark.parametrize("values", [["maybe"], ["true", "false"]])
async def test_unclear_dangling_deletes_nothing(tmp_path: Path, values: list[str]) -> None:
    store = FakeStore()
    imaging = Imaging(
        cast(ImageStore, store),
        cast(Containers, FakeContainers()),
        EventBus(),
        tmp_path / "t",
        cast(RegistryService, None),
    )
    with pytest.raises(InvalidParameter, match="invalid filter 'dangling"):
        await imaging.prune({"dangling": values})
    assert store.removed == []
