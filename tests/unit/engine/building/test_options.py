"""What a build refuses by name, platforms, git addresses and credentials."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from engine.build_config import BuildOptions
from engine.building.fetching import is_url, url_file_name
from engine.building.git import is_git, parse_remote
from engine.building.options import check_options
from engine.building.platforms import matches_platform, platform_problem, wanted_architecture
from engine.builds import registry_auth
from engine.errors import InvalidParameter, NotImplementedHere
from engine.images.config import Image, ImageConfig


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"squash": True}, "squash is only supported with experimental mode"),
        ({"outputs": '[{"Type":"local"}]'}, "outputs require BuildKit"),
        ({"security_options": ["seccomp=x"]}, "does not support setting security options on build"),
        ({"isolation": "hyperv"}, 'isolation "hyperv" is not supported'),
        ({"version": "3"}, "invalid version 3"),
        ({"shm_size": -1}, "SHM size"),
        ({"tags": ["A"]}, "must be lowercase"),
        ({"tags": ["a@sha256:" + "0" * 64]}, "cannot contain a digest"),
    ],
)
def test_refusals(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        check_options(BuildOptions(**options))


def test_buildkit_is_told_of_the_classic_builder() -> None:
    with pytest.raises(NotImplementedHere, match="DOCKER_BUILDKIT=0"):
        check_options(BuildOptions(version="2"))


def test_names_are_made_whole_and_stand_once() -> None:
    options = BuildOptions(tags=["a", "a:latest", "b:1"], isolation="default", outputs="[]")
    check_options(options)
    assert options.tags == ["a:latest", "b:1"]


def test_run_gets_the_limits() -> None:
    host = BuildOptions(
        memory=1 << 26, network_mode="none", extra_hosts=["a:1.2.3.4"], cpu_shares=5
    ).host_config()
    assert (host.memory, host.network_mode, host.extra_hosts, host.cpu_shares) == (
        1 << 26,
        "none",
        ["a:1.2.3.4"],
        5,
    )
    assert host.log_config is not None and host.log_config.type == "none"


@pytest.mark.parametrize(
    ("platform", "architecture"),
    [("", ""), ("linux", ""), ("linux/amd64", "amd64"), ("aarch64", "arm64"), ("Linux/x86_64", "amd64")],
)
def test_platforms(platform: str, architecture: str) -> None:
    assert wanted_architecture(platform) == architecture
    assert platform_problem(platform) == ""


def test_platforms_that_cannot_be() -> None:
    assert "operating system is not supported" in platform_problem("windows/amd64")
    assert "invalid platform" in platform_problem("a/b/c/d")
    arm = Image(
        id="i",
        raw={"architecture": "arm", "variant": "v7"},
        config=ImageConfig(),
        diff_ids=(),
        blobs=(),
        size=0,
        loaded_at=0,
    )
    wanted = ("linux/arm/v7", "linux/arm", "", "linux/arm/v6", "linux/amd64")
    assert [matches_platform(arm, platform) for platform in wanted] == [True, True, True, False, False]


@pytest.mark.parametrize(
    ("remote", "expected"),
    [
        ("git://host/r.git", ("git://host/r.git", "", "")),
        ("https://host/r.git#v1:a/b", ("https://host/r.git", "v1", "a/b")),
        ("github.com/o/r#:sub", ("https://github.com/o/r", "", "sub")),
        ("git@host:o/r.git#main", ("git@host:o/r.git", "main", "")),
    ],
)
def test_git_addresses(remote: str, expected: tuple[str, str, str]) -> None:
    assert is_git(remote)
    assert parse_remote(remote) == expected


def test_what_git_would_take_for_an_option_is_refused() -> None:
    assert not is_git("https://host/context.tar.gz") and not is_git("--upload-pack=x")
    for remote in ("https://host/r.git#--upload-pack=x", "-x#y"):
        with pytest.raises(InvalidParameter, match="invalid git address"):
            parse_remote(remote)


def test_urls() -> None:
    assert is_url("HTTP://a/b") and is_url("https://a") and not is_url("ftp://a") and not is_url("http:/a")
    names = [url_file_name(url) for url in ("http://a/b%20c.tgz?x=/y", "http://a/", "http://a/b/")]
    assert names == ["b c.tgz", "", ""]


def test_credentials_are_those_of_the_images_registry() -> None:
    known = {"https://index.docker.io/v1/": {"username": "hub"}, "reg:5000": {"username": "own"}}

    def user(name: str) -> str:
        text = registry_auth(name, known)
        return json.loads(base64.urlsafe_b64decode(text))["username"] if text else ""

    assert [user(name) for name in ("hello", "o/r:1", "reg:5000/a", "other.io/a", "!")] == [
        "hub",
        "hub",
        "own",
        "",
        "",
    ]
