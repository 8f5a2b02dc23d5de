"""Which URLs a name leads to, and how much they are trusted."""

from __future__ import annotations

import pytest

from engine.errors import InvalidParameter
from engine.registry.endpoints import Endpoint, account_domain, endpoints, is_insecure
from engine.registry.settings import RegistrySettings

SETTINGS = RegistrySettings(
    mirrors=("https://mirror.example/", "http://10.1.2.3:5000"),
    insecure_registries=("10.0.0.0/8", "old.example:5000"),
)


def test_the_hub_and_its_mirrors() -> None:
    assert endpoints("docker.io", SETTINGS) == [
        Endpoint("https://mirror.example", is_mirror=True),
        Endpoint("http://10.1.2.3:5000", verify=False, is_mirror=True),
        Endpoint("https://registry-1.docker.io"),
    ]
    assert endpoints("docker.io", SETTINGS, push=True) == [Endpoint("https://registry-1.docker.io")]


def test_http_is_tried_only_where_it_may_be() -> None:
    assert endpoints("reg.example", SETTINGS) == [Endpoint("https://reg.example")]
    assert [way.url for way in endpoints("old.example:5000", SETTINGS)] == [
        "https://old.example:5000",
        "http://old.example:5000",
    ]


@pytest.mark.parametrize(
    ("domain", "insecure"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("[::1]:5000", True),
        ("10.200.0.1", True),
        ("11.0.0.1:5000", False),
        ("old.example", False),
        ("old.example:5000", True),
    ],
)
def test_insecure_registries(domain: str, insecure: bool) -> None:
    assert is_insecure(domain, SETTINGS) is insecure


def test_a_bad_mirror_is_named() -> None:
    with pytest.raises(InvalidParameter, match="invalid registry mirror 'mirror'"):
        endpoints("docker.io", RegistrySettings(mirrors=("mirror",)))


@pytest.mark.parametrize(
    ("server", "domain"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("", "docker.io"),
        ("reg.example:5000", "reg.example:5000"),
        ("https://reg.example/v2/", "reg.example"),
    ],
)
def test_the_domain_of_an_account(server: str, domain: str) -> None:
    assert account_domain(server) == domain
