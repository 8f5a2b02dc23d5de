"""Archives as other programs write them, and as nobody should."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
from collections.abc import Callable
from typing import Any

import pytest

from engine.errors import InvalidParameter
from engine.images import archive
from engine.images.archive import FoundImage, read_archive
from tests.images import (
    HOST_ARCHITECTURE,
    described,
    digest_of,
    image_archive,
    image_config,
    oci_layout,
    oci_manifest,
    tar_of,
)

LAYER = tar_of({"a": b"content"})
CONFIG = image_config([LAYER])
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def read(data: bytes) -> list[FoundImage]:
    """The images, with every layer read to its end."""
    found = []
    for image in read_archive(io.BytesIO(data)):
        for layer in image.layers:
            layer.open().read()
        found.append(image)
    return found


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_compressed_archives(compress: Callable[[bytes], bytes]) -> None:
    (image,) = read(compress(image_archive([LAYER], names=["hello"])))
    assert (image.config, image.names) == (CONFIG, ["hello:latest"])


def test_the_old_layout_with_shared_layers_as_links() -> None:
    """Old versions of docker wrote a layer once, and links to it from the other images' folders."""
    buffer = io.BytesIO()
    manifest = [{"Config": "c.json", "RepoTags": None, "Layers": ["one/layer.tar", "two/layer.tar"]}]
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in (
            ("./c.json", CONFIG),
            ("./one/layer.tar", LAYER),
            ("./manifest.json", json.dumps(manifest).encode()),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("./two/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, "../one/layer.tar"
        tar.addfile(link)
    contents = [
        layer.open().read() for image in read_archive(io.BytesIO(buffer.getvalue())) for layer in image.layers
    ]
    assert contents == [LAYER, LAYER]


def test_an_image_without_layers() -> None:
    manifest = [{"Config": "c.json", "RepoTags": ["scratch:1"], "Layers": None}]
    (image,) = read(tar_of({"c.json": image_config([]), "manifest.json": json.dumps(manifest).encode()}))
    assert (image.names, image.layers) == (["scratch:1"], [])


def variant(architecture: str, os: str = "linux") -> tuple[list[bytes], dict[str, Any]]:
    """(blobs, descriptor) of an image for some platform."""
    config = image_config([LAYER], architecture=architecture, os=os)
    manifest = json.dumps(oci_manifest(config, [LAYER])).encode()
    platform = {"platform": {"os": os, "architecture": architecture}}
    return [config, manifest], {"mediaType": MANIFEST, **described(manifest), **platform}


def multi_platform(*platforms: tuple[str, str]) -> bytes:
    variants = [variant(architecture, os) for os, architecture in platforms]
    inner = json.dumps({"manifests": [descriptor for _, descriptor in variants]}).encode()
    outer = {
        "mediaType": INDEX,
        **described(inner),
        "annotations": {"io.containerd.image.name": "docker.io/u/a:1"},
    }
    return oci_layout([LAYER, inner, *(blob for blobs, _ in variants for blob in blobs)], [outer])


def test_of_an_index_the_image_for_this_host_is_taken() -> None:
    data = multi_platform(
        ("windows", HOST_ARCHITECTURE),
        ("linux", "riscv64"),
        ("unknown", "unknown"),
        ("linux", HOST_ARCHITECTURE),
    )
    (image,) = read(data)
    assert json.loads(image.config)["architecture"] == HOST_ARCHITECTURE
    assert image.names == ["u/a:1"]


def test_an_index_without_an_image_for_this_host_says_what_it_has() -> None:
    with pytest.raises(InvalidParameter) as refusal:
        read(multi_platform(("linux", "riscv64"), ("windows", HOST_ARCHITECTURE)))
    assert f"no image for linux/{HOST_ARCHITECTURE}: only for linux/riscv64, windows/" in str(refusal.value)


def test_entries_that_describe_how_an_image_was_built_are_passed_over() -> None:
    blobs, descriptor = variant(HOST_ARCHITECTURE)
    attestation = {"mediaType": MANIFEST, "digest": "sha256:" + "1" * 64, "platform": {"os": "unknown"}}
    assert len(read(oci_layout([LAYER, *blobs], [attestation, descriptor]))) == 1


def test_indexes_in_indexes_in_indexes_are_refused() -> None:
    platform = {"os": "linux", "architecture": HOST_ARCHITECTURE}
    inner = json.dumps({"manifests": []}).encode()
    middle = json.dumps(
        {"manifests": [{"mediaType": INDEX, **described(inner), "platform": platform}]}
    ).encode()
    with pytest.raises(InvalidParameter, match="nests image indexes more than once"):
        read(oci_layout([inner, middle], [{"mediaType": INDEX, **described(middle)}]))


@pytest.mark.parametrize("which", ["manifest", "config"])
def test_a_changed_manifest_or_configuration_is_noticed(which: str) -> None:
    data = image_archive([LAYER], layout="oci", config={"Cmd": ["original"]})
    original = b"original" if which == "config" else MANIFEST.encode()
    changed = b"0riginal" if which == "config" else MANIFEST.encode().upper()
    start = data.index(original) if which == "config" else data.index(b'"mediaType": "' + original) + 14
    damaged = data[:start] + changed + data[start + len(changed) :]
    with pytest.raises(InvalidParameter, match="was announced: the archive is damaged"):
        read(damaged)


def docker_archive(manifest: Any, **files: Any) -> bytes:
    return tar_of({"c.json": CONFIG, **files, "manifest.json": json.dumps(manifest).encode()})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the archive cannot be read"),
        (b"no archive at all" * 100, "the archive cannot be read"),
        (gzip.compress(b"x" * 1000)[:-10], "cannot be uncompressed"),
        (bz2.compress(b"x" * 1000)[:20], "cannot be uncompressed"),
        (lzma.compress(b"x" * 1000)[:40], "cannot be uncompressed"),
        (tar_of({"etc/passwd": b"x"}), "holds no image: neither manifest.json nor index.json"),
        (docker_archive({}), "manifest.json in the archive is not valid"),
        (docker_archive([{"Layers": []}]), "missing required field `Config`"),
        (docker_archive([{"Config": "../c.json", "Layers": []}]), "incomplete: ../c.json is missing"),
        (docker_archive([{"Config": "c.json", "Layers": ["gone"]}]), "incomplete: gone is missing"),
        (docker_archive([{"Config": "c.json", "Layers": ["d"]}], d=None), "damaged: d is not a file"),
        (
            docker_archive([{"Config": "c.json", "Layers": ["l"]}], l="/etc/passwd"),
            "damaged: l is not a file",
        ),
        (docker_archive([{"Config": "c.json", "Layers": ["l"]}], l="m", m="l"), "damaged: l is not a file"),
        (docker_archive([{"Config": "c.json", "RepoTags": ["A"], "Layers": []}]), "must be lowercase"),
        (tar_of({"manifest.json": b'[{"Config": "\xff"}]'}), "manifest.json in the archive is not valid"),
        (tar_of({"manifest.json": b"[" * 100_000}), "manifest.json in the archive is not valid"),
        (tar_of({"index.json": b'{"manifests": [{"digest": "md5:1"}]}'}), "only sha256 is supported"),
        (tar_of({"index.json": b'{"manifests": [{"digest": "sha256:../x"}]}'}), "is missing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_hostile_and_damaged_archives(data: bytes, words: str) -> None:
    with pytest.raises(InvalidParameter) as refusal:
        read(data)
    assert words in str(refusal.value)


def test_large_metadata_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "JSON_BYTES_MAX", 1000)
    with pytest.raises(InvalidParameter, match=r"c\.json in the archive is larger than 1000 bytes"):
        read(tar_of({"c.json": b" " * 1001, "manifest.json": b'[{"Config": "c.json"}]'}))


def test_the_number_of_entries_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MEMBERS_MAX", 10)
    with pytest.raises(InvalidParameter, match="more than 10 entries"):
        read(tar_of({f"file{number}": b"" for number in range(11)}))


def test_layers_announce_their_digest_only_where_they_are_named_by_it() -> None:
    (oci,) = read(image_archive([LAYER], layout="oci"))
    (docker,) = read(image_archive([LAYER], layout="docker"))
    assert ([layer.digest for layer in oci.layers], [layer.digest for layer in docker.layers]) == (
        [digest_of(LAYER)],
        [""],
    )
