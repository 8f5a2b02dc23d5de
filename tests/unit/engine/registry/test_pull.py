"""Pulls from a registry that works, and from one that breaks off, lies, is busy, or knows us not."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import io
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import zstandard
from registry_world import World, words

from engine.errors import EngineError, InvalidParameter, NotFound
from tests.fake_registry import FakeRegistry, breaks_off, gives, says
from tests.images import HOST_ARCHITECTURE, digest_of, image_archive, image_config, tar_of

BASE = tar_of({"etc": None, "etc/os": b"small\n"})
TOP = tar_of({"app": os.urandom(100_000)})


def pack(layer: bytes) -> bytes:
    return gzip.compress(layer, mtime=0)


PACKED = pack(TOP)
DIGEST = digest_of(PACKED)
SHORT = DIGEST[7:19]


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as found:
        yield found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_layers_come_and_the_image_has_its_name_and_digest(
    registry: FakeRegistry, world: World
) -> None:
    digest = registry.add_image("1", [BASE, TOP], pack)
    name = f"{registry.host}/a"
    said = words(await world.pull(f"{name}:1"))
    assert said[0] == "1: Pulling from a"
    assert said[-2:] == [f"Digest: {digest}", f"Status: Downloaded newer image for {name}:1"]
    steps = [word.partition(": ")[2] for word in said if word.startswith(SHORT)]
    assert steps == ["Pulling fs layer", "Verifying Checksum", "Download complete", "Pull complete"]
    image = world.store.resolve(f"{name}:1")
    assert image.id == digest_of(image_config([BASE, TOP]))
    assert image.repo_digests == [f"{name}@{digest}"]
    assert world.store.resolve(f"{name}@{digest}") is image
    assert world.driver.layers[image.chain_ids[1]] == ["app"]
    assert world.incoming() == {}
    again = words(await world.pull(f"{name}:1"))
    assert again[-1] == f"Status: Image is up to date for {name}:1"
    assert f"{SHORT}: Already exists" in again
    assert registry.asked[f"GET {DIGEST}"] == 1


async def test_names_and_digests_outlive_the_daemon(registry: FakeRegistry, world: World) -> None:
    digest = registry.add_image("1", [BASE], pack)
    await world.pull(f"{registry.host}/a@{digest}")
    image = World(world.folder).store.resolve(f"{registry.host}/a@{digest}")
    assert (image.repo_tags, image.repo_digests) == ([], [f"{registry.host}/a@{digest}"])


async def test_a_layer_that_another_image_has_is_not_loaded_again(
    registry: FakeRegistry, world: World
) -> None:
    """Also when it came from an archive, where it was not compressed."""
    world.store.load(io.BytesIO(image_archive([BASE], names=["base:1"])), lambda message: None)
    registry.add_image("1", [BASE, TOP], pack)
    said = words(await world.pull(f"{registry.host}/a:1"))
    assert f"{digest_of(pack(BASE))[7:19]}: Already exists" in said
    assert registry.asked[f"GET {digest_of(pack(BASE))}"] == 0
    out = io.BytesIO()
    world.store.save([f"{registry.host}/a:1"], out)  # everything that is needed for it is here
    assert len(out.getvalue()) > len(PACKED)


async def test_the_image_of_a_list_is_chosen_by_platform(registry: FakeRegistry, world: World) -> None:
    here = registry.add_image("here", [BASE], pack)
    other = registry.add_image("other", [TOP], pack, architecture="riscv64")
    top = registry.add_index("1", {f"linux/{HOST_ARCHITECTURE}": here, "linux/riscv64": other})
    said = words(await world.pull(f"{registry.host}/a:1"))
    assert f"Digest: {top}" in said
    assert world.store.resolve(f"{registry.host}/a:1").architecture == HOST_ARCHITECTURE
    await world.pull(f"{registry.host}/a:1", platform="linux/riscv64")
    assert world.store.resolve(f"{registry.host}/a:1").architecture == "riscv64"
    with pytest.raises(NotFound, match="no matching manifest for linux/s390x in the manifest list entries"):
        await world.pull(f"{registry.host}/a:1", platform="linux/s390x")
    with pytest.raises(NotFound, match=r"does not provide the specified platform \(linux/s390x\)"):
        await world.pull(f"{registry.host}/a:here", platform="linux/s390x")


async def test_all_tags_come_page_by_page(registry: FakeRegistry, world: World) -> None:
    for tag in "abcde":
        registry.add_image(tag, [BASE, tar_of({tag: b""})], pack)
    said = words(await world.pull(f"{registry.host}/a", all_tags=True))
    assert said[-1] == f"Status: Downloaded newer image for {registry.host}/a"
    assert [name.tag for name in world.store.tags_of(f"{registry.host}/a")] == list("abcde")


async def test_zstd_layers(registry: FakeRegistry, world: World) -> None:
    registry.add_image("1", [BASE, TOP], zstandard.compress)
    await world.pull(f"{registry.host}/a:1")
    image = world.store.resolve(f"{registry.host}/a:1")
    assert world.driver.layers[image.chain_ids[1]] == ["app"]


# ---- registries that fail ---------------------------------------------------------------------------------


async def test_a_download_that_breaks_off_goes_on_where_it_was(registry: FakeRegistry, world: World) -> None:
    registry.add_image("1", [TOP], pack)
    registry.faults[DIGEST] = [breaks_off(PACKED, 70_000), breaks_off(PACKED, 20_000)]
    said = words(await world.pull(f"{registry.host}/a:1"))
    assert registry.ranges == ["bytes=70000-", "bytes=90000-"]
    assert f"{SHORT}: Retrying in 1 second" in said
    assert world.pauses == [1.0, 1.0]
    assert said[-1].startswith("Status: Downloaded newer image")


async def test_a_registry_that_cannot_go_on_starts_again(registry: FakeRegistry, world: World) -> None:
    registry.add_image("1", [TOP], pack)
    registry.faults[DIGEST] = [breaks_off(PACKED, 70_000), gives(PACKED)]
    await world.pull(f"{registry.host}/a:1")
    assert world.store.resolve(f"{registry.host}/a:1").size == 100_000


async def test_a_registry_that_is_gone_leaves_what_came_for_the_next_pull(
    registry: FakeRegistry, world: World
) -> None:
    registry.add_image("1", [BASE, TOP], pack)
    registry.faults[DIGEST] = [breaks_off(PACKED, 70_000), *[breaks_off(PACKED, 0)] * 5]
    with pytest.raises(EngineError, match="unexpected EOF"):
        await world.pull(f"{registry.host}/a:1")
    assert sum(world.pauses) == 1 + 2 + 4 + 8 + 16
    assert world.incoming()[DIGEST] == 70_000
    assert (world.driver.layers, world.blobs()) == ({}, set())
    registry.ranges.clear()
    await world.pull(f"{registry.host}/a:1")
    assert registry.ranges == ["bytes=70000-"]


async def test_a_registry_that_lies_about_a_layer_is_found_out(registry: FakeRegistry, world: World) -> None:
    registry.add_image("1", [BASE, TOP], pack)
    registry.blobs[DIGEST] = b"\0" * len(PACKED)
    with pytest.raises(EngineError, match=f"filesystem layer verification failed for digest {DIGEST}"):
        await world.pull(f"{registry.host}/a:1")
    assert (world.driver.layers, world.blobs()) == ({}, set())
    assert world.incoming().get(DIGEST, 0) == 0
    with pytest.raises(NotFound):
        world.store.resolve(f"{registry.host}/a:1")


async def test_a_layer_that_does_not_end_is_cut_off(registry: FakeRegistry, world: World) -> None:
    registry.add_image("1", [TOP], pack)
    registry.blobs[DIGEST] = PACKED + b"more"
    with pytest.raises(EngineError, match="is larger than its manifest says"):
        await world.pull(f"{registry.host}/a:1")


async def test_what_is_left_of_an_older_download_and_damaged_is_loaded_anew(
    registry: FakeRegistry, world: World
) -> None:
    registry.add_image("1", [TOP], pack)
    world.store.incoming.part(DIGEST).write_bytes(b"\0" * 50_000)
    await world.pull(f"{registry.host}/a:1")
    assert world.store.resolve(f"{registry.host}/a:1")


async def test_a_manifest_that_is_not_what_was_asked_for_is_refused(
    registry: FakeRegistry, world: World
) -> None:
    digest = registry.add_image("1", [BASE], pack)
    raw, kind = registry.manifests[digest]
    registry.manifests[digest] = (raw + b" ", kind)
    with pytest.raises(EngineError, match=f"manifest verification failed for digest {digest}"):
        await world.pull(f"{registry.host}/a@{digest}")


async def test_a_configuration_with_other_layers_is_refused(registry: FakeRegistry, world: World) -> None:
    """The blob is what the manifest says; what is in it is not what the image says."""
    registry.add_image("1", [TOP], lambda layer: pack(BASE))
    with pytest.raises(InvalidParameter, match=r"layer has digest .* was announced by the image"):
        await world.pull(f"{registry.host}/a:1")
    assert world.driver.layers == {}


async def test_a_busy_registry_is_asked_again_when_it_says(registry: FakeRegistry, world: World) -> None:
    registry.add_image("1", [TOP], pack)
    busy = says(429, {"errors": [{"code": "TOOMANYREQUESTS", "message": "slow down"}]}, Retry_After="7")
    registry.faults["/manifests/1"] = [busy, says(503)]
    registry.faults[DIGEST] = [busy]
    await world.pull(f"{registry.host}/a:1")
    assert world.pauses[:2] == [7.0, 2.0]
    assert sum(world.pauses[2:]) == 7.0
    registry.faults["/manifests/1"] = [busy] * 5
    with pytest.raises(EngineError, match="toomanyrequests: slow down"):
        await world.pull(f"{registry.host}/a:1")


@pytest.mark.parametrize(
    ("code", "status", "words_"),
    [
        ("MANIFEST_UNKNOWN", 404, "manifest for {host}/a:1 not found: manifest unknown: no"),
        ("NAME_UNKNOWN", 404, "repository {host}/a not found: name unknown: no"),
        (
            "DENIED",
            403,
            "pull access denied for {host}/a, repository does not exist or may require 'docker login': denied: no",
        ),
    ],
)
async def test_refusals_are_in_dockers_words(
    registry: FakeRegistry, world: World, code: str, status: int, words_: str
) -> None:
    registry.faults["/manifests/1"] = [says(status, {"errors": [{"code": code, "message": "no"}]})]
    with pytest.raises(NotFound) as refused:
        await world.pull(f"{registry.host}/a:1")
    assert str(refused.value) == words_.format(host=registry.host)


async def test_nobody_listens(world: World) -> None:
    with pytest.raises(
        EngineError, match=r'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused'
    ):
        await world.pull("127.0.0.1:1/a:1")


# ---- who we are, and several at once ----------------------------------------------------------------------


def header(user: str, password: str) -> str:
    return base64.urlsafe_b64encode(json.dumps({"username": user, "password": password}).encode()).decode()


async def test_a_token_is_fetched_with_the_callers_account(registry: FakeRegistry, world: World) -> None:
    registry.token = "t0"
    registry.add_image("1", [BASE], pack)
    await world.pull(f"{registry.host}/a:1", header("anna", "geheim"))
    assert registry.scopes == ["repository:a:pull"]
    with pytest.raises(EngineError, match="unauthorized: incorrect username or password"):
        await world.pull(f"{registry.host}/a:1", header("anna", "falsch"))


async def test_a_token_that_expires_meanwhile_is_fetched_anew(registry: FakeRegistry, world: World) -> None:
    registry.token = "t0"
    registry.add_image("1", [BASE], pack)

    async def expire(_request: object) -> None:
        registry.token = "t1"

    registry.faults["/manifests/1"] = [expire]
    await world.pull(f"{registry.host}/a:1", header("anna", "geheim"))
    assert registry.asked["GET token"] == 2


async def test_so_many_layers_load_at_a_time_and_each_once(registry: FakeRegistry, tmp_path: Path) -> None:
    world = World(tmp_path, max_concurrent_downloads=3)
    layers = [tar_of({f"f{n}": os.urandom(1000)}) for n in range(8)]
    registry.add_image("1", layers, pack)
    registry.add_image("2", [*layers, TOP], pack)
    loading = most = 0

    async def count(_request: object) -> None:
        nonlocal loading, most
        loading += 1
        most = max(most, loading)
        for _ in range(20):
            await asyncio.sleep(0)
        loading -= 1

    for layer in layers:
        registry.faults[digest_of(pack(layer))] = [count]
    await asyncio.gather(world.pull(f"{registry.host}/a:1"), world.pull(f"{registry.host}/a:2"))
    assert 1 < most <= 3
    assert {registry.asked[f"GET {digest_of(pack(layer))}"] for layer in layers} == {1}
    assert world.incoming() == {}


async def test_a_blob_that_another_pull_moves_to_the_store_is_not_touched(
    registry: FakeRegistry, world: World
) -> None:
    """Complete, it is nobody's to write to: not even between the download and the end of its pull."""
    registry.add_image("1", [TOP], pack)
    part = world.store.incoming.part(DIGEST)
    part.write_bytes(PACKED)
    world.store.incoming.complete(DIGEST)
    registry.blobs[DIGEST] = b"something else"
    await world.pull(f"{registry.host}/a:1")
    assert registry.asked[f"GET {DIGEST}"] == 0
    assert (world.folder / "images/sha256" / DIGEST[7:]).read_bytes() == PACKED
    assert world.incoming() == {}


