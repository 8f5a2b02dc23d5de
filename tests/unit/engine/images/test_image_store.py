"""The image store over a driver in memory: names, removal, digests, crashes, and who waits for whom."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from engine.errors import Conflict, EngineFailure, InvalidParameter, NotFound
from engine.images.config import chain_ids
from engine.images.store import ImageStore
from engine.storage.driver import Rootfs
from tests.images import CREATED, digest_of, image_archive, image_config, tar_of

BASE = tar_of({"etc": None, "etc/os": b"small\n"})
TOP = tar_of({"app": (b"#!/bin/sh\n" * 100, 0o755)})


class MemoryDriver:
    """Keeps the names of each layer's files. `before_unpack` may fail or wait, `held` are used by containers."""

    name = "memory"

    def __init__(self) -> None:
        self.layers: dict[str, list[str]] = {}
        self.held: set[str] = set()
        self.before_unpack: Callable[[], None] = lambda: None

    def has_layer(self, chain_id: str) -> bool:
        return chain_id in self.layers

    def add_layer(self, chain_id: str, parent: str | None, tar: BinaryIO) -> int:
        assert parent is None or parent in self.layers, "a layer stands on one that is here"
        self.before_unpack()
        with tarfile.open(fileobj=tar, mode="r|") as archive:
            members = list(archive)
        self.layers[chain_id] = [member.name for member in members]
        return sum(member.size for member in members)

    def remove_layer(self, chain_id: str) -> bool:
        if chain_id in self.held:
            return False
        del self.layers[chain_id]
        return True

    def create_rootfs(self, container_id: str, top_layer: str | None) -> Rootfs:
        raise NotImplementedError

    def rootfs(self, container_id: str) -> Rootfs:
        raise NotImplementedError

    def remove_rootfs(self, container_id: str) -> None:
        raise NotImplementedError

    def mounted(self, container_id: str) -> contextlib.AbstractContextManager[Path]:
        raise NotImplementedError

    def changes(self, container_id: str) -> list[tuple[str, int]]:
        raise NotImplementedError

    def usage(self, container_id: str) -> int:
        raise NotImplementedError

    def recover(self, known_layers: set[str], known_containers: set[str]) -> list[str]:
        raise NotImplementedError


@pytest.fixture
def driver() -> MemoryDriver:
    return MemoryDriver()


@pytest.fixture
def store(tmp_path: Path, driver: MemoryDriver) -> ImageStore:
    return ImageStore(tmp_path / "images", driver)


def load(store: ImageStore, archive: bytes) -> list[str]:
    """The messages of a load."""
    messages: list[str] = []
    store.load(io.BytesIO(archive), lambda message: messages.append(message["stream"]))
    return messages


def app(*names: str, **options: Any) -> bytes:
    return image_archive([BASE, TOP], names=names, **options)


def unused(image_id: str) -> list[tuple[str, bool]]:
    return []


def blobs(root: Path) -> set[str]:
    return {f"sha256:{path.name}" for path in (root / "images/sha256").iterdir()}


# ---- loading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["docker", "oci"])
@pytest.mark.parametrize("compress", [False, True])
def test_load_of_every_layout_gives_the_same_image(
    store: ImageStore, driver: MemoryDriver, layout: str, compress: bool
) -> None:
    assert load(store, app("hello:1", layout=layout, compress=compress)) == ["Loaded image: hello:1\n"]
    image = store.resolve("hello:1")
    assert image.id == digest_of(image_config([BASE, TOP]))
    assert image.chain_ids == chain_ids([digest_of(BASE), digest_of(TOP)])
    assert driver.layers == {
        image.chain_ids[0]: ["etc", "etc/os"],
        image.chain_ids[1]: ["app"],
    }
    assert image.size == len("small\n") + 1000


def test_an_unnamed_image_is_reported_by_its_id(store: ImageStore) -> None:
    image_id = digest_of(image_config([BASE, TOP]))
    assert load(store, app()) == [f"Loaded image ID: {image_id}\n"]
    assert store.resolve(image_id[7:19]).repo_tags == []


def test_a_name_moves_and_the_old_image_dangles(store: ImageStore) -> None:
    load(store, app("hello"))
    old = store.resolve("hello")
    assert load(store, image_archive([BASE], names=["hello"])) == [
        f"The image hello:latest already exists, renaming the old one with ID {old.id} to empty string\n",
        "Loaded image: hello:latest\n",
    ]
    assert old.repo_tags == []
    assert [image.id for image in store.filtered({"dangling": ["true"]})] == [old.id]
    assert load(store, image_archive([BASE], names=["hello"])) == ["Loaded image: hello:latest\n"]


