from __future__ import annotations

import socket
from pathlib import Path

import pytest

from node.config import ConfigError, NodeConfig, parse_host, split_host_port


def test_names_and_sockets_that_were_not_given() -> None:
    plain = NodeConfig(run_dir=Path("/run/x"))
    assert (plain.name, plain.api_sockets) == (socket.gethostname(), (Path("/run/x/swarmd.sock"),))
    chosen = NodeConfig(hostname="n1", sockets=(Path("/a"), Path("/b")))
    assert (chosen.name, chosen.api_sockets) == ("n1", (Path("/a"), Path("/b")))


def test_where_to_listen() -> None:
    assert parse_host("unix:///run/x.sock") == Path("/run/x.sock")


@pytest.mark.parametrize("text", ["", "unix://", "unix://run/x.sock", "tcp://0.0.0.0:2375", "/run/x.sock"])
def test_where_nobody_can_listen(text: str) -> None:
    with pytest.raises(ConfigError, match="only unix:///absolute/path is supported"):
        parse_host(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1", ("10.0.0.1", 2377)),
        ("10.0.0.1:5", ("10.0.0.1", 5)),
        ("10.0.0.1:65535", ("10.0.0.1", 65535)),
        ("[::1]:5", ("::1", 5)),
        ("[fd00:0::1]", ("fd00::1", 2377)),
        ("fd00::1", ("fd00::1", 2377)),
    ],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert split_host_port(text, 2377) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "eth0",
        "10.0.0.1:0",
        "10.0.0.1:65536",
        "10.0.0.1:x",
        "10.0.0.1:-5",
        "[10.0.0]:5",
        "[::1]5x",
        "[::1",
        "10.0.0.1:٣",
        ":5",
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigError, match="invalid address"):
        split_host_port(text, 2377)
