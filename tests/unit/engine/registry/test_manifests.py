"""Manifests, platforms, credentials and bars: what is pure."""

from __future__ import annotations

import base64
import json

import pytest

from engine.errors import EngineFailure, InvalidParameter, NotFound
from engine.images.platforms import Platform, best, fits, parse_platform
from engine.registry import manifests
from engine.registry.credentials import ANONYMOUS, Credentials, from_header
from engine.registry.manifests import Descriptor, ManifestList, choose, digest_of, parse_manifest
from engine.registry.progress import bar
from tests.images import image_config, oci_manifest

IMAGE = json.dumps(oci_manifest(image_config([b"x"]), [b"x"])).encode()


def test_an_image_and_its_digest() -> None:
    found = parse_manifest(IMAGE, "application/json", digest_of(IMAGE))
    assert isinstance(found, manifests.Manifest)
    assert (found.digest, found.media_type) == (digest_of(IMAGE), manifests.OCI_MANIFEST)
    with pytest.raises(EngineFailure, match="manifest verification failed for digest sha256:1"):
        parse_manifest(IMAGE, "", "sha256:1")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schemaVersion": 1, "config": None}, "schema 1 is not supported"),
        ({"config": {"digest": "md5:1"}}, "only sha256 is supported"),
        (
            {"config": {"digest": "sha256:" + "0" * 64, "mediaType": "application/helm"}},
            "not a container image",
        ),
        ({"layers": [{"digest": "sha256:" + "0" * 64, "mediaType": "text/plain"}]}, "unsupported media type"),
        ({"layers": [{"digest": "sha256:../../x"}]}, "only sha256 is supported"),
        ({"layers": "x"}, "is not valid"),
    ],
)
def test_what_is_no_image_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        parse_manifest(json.dumps(json.loads(IMAGE) | change).encode(), "")


def test_dockers_form_of_a_manifest_to_the_byte() -> None:
    written = manifests.docker_manifest(Descriptor("sha256:c", "t", 1), [Descriptor("sha256:l", "u", 2)])
    assert written == (
        b'{\n   "schemaVersion": 2,\n   "mediaType": "application/vnd.docker.distribution.manifest.v2+json",\n'
        b'   "config": {\n      "mediaType": "t",\n      "size": 1,\n      "digest": "sha256:c"\n   },\n'
        b'   "layers": [\n      {\n         "mediaType": "u",\n         "size": 2,\n         "digest": "sha256:l"\n'
        b"      }\n   ]\n}"
    )


def test_the_choice_from_a_list() -> None:
    def entry(number: int, architecture: str, variant: str = "") -> Descriptor:
        platform = {"os": "linux", "architecture": architecture, "variant": variant}
        return Descriptor(f"sha256:{number}", platform=platform)

    listed = ManifestList(b"", "", "", [entry(1, "arm", "v6"), entry(2, "arm", "v7"), entry(3, "amd64")])
    assert choose(listed, Platform("linux", "arm")).digest == "sha256:2"
    assert choose(listed, Platform("linux", "arm", "v6")).digest == "sha256:1"
    with pytest.raises(NotFound, match="no matching manifest for linux/arm/v5"):
        choose(listed, Platform("linux", "arm", "v5"))


def test_platforms() -> None:
    assert parse_platform("") is None
    assert parse_platform("linux/aarch64") == Platform("linux", "arm64")
    assert parse_platform("arm64") == Platform("linux", "arm64")
    assert parse_platform("linux/arm/v7") == Platform("linux", "arm", "v7")
    assert str(Platform("linux", "arm", "v7")) == "linux/arm/v7"
    for wrong in ("a/b/c/d", "linux/", "li nux"):
        with pytest.raises(InvalidParameter, match="unknown operating system or architecture"):
            parse_platform(wrong)
    assert fits(Platform("linux", "arm64"), Platform("linux", "arm64", "v8"))
    assert not fits(Platform("linux", "amd64"), Platform("linux", "amd64", "v3"))
    assert best(Platform("linux", "amd64"), [None, Platform("windows", "amd64")]) is None


def test_credentials_of_a_header() -> None:
    body = json.dumps({"username": "a?>", "password": "b", "serveraddress": "x", "more": 1}).encode()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        found = from_header(encode(body).decode())
        assert (found.username, found.password) == ("a?>", "b")
        assert from_header(encode(body).decode().rstrip("=")) == found
    assert from_header("") == from_header(base64.b64encode(b"{}").decode()) == ANONYMOUS
    nulls = base64.b64encode(b'{"Username": "u", "password": "p", "email": null}').decode()
    assert from_header(nulls) == Credentials("u", "p")
    assert from_header(base64.b64encode(b"null").decode()) == ANONYMOUS
    old = base64.b64encode(b"u:p:q").decode()
    assert from_header(base64.b64encode(json.dumps({"auth": old}).encode()).decode()) == Credentials(
        "u", "p:q"
    )
    assert "geheim" not in repr(Credentials("u", "geheim"))
    for wrong in ("!!!", base64.b64encode(b"[").decode(), base64.b64encode(b'{"username": 5}').decode()):
        with pytest.raises(InvalidParameter, match="X-Registry-Auth"):
            from_header(wrong)


def test_bars() -> None:
    assert bar(0, 2000) == "[>" + " " * 49 + "]       0B/2kB"
    assert bar(1000, 2000) == "[" + "=" * 25 + ">" + " " * 24 + "]      1kB/2kB"
    assert bar(2000, 2000) == "[" + "=" * 50 + ">]      2kB/2kB"
    assert bar(1234, 0) == " 1.234kB"