def test_a_wrong_layer_is_refused_before_it_is_unpacked(
    tmp_path: Path, store: ImageStore, driver: MemoryDriver
) -> None:
    lie = json.loads(image_config([BASE]))
    lie["rootfs"]["diff_ids"].append("sha256:" + "1" * 64)
    with pytest.raises(InvalidParameter, match=f"layer has digest {digest_of(TOP)}, but sha256:1{{64}} was"):
        load(store, image_archive([BASE, TOP], names=["x"], rootfs=lie["rootfs"]))
    assert (driver.layers, blobs(tmp_path), store.all()) == ({}, set(), [])


def test_a_wrong_layer_is_refused_also_where_the_right_one_is_known(store: ImageStore) -> None:
    load(store, image_archive([BASE], names=["right"]))
    claim = json.loads(image_config([BASE]))["rootfs"]
    with pytest.raises(InvalidParameter, match="was announced: the archive is damaged"):
        load(store, image_archive([TOP], names=["wrong"], rootfs=claim))
    assert store.resolve("right").blobs == (digest_of(BASE),)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"os": "windows"}, 'image is for operating system "windows"'),
        ({"rootfs": {"diff_ids": []}}, "image has 2 layers, but its configuration names 0"),
        ({"rootfs": {"diff_ids": ["x", "y"]}}, "but x was announced"),
        ({"config": {"Env": 1}}, "invalid image configuration"),
    ],
)
def test_an_image_that_cannot_be_is_refused(
    tmp_path: Path, store: ImageStore, driver: MemoryDriver, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidParameter, match=words):
        load(store, app("x", **fields))
    assert (driver.layers, blobs(tmp_path), store.all()) == ({}, set(), [])


def test_a_bad_name_in_an_archive_is_refused_as_a_whole(store: ImageStore, driver: MemoryDriver) -> None:
    for name in ("Hello", "../x", f"hello@sha256:{'1' * 64}"):
        with pytest.raises(InvalidParameter, match="invalid"):
            load(store, app("good", name))
    assert (driver.layers, store.all()) == ({}, [])


def test_a_failed_load_takes_only_its_own_layers_back(
    tmp_path: Path, store: ImageStore, driver: MemoryDriver
) -> None:
    load(store, image_archive([BASE], names=["base"]))
    before = dict(driver.layers), blobs(tmp_path)
    driver.before_unpack = disk_full
    with pytest.raises(OSError, match="No space left"):
        load(store, app("hello"))
    assert (driver.layers, blobs(tmp_path)) == before
    with pytest.raises(NotFound):
        store.resolve("hello")


def disk_full() -> None:
    raise OSError(28, "No space left on device")


def test_looking_up_does_not_wait_for_a_load(store: ImageStore, driver: MemoryDriver) -> None:
    load(store, image_archive([BASE], names=["base"]))
    unpacking, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        unpacking.set()
        assert go_on.wait(10)

    driver.before_unpack = wait
    thread = threading.Thread(target=load, args=(store, app("hello")))
    thread.start()
    try:
        assert unpacking.wait(10)
        assert_quick(lambda: (store.resolve("base"), store.summaries({}), store.tag("base", "other", "1")))
    finally:
        go_on.set()
        thread.join()
    assert {tag for image in store.all() for tag in image.repo_tags} == {
        "base:latest",
        "other:1",
        "hello:latest",
    }


def assert_quick(work: Callable[[], object]) -> None:
    """Done while the test's other thread stands still: a lock would keep it from ever ending."""
    done = threading.Event()
    threading.Thread(target=lambda: (work(), done.set()), daemon=True).start()
    assert done.wait(5), "it waits for the load"


# ---- names ------------------------------------------------------------------------------------------------


def test_resolve_by_every_kind_of_reference(store: ImageStore) -> None:
    load(store, app("user/app:2"))
    image = store.resolve("user/app:2")
    for ref in (image.id, image.id[7:], image.id[7:12], f"sha256:{image.id[7:12]}", "docker.io/user/app:2"):
        assert store.resolve(ref) is image


def test_what_is_not_there(store: ImageStore) -> None:
    load(store, app("user/app:2"))
    for ref, shown in (
        ("nope", "nope:latest"),
        ("user/app", "user/app:latest"),
        ("app:2", "app:2"),
        ("", ":latest"),
    ):
        with pytest.raises(NotFound) as refusal:
            store.resolve(ref)
        assert str(refusal.value) == f"No such image: {shown}"


