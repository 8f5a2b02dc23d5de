from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.config import ContainerCreate
from node.api import go_json


class Inner(msgspec.Struct, rename="pascal"):
    size: int = 7
    names: list[str] = []
    notes: dict[str, str] = {}


class Outer(msgspec.Struct, rename="pascal"):
    inner: Inner | None = None
    many: list[Inner] = []
    named: dict[str, Inner] = {}
    words: list[str] | str | None = None
    free: Any = "free"


def decoded(text: str) -> Outer:
    return go_json.decode(text.encode(), Outer)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('{"Inner": {"Size": null, "Names": null}}', Outer(inner=Inner())),
        ('{"Inner": null, "Many": null, "Words": null}', Outer()),
        ('{"Many": [{"Size": null}, null]}', Outer(many=[Inner(), Inner()])),
        ('{"Named": {"a": {"size": 1}, "b": null}}', Outer(named={"a": Inner(size=1), "b": Inner()})),
        ('{"inner": {"SIZE": 3}}', Outer(inner=Inner(size=3))),
        ('{"Words": ["a", "b"], "Free": null}', Outer(words=["a", "b"], free=None)),
        ('{"Words": "a b", "Free": {"Inner": null}}', Outer(words="a b", free={"Inner": None})),
        ('{"Unknown": {"x": 1}, "unknown2": null}', Outer()),
    ],
)
def test_null_and_case_as_go_reads_them(text: str, wanted: Outer) -> None:
    assert decoded(text) == wanted


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"Inner": {"Size": "3"}}', r"\$\.Inner\.Size"),
        ('{"Many": [{}, {"Names": [5]}]}', r"\$\.Many\[1\]\.Names\[0\]"),
        ('{"Inner": {"Names": [null]}}', r"\$\.Inner\.Names\[0\]"),
        ('{"Inner": []}', r"\$\.Inner"),
        ("[]", "object"),
    ],
)
def test_a_wrong_type_is_named_with_its_place(text: str, place: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=place):
        decoded(text)


def test_what_is_no_json_is_no_wrong_type() -> None:
    with pytest.raises(msgspec.DecodeError) as raised:
        decoded("{")
    assert not isinstance(raised.value, msgspec.ValidationError)


def test_a_body_of_compose_1_with_null_for_what_it_does_not_set() -> None:
    body = b'{"Image": "x", "Healthcheck": {"Test": ["CMD", "a"], "Timeout": null}, "ExposedPorts": {"80/tcp": null}}'
    read = go_json.decode(body, ContainerCreate)
    assert read.healthcheck is not None
    assert (read.healthcheck.timeout, read.exposed_ports) == (0, {"80/tcp": {}})