async def test_a_cancelled_pull_leaves_only_what_it_loaded(registry: FakeRegistry, world: World) -> None:
    registry.add_image("1", [BASE, TOP], pack)
    reached = asyncio.Event()

    async def hang(_request: object) -> None:
        reached.set()
        await asyncio.Event().wait()

    registry.faults[DIGEST] = [breaks_off(PACKED, 70_000), hang]
    task = asyncio.create_task(world.pull(f"{registry.host}/a:1"))
    await reached.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert (world.driver.layers, world.blobs()) == ({}, set())
    assert world.incoming()[DIGEST] == 70_000
    assert world.store.collect_incoming() >= 70_000
    assert world.incoming() == {}


async def test_an_image_that_is_removed_during_a_pull_takes_no_layer_of_it_along(
    registry: FakeRegistry, world: World
) -> None:
    world.store.load(io.BytesIO(image_archive([BASE], names=["base:1"])), lambda message: None)
    registry.add_image("1", [BASE, TOP], pack)

    async def remove(_request: object) -> None:
        world.store.remove("base:1", force=False, in_use=lambda image_id: [])

    registry.faults[DIGEST] = [remove]
    await world.pull(f"{registry.host}/a:1")
    image = world.store.resolve(f"{registry.host}/a:1")
    assert set(world.driver.layers) == set(image.chain_ids)
    assert set(image.blobs) <= world.blobs()


async def test_a_mirror_is_asked_first_and_without_our_account(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    world = World(tmp_path, mirrors=(f"http://{registry.host}",))
    registry.add_image("latest", [BASE], pack)
    said = words(await world.pull("hello", header("anna", "geheim")))
    assert said[0] == "latest: Pulling from library/hello"
    assert world.store.resolve("hello").repo_digests[0].startswith("hello@sha256:")