def test_an_ambiguous_prefix_is_refused(store: ImageStore) -> None:
    ids: dict[str, str] = {}
    for number in range(20):
        archive = image_archive([BASE], config={"Labels": {"n": str(number)}})
        load(store, archive)
    for image in store.all():
        first = image.id[7]
        if first in ids:
            with pytest.raises(InvalidParameter, match=f"multiple IDs found with provided prefix: {first}"):
                store.resolve(first)
            return
        ids[first] = image.id
    raise AssertionError("of 20 ids two begin with the same of 16 digits")


def test_tag_refusals(store: ImageStore) -> None:
    load(store, app("hello"))
    with pytest.raises(NotFound):
        store.tag("nope", "a", "b")
    with pytest.raises(InvalidParameter, match="refusing to create a tag with a digest reference"):
        store.tag("hello", f"a@sha256:{'1' * 64}", "")
    with pytest.raises(InvalidParameter, match="refusing to create an ambiguous tag"):
        store.tag("hello", "sha256", "abc")
    with pytest.raises(InvalidParameter, match="invalid reference format"):
        store.tag("hello", "a", "b c")


# ---- removal ----------------------------------------------------------------------------------------------


def test_untag_then_delete(tmp_path: Path, store: ImageStore, driver: MemoryDriver) -> None:
    load(store, app("hello"))
    store.tag("hello", "other", "1")
    image = store.resolve("hello")
    assert store.remove("hello", force=False, in_use=unused) == [{"Untagged": "hello:latest"}]
    assert store.remove("other:1", force=False, in_use=unused) == [
        {"Untagged": "other:1"},
        {"Deleted": image.id},
        {"Deleted": image.chain_ids[1]},
        {"Deleted": image.chain_ids[0]},
    ]
    assert (driver.layers, blobs(tmp_path), store.all()) == ({}, set(), [])


def test_shared_layers_stay(tmp_path: Path, store: ImageStore, driver: MemoryDriver) -> None:
    load(store, image_archive([BASE], names=["base"]))
    load(store, app("hello"))
    store.remove("hello", force=False, in_use=unused)
    assert list(driver.layers) == [digest_of(BASE)]
    assert blobs(tmp_path) == {digest_of(BASE), store.resolve("base").id}


def test_removal_by_id_prefix_with_algorithm(store: ImageStore) -> None:
    load(store, app("hello"))
    image = store.resolve("hello")
    removed = store.remove(image.id[:19], force=False, in_use=unused)
    assert removed[:2] == [{"Untagged": "hello:latest"}, {"Deleted": image.id}]


@pytest.mark.parametrize(
    ("by_id", "running", "force", "words"),
    [
        (
            False,
            False,
            False,
            'unable to remove repository reference "hello" (must force) - container {c} is using',
        ),
        (
            False,
            True,
            False,
            'unable to remove repository reference "hello" (must force) - container {c} is using',
        ),
        (
            True,
            False,
            False,
            "unable to delete {i} (must be forced) - image is being used by stopped container {c}",
        ),
        (
            True,
            True,
            False,
            "unable to delete {i} (cannot be forced) - image is being used by running container {c}",
        ),
        (
            True,
            True,
            True,
            "unable to delete {i} (cannot be forced) - image is being used by running container {c}",
        ),
    ],
)
def test_an_image_in_use_is_kept(
    store: ImageStore, by_id: bool, running: bool, force: bool, words: str
) -> None:
    load(store, app("hello"))
    image, container = store.resolve("hello"), "c0ffee" * 10
    with pytest.raises(Conflict) as refusal:
        store.remove(
            image.id if by_id else "hello", force=force, in_use=lambda image_id: [(container, running)]
        )
    assert f"conflict: {words.format(i=image.id[7:19], c=container[:12])}" in str(refusal.value)
    assert store.resolve("hello") is image


def test_forced_out_of_its_name_an_image_in_use_dangles(store: ImageStore, driver: MemoryDriver) -> None:
    load(store, app("hello"))
    image = store.resolve("hello")
    assert store.remove("hello", force=True, in_use=lambda image_id: [("c", True)]) == [
        {"Untagged": "hello:latest"}
    ]
    assert store.resolve(image.id).repo_tags == [] and len(driver.layers) == 2


