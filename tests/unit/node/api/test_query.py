from __future__ import annotations

import json
import urllib.parse
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from engine.config import ContainerCreate, ExecConfig
from engine.errors import InvalidParameter
from node.api.query import decode, filters, flag, moment, number, terminal_size


def asked(**parameters: str) -> web.Request:
    return make_mocked_request("GET", f"/x?{urllib.parse.urlencode(parameters)}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", True), ("true", True), ("True", True), ("0", False), ("false", False), ("", False)],
)
def test_flags(text: str, expected: bool) -> None:
    assert flag(asked(all=text), "all") is expected
    assert flag(asked(), "all", default=expected) is expected


def test_numbers() -> None:
    assert number(asked(n="-5"), "n", 7) == -5
    assert number(asked(n=""), "n", 7) == number(asked(), "n", 7) == 7
    with pytest.raises(InvalidParameter, match='query parameter n: "many" is not a number'):
        number(asked(n="many"), "n", 7)


def test_sizes_of_terminals() -> None:
    assert terminal_size(asked(h="24", w="80")) == (24, 80)
    for wrong in ({"h": "65536"}, {"w": "-1"}, {"h": "9" * 18}):
        with pytest.raises(InvalidParameter, match="from 0 to 65535"):
            terminal_size(asked(**wrong))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"name": ["a", "b"]}, {"name": ["a", "b"]}),
        ({"name": {"a": True, "b": False}}, {"name": ["a"]}),
        ({}, {}),
    ],
)
def test_filters_come_in_two_forms(value: Any, expected: dict[str, list[str]]) -> None:
    assert filters(asked(filters=json.dumps(value))) == expected
    assert filters(asked()) == {}


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"name": "a"}', '{"name": [1]}', '{"name": null}'])
def test_filters_of_another_form(text: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid filter"):
        filters(asked(filters=text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0.0),
        ("0", 0.0),
        ("1700000000", 1_700_000_000.0),
        ("1700000000.25", 1_700_000_000.25),
        ("2023-11-14T22:13:20Z", 1_700_000_000.0),
        ("2023-11-14T23:13:20.5+01:00", 1_700_000_000.5),
    ],
)
def test_times(text: str, expected: float) -> None:
    assert moment(asked(since=text), "since") == expected
    assert moment(asked(), "since") == 0.0


def test_what_is_no_time() -> None:
    with pytest.raises(InvalidParameter, match="invalid value for \"since\": 'yesterday' is no time"):
        moment(asked(since="yesterday"), "since")


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"Cmd": 5}, r"\$\.Cmd"),
        ({"HostConfig": {"Memory": "1g"}}, r"\$\.HostConfig\.Memory"),
        ({"Env": ["A=1", None]}, r"\$\.Env\[\.\.\.\]|\$\.Env\[1\]"),
        ([], "Expected `object`"),
    ],
)
def test_a_wrong_type_is_named(data: Any, field: str) -> None:
    with pytest.raises(InvalidParameter, match=field):
        decode(json.dumps(data).encode(), ContainerCreate)


def test_a_body_as_clients_send_it() -> None:
    body = decode(b'{"Cmd": "sh", "Entrypoint": null, "Unknown": {"x": 1}, "Tty": true}', ContainerCreate)
    assert (body.cmd, body.entrypoint, body.tty) == ("sh", None, True)
    with pytest.raises(InvalidParameter, match="invalid JSON"):
        decode(b'{"Cmd": [', ExecConfig)


@pytest.mark.parametrize("data", [b"{", b'"\xff"', b"[" * 100_000, b"nonsense"])
def test_what_is_no_json_is_a_bad_request(data: bytes) -> None:
    with pytest.raises(InvalidParameter, match="invalid JSON"):
        decode(data, object)
