from __future__ import annotations

import pytest

from engine.errors import InvalidParameter
from engine.images.reference import Reference, is_image_id, parse_reference

DIGEST = "sha256:" + "a1" * 32


@pytest.mark.parametrize(
    ("text", "name", "tag", "familiar"),
    [
        ("hello", "docker.io/library/hello", "latest", "hello:latest"),
        ("hello:1.0", "docker.io/library/hello", "1.0", "hello:1.0"),
        ("user/app", "docker.io/user/app", "latest", "user/app:latest"),
        ("docker.io/hello", "docker.io/library/hello", "latest", "hello:latest"),
        ("docker.io/library/hello", "docker.io/library/hello", "latest", "hello:latest"),
        ("index.docker.io/hello", "docker.io/library/hello", "latest", "hello:latest"),
        ("library/hello", "docker.io/library/hello", "latest", "hello:latest"),
        ("library/a/b", "docker.io/library/a/b", "latest", "library/a/b:latest"),
        ("localhost/a", "localhost/a", "latest", "localhost/a:latest"),
        ("host:5000/a", "host:5000/a", "latest", "host:5000/a:latest"),
        ("host:5000/a:2", "host:5000/a", "2", "host:5000/a:2"),
        ("[::1]:5000/a", "[::1]:5000/a", "latest", "[::1]:5000/a:latest"),
        ("Host/a", "Host/a", "latest", "Host/a:latest"),
        ("quay.io/a/b/c:v1", "quay.io/a/b/c", "v1", "quay.io/a/b/c:v1"),
        ("a__b/c--d.e", "docker.io/a__b/c--d.e", "latest", "a__b/c--d.e:latest"),
    ],
)
def test_names_are_completed_and_shown_short(text: str, name: str, tag: str, familiar: str) -> None:
    reference = parse_reference(text)
    assert (reference.name, reference.tag, reference.familiar) == (name, tag, familiar)
    assert parse_reference(familiar) == reference


def test_a_digest_takes_no_default_tag() -> None:
    assert parse_reference(f"hello@{DIGEST}") == Reference("docker.io/library/hello", "", DIGEST)
    both = parse_reference(f"hello:1@{DIGEST}")
    assert (both.tag, both.digest, both.familiar) == ("1", DIGEST, f"hello:1@{DIGEST}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":1",
        "hello:",
        "hello@",
        "hello@sha256:12",
        "hello@md5:" + "a" * 32,
        "hello\n",
        "hello:latest\n",
        "hello world",
        "/hello",
        "hello/",
        "a//b",
        "a..b",
        "-a",
        "a___b",
        "../etc",
        "host:port/a",
        "hello:" + "t" * 129,
        "hello:.1",
        "hello:ä",
        "[::1/a",
    ],
)
def test_refused_in_dockers_words(text: str) -> None:
    with pytest.raises(InvalidParameter, match=r"^invalid reference format$"):
        parse_reference(text)


def test_refusals_with_a_reason() -> None:
    with pytest.raises(InvalidParameter, match=r"repository name \(library/Hello\) must be lowercase"):
        parse_reference("Hello")
    with pytest.raises(InvalidParameter, match="cannot specify 64-byte hexadecimal strings"):
        parse_reference("a" * 64)
    with pytest.raises(InvalidParameter, match="must not be more than 255 characters"):
        parse_reference("user/" + "a" * 251)
    assert parse_reference("user/" + "a" * 250).tag == "latest"


def test_ids_are_told_from_names() -> None:
    assert is_image_id(DIGEST) and is_image_id("a1" * 32)
    assert not is_image_id("a1" * 31) and not is_image_id("a1" * 32 + "\n") and not is_image_id("A1" * 32)