def test_by_id_with_several_names_it_must_be_forced(store: ImageStore) -> None:
    load(store, app("hello", "other"))
    image = store.resolve("hello")
    with pytest.raises(Conflict, match="image is referenced in multiple repositories"):
        store.remove(image.id, force=False, in_use=unused)
    removed = store.remove(image.id, force=True, in_use=unused)
    assert removed[:3] == [{"Untagged": "hello:latest"}, {"Untagged": "other:latest"}, {"Deleted": image.id}]


def test_layers_under_a_container_outlive_the_image(store: ImageStore, driver: MemoryDriver) -> None:
    load(store, app("hello"))
    image = store.resolve("hello")
    driver.held = {image.chain_ids[0], image.chain_ids[1]}
    removed = store.remove(image.id, force=True, in_use=lambda image_id: [("stopped", False)])
    assert removed == [{"Untagged": "hello:latest"}, {"Deleted": image.id}]
    assert set(driver.layers) == driver.held


def test_layers_go_with_the_last_container_on_them(store: ImageStore, driver: MemoryDriver) -> None:
    load(store, app("hello"))
    load(store, image_archive([BASE], names=["base"]))
    layers = store.resolve("hello").chain_ids
    driver.held = set(layers)
    store.remove("hello", force=False, in_use=unused)
    assert set(driver.layers) == set(layers)
    driver.held = set()
    store.collect(layers)
    assert set(driver.layers) == {layers[0]}, "the other image still needs its own"


def test_a_container_that_goes_does_not_wait_for_a_load(store: ImageStore, driver: MemoryDriver) -> None:
    load(store, app("hello"))
    layers = store.resolve("hello").chain_ids
    driver.held = set(layers)
    store.remove("hello", force=False, in_use=unused)
    driver.held = set()
    driver.before_unpack = lambda: assert_quick(lambda: store.collect(layers))
    load(store, image_archive([TOP], names=["top"]))
    assert set(layers) <= set(driver.layers), "left for the next start: what is being loaded may need them"


# ---- over a restart ---------------------------------------------------------------------------------------


def test_images_and_names_survive(tmp_path: Path, store: ImageStore, driver: MemoryDriver) -> None:
    load(store, app("hello"))
    store.tag("hello", "other", "1")
    again = ImageStore(tmp_path / "images", driver)
    assert again.resolve("other:1") == store.resolve("hello")
    assert again.resolve("hello").size == 1006


def test_a_new_driver_gets_the_layers_from_the_blobs(tmp_path: Path, store: ImageStore) -> None:
    load(store, app("hello", compress=True))
    fresh = MemoryDriver()
    image = ImageStore(tmp_path / "images", fresh).resolve("hello")
    assert list(fresh.layers) == list(image.chain_ids)


def test_a_damaged_image_is_forgotten_and_the_others_stay(
    tmp_path: Path, store: ImageStore, caplog: pytest.LogCaptureFixture
) -> None:
    load(store, app("hello"))
    load(store, image_archive([BASE], names=["base"]))
    hello = store.resolve("hello")
    (tmp_path / "images/sha256" / hello.blobs[1][7:]).unlink()
    again = ImageStore(tmp_path / "images", MemoryDriver())
    assert [image.repo_tags for image in again.all()] == [["base:latest"]]
    assert f"image {hello.id} is damaged and forgotten" in caplog.text
    assert load(again, app("hello")) == ["Loaded image: hello:latest\n"]


def test_leftovers_of_a_killed_load_are_removed(
    tmp_path: Path, store: ImageStore, driver: MemoryDriver
) -> None:
    load(store, app("hello"))
    expected = blobs(tmp_path)
    (tmp_path / "images/tmp/half").write_bytes(b"half a blob")
    (tmp_path / "images/sha256" / ("1" * 64)).write_bytes(b"a blob that no image names")
    ImageStore(tmp_path / "images", driver)
    assert blobs(tmp_path) == expected and list((tmp_path / "images/tmp").iterdir()) == []


def test_a_damaged_index_is_not_taken_for_an_empty_one(
    tmp_path: Path, store: ImageStore, driver: MemoryDriver
) -> None:
    load(store, app("hello"))
    (tmp_path / "images/index.json").write_bytes(b'{"images":')
    with pytest.raises(EngineFailure, match=r"index\.json is damaged"):
        ImageStore(tmp_path / "images", driver)
    assert len(blobs(tmp_path)) == 3


# ---- import, save, views ----------------------------------------------------------------------------------


