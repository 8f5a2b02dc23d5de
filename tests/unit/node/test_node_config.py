from __future__ import annotations

import socket
from pathlib import Path

import pytest

from node.config import ConfigError, NodeConfig, split_host_port
from node.hosts import UnixHost


def test_names_and_sockets_that_were_not_given() -> None:
    plain = NodeConfig(run_dir=Path("/run/x"))
    socket_of_run_dir = (UnixHost(Path("/run/x/swarmd.sock")),)
    assert (plain.name, plain.api_hosts) == (socket.gethostname(), socket_of_run_dir)
    hosts = (UnixHost(Path("/a")), UnixHost(Path("/b")))
    chosen = NodeConfig(hostname="n1", hosts=hosts)
    assert (chosen.name, chosen.api_hosts) == ("n1", hosts)


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
