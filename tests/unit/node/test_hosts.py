"""Where the API is served, and the sockets that systemd hands over."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from node.hosts import HandedOver, Host, InvalidHost, TcpHost, UnixHost, chosen, handed_over, parse_host

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("unix:///run/x.sock", UnixHost(Path("/run/x.sock"))),
        ("tcp://", TcpHost("localhost", 2375)),
        ("tcp://:5", TcpHost("localhost", 5)),
        ("tcp://0.0.0.0", TcpHost("0.0.0.0", 2375)),
        ("tcp://name:2376/", TcpHost("name", 2376)),
        ("tcp://[::1]", TcpHost("::1", 2375)),
        ("tcp://[::1]:7", TcpHost("::1", 7)),
        ("fd://", HandedOver()),
        ("fd://*", HandedOver()),
        ("fd://api", HandedOver("api")),
    ],
)
def test_where_to_listen(text: str, host: Host) -> None:
    assert parse_host(text) == host
    assert parse_host(str(host)) == host


def test_tls_has_a_port_of_its_own() -> None:
    assert parse_host("tcp://1.2.3.4", tls=True) == TcpHost("1.2.3.4", 2376)


@pytest.mark.parametrize(
    "text",
    [
        *("", "unix://", "unix://run/x.sock", "/run/x.sock", "http://x", "npipe:////./pipe/x", "tcp://a:٣"),
        *("tcp://a:b", "tcp://a:0", "tcp://a:65536", "tcp://::1", "tcp://[::1", "tcp://[::1]x", "tcp://a/b"),
    ],
)
def test_where_nobody_can_listen(text: str) -> None:
    with pytest.raises(InvalidHost, match="--host "):
        parse_host(text)


PROGRAM = """
import os, sys
from node.hosts import chosen, handed_over, HandedOver
environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "api:other", "KEPT": "1"}
found = handed_over(environment)
assert environment == {"KEPT": "1"}, environment
assert not os.get_inheritable(3)
print(len(chosen(HandedOver(), found)), chosen(HandedOver("other"), found)[0].getsockname()[1],
      chosen(HandedOver("3"), found)[0].getsockname()[1])
"""


def test_sockets_of_systemd() -> None:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        ports = [made.getsockname()[1] for made in (first, second)]
        move = f"import os; os.dup2({first.fileno()}, 100); os.dup2({second.fileno()}, 4); os.dup2(100, 3); "
        done = subprocess.run(
            [sys.executable, "-c", move + f"exec({PROGRAM!r})"],
            pass_fds=(first.fileno(), second.fileno()), cwd=ROOT, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert done.stdout.split() == ["2", str(ports[1]), str(ports[0])], done.stderr


def test_sockets_that_were_meant_for_somebody_else() -> None:
    environment = {"LISTEN_PID": str(os.getpid() + 1), "LISTEN_FDS": "1"}
    assert handed_over(environment) == {}
    with pytest.raises(InvalidHost, match="no sockets found via socket activation"):
        chosen(HandedOver(), {})