def test_import_applies_changes(store: ImageStore, driver: MemoryDriver) -> None:
    image_id = store.import_rootfs(io.BytesIO(BASE), "base", "", ['CMD ["/x"]', "ENV A=1"], "from tests")
    image = store.resolve("base:latest")
    assert (image.id, image.config.cmd, image.config.env) == (image_id, ("/x",), ("A=1",))
    assert driver.layers == {digest_of(BASE): ["etc", "etc/os"]}
    assert store.history("base")[0]["Comment"] == "from tests"


@pytest.mark.parametrize(("repo", "changes"), [("Bad", []), ("ok", ["RUN x"])])
def test_a_refused_import_leaves_nothing(
    tmp_path: Path, store: ImageStore, driver: MemoryDriver, repo: str, changes: list[str]
) -> None:
    with pytest.raises(InvalidParameter):
        store.import_rootfs(io.BytesIO(BASE), repo, "", changes, "")
    with pytest.raises(InvalidParameter):
        store.import_rootfs(io.BytesIO(b"\x1f\x8b damaged"), "ok", "", [], "")
    assert (driver.layers, blobs(tmp_path)) == ({}, set())


@pytest.fixture
def saved(store: ImageStore) -> Iterator[tarfile.TarFile]:
    load(store, app("hello:1", compress=True))
    store.tag("hello:1", "hello", "2")
    buffer = io.BytesIO()
    store.save(["hello"], buffer)
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as tar:
        yield tar


def member(tar: tarfile.TarFile, name: str) -> Any:
    file = tar.extractfile(name)
    assert file is not None
    return json.loads(file.read())


def test_save_by_name_without_tag_takes_all_tags_in_all_layouts(
    store: ImageStore, saved: tarfile.TarFile
) -> None:
    image = store.resolve("hello:1")
    paths = [f"blobs/sha256/{blob[7:]}" for blob in image.blobs]
    assert member(saved, "manifest.json") == [
        {"Config": f"blobs/sha256/{image.id[7:]}", "RepoTags": ["hello:1", "hello:2"], "Layers": paths}
    ]
    assert member(saved, "repositories") == {"hello": {"1": image.blobs[-1][7:], "2": image.blobs[-1][7:]}}
    index = member(saved, "index.json")["manifests"]
    assert [d["annotations"]["io.containerd.image.name"] for d in index] == [
        "docker.io/library/hello:1",
        "docker.io/library/hello:2",
    ]
    manifest = member(saved, f"blobs/sha256/{index[0]['digest'][7:]}")
    assert [layer["mediaType"].rpartition(".")[2] for layer in manifest["layers"]] == ["tar+gzip", "tar+gzip"]


@pytest.mark.parametrize("refs", [["hello:1"], ["ID"], ["hello:1", "ID"]])
def test_what_was_saved_loads_again(tmp_path: Path, store: ImageStore, refs: list[str]) -> None:
    load(store, app("hello:1"))
    image = store.resolve("hello:1")
    buffer = io.BytesIO()
    store.save([image.id if ref == "ID" else ref for ref in refs], buffer)
    other = ImageStore(tmp_path / "other", MemoryDriver())
    load(other, buffer.getvalue())
    assert other.resolve(image.id).repo_tags == (["hello:1"] if "hello:1" in refs else [])


def test_save_of_what_is_not_there(store: ImageStore) -> None:
    with pytest.raises(NotFound, match="No such image: nope:latest"):
        store.save(["nope"], io.BytesIO())


def test_views(store: ImageStore) -> None:
    load(store, app("hello", config={"Labels": {"a": "1"}, "Cmd": ["/app"]}))
    image = store.resolve("hello")
    (summary,) = store.summaries({}, containers=[image.id, image.id, "sha256:other"])
    assert summary == {
        "Id": image.id,
        "ParentId": "",
        "RepoTags": ["hello:latest"],
        "RepoDigests": [],
        "Created": 1_767_225_600,
        "Size": 1006,
        "SharedSize": -1,
        "Labels": {"a": "1"},
        "Containers": 2,
    }
    shown = store.inspect("hello")
    assert (shown["Created"], shown["Config"]["Cmd"], shown["Os"]) == (CREATED, ["/app"], "linux")
    assert shown["RootFS"] == {"Type": "layers", "Layers": [digest_of(BASE), digest_of(TOP)]}
    rows = store.history("hello")
    assert [(row["Id"], row["CreatedBy"], row["Size"]) for row in rows] == [
        (image.id, "layer 1", 1000),
        ("<missing>", "layer 0", 6),
    ]
