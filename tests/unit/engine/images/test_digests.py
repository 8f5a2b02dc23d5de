"""References by digest: beside tags, without them, and when they go."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from engine.errors import Conflict, NotFound
from engine.images.index import Packed
from engine.images.platforms import parse_platform
from engine.images.reference import Reference
from engine.images.store import ImageStore
from tests.images import digest_of, image_archive, image_config, tar_of
from tests.memory_driver import MemoryDriver

LAYER = tar_of({"etc": None})
IMAGE_ID = digest_of(image_config([LAYER]))
DIGEST = f"sha256:{'1' * 64}"
NAME = "docker.io/library/hello"


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    made = ImageStore(tmp_path / "images", MemoryDriver())
    archive = image_archive([LAYER], names=["hello:1"])
    made.load(io.BytesIO(archive), lambda message: None)
    made.record_digest(IMAGE_ID, NAME, DIGEST)
    return made


def remove(store: ImageStore, ref: str, *, force: bool = False, users: bool = False) -> list[str]:
    found = [("c" * 64, False)] if users else []
    removed = store.remove(ref, force=force, in_use=lambda image_id: found)
    return [
        f"{kind}: {name}" for step in removed for kind, name in step.items() if "sha256:" + "e" not in name
    ]


@pytest.mark.parametrize("ref", [f"hello@{DIGEST}", f"hello:1@{DIGEST}", f"{NAME}@{DIGEST}"])
def test_an_image_is_found_by_its_digest(store: ImageStore, ref: str) -> None:
    assert store.resolve(ref).id == IMAGE_ID
    with pytest.raises(NotFound):
        store.resolve(f"other@{DIGEST}")


def test_the_digest_goes_with_the_last_tag_of_its_repository(store: ImageStore) -> None:
    store.tag("hello:1", "hello", "2")
    assert remove(store, "hello:1") == ["Untagged: hello:1"]
    removed = remove(store, "hello:2")
    assert removed[:3] == ["Untagged: hello:2", f"Untagged: hello@{DIGEST}", f"Deleted: {IMAGE_ID}"]


def test_a_tag_elsewhere_keeps_the_image(store: ImageStore) -> None:
    store.tag("hello:1", "reg.example/hello", "1")
    assert remove(store, "hello:1") == ["Untagged: hello:1", f"Untagged: hello@{DIGEST}"]
    assert store.resolve("reg.example/hello:1").repo_digests == []


def test_by_digest_only_the_digest_goes(store: ImageStore) -> None:
    assert remove(store, f"hello@{DIGEST}") == [f"Untagged: hello@{DIGEST}"]
    assert store.resolve("hello:1").repo_digests == []


def test_an_image_with_a_digest_only_is_dangling_and_removed_by_id(store: ImageStore) -> None:
    store.commit_pulled(image_config([LAYER]), [digest_of(LAYER)], b"", Reference(NAME, "", DIGEST), DIGEST)
    store.tag("hello:1", "other", "1")
    store.remove("other:1", force=False, in_use=lambda image_id: [])
    assert [image.id for image in store.filtered({"dangling": ["false"]})] == [IMAGE_ID]
    assert remove(store, IMAGE_ID)[:2] == ["Untagged: hello:1", f"Untagged: hello@{DIGEST}"]


def test_an_id_with_names_in_two_repositories_must_be_forced(store: ImageStore) -> None:
    store.record_digest(IMAGE_ID, "reg.example/hello", DIGEST)
    with pytest.raises(Conflict, match="image is referenced in multiple repositories"):
        remove(store, IMAGE_ID)
    assert f"Deleted: {IMAGE_ID}" in remove(store, IMAGE_ID, force=True)


def test_only_names_that_were_asked_for_are_listed(store: ImageStore) -> None:
    store.tag("hello:1", "reg.example/hello", "1")
    [row] = store.summaries({"reference": ["reg.example/*"]})
    assert (row["RepoTags"], row["RepoDigests"]) == (["reg.example/hello:1"], [])
    [row] = store.summaries({})
    assert (len(row["RepoTags"]), row["RepoDigests"]) == (2, [f"hello@{DIGEST}"])


def test_who_has_a_blob_is_known_for_the_registry_asked(store: ImageStore) -> None:
    blob = digest_of(LAYER)
    assert store.repositories_of(blob, "docker.io") == ["library/hello"]
    assert store.repositories_of(blob, "reg.example") == []
    store.record_packed(blob, Packed("sha256:packed", 5))
    assert store.repositories_of("sha256:packed", "docker.io") == ["library/hello"]


def test_a_name_without_a_tag_is_all_its_tags(store: ImageStore) -> None:
    store.tag("hello:1", "hello", "2")
    assert [image.id for image in store.named("hello")] == [IMAGE_ID, IMAGE_ID]
    with pytest.raises(NotFound, match="No such image: other:latest"):
        store.named("other")


def test_an_archive_for_another_platform_is_refused(store: ImageStore) -> None:
    archive = image_archive([tar_of({"x": b""})], names=["other:1"])
    with pytest.raises(NotFound, match=r"other:1 was found but does not provide the specified platform"):
        store.load(io.BytesIO(archive), lambda message: None, parse_platform("linux/s390x"))
    with pytest.raises(NotFound, match="No such image"):
        store.resolve("other:1")
