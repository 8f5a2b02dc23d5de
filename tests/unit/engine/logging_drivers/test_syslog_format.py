"""Syslog messages as bytes, and where they go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.logging_drivers.message import Source
from engine.logging_drivers.syslog import SyslogFormat, SyslogTarget

NOW = 1_767_323_045_123_456_789  # 2026-01-02T03:04:05.123456789Z
SOURCE = Source(
    container_id="c" * 64, container_name="web", image_name="shop/web:1", tag="web/1", attributes={}
)


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("options", "stream", "message"),
    [
        ({}, 1, b"<30>Jan  2 03:04:05 web/1[7]: a line\n"),
        ({}, 2, b"<27>Jan  2 03:04:05 web/1[7]: a line\n"),
        ({"syslog-format": "rfc3164"}, 1, b"<30>Jan  2 03:04:05 host1 web/1[7]: a line\n"),
        (
            {"syslog-format": "rfc5424", "syslog-facility": "local7"},
            2,
            b"<187>1 2026-01-02T03:04:05+00:00 host1 web/1 7 web/1 - a line\n",
        ),
        (
            {"syslog-format": "rfc5424micro", "syslog-facility": "0"},
            1,
            b"<6>1 2026-01-02T03:04:05.123456+00:00 host1 web/1 7 web/1 - a line\n",
        ),
        (
            {"syslog-format": "rfc5424", "syslog-address": "tcp+tls://logs:6514"},
            1,
            b"61 <30>1 2026-01-02T03:04:05+00:00 host1 web/1 7 web/1 - a line\n",
        ),
    ],
)
def test_a_line_becomes_a_message(options: dict[str, str], stream: int, message: bytes) -> None:
    form = SyslogFormat(SyslogTarget.parse(options), SOURCE, "host1", 7)
    assert form.message(stream, NOW, b"a line\n") == message


def test_a_line_without_an_end_and_one_with_a_return_are_messages_too() -> None:
    form = SyslogFormat(SyslogTarget(), SOURCE, "host1", 7)
    assert form.message(1, NOW, b"part").endswith(b": part\n")
    assert form.message(1, NOW, b"dos\r\n").endswith(b": dos\n")


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("", "the syslog of this host"),
        ("udp://10.0.0.1", "udp://10.0.0.1:514"),
        ("tcp://logs:1514", "tcp://logs:1514"),
        ("tcp+tls://[fd00::1]:6514", "tcp+tls://fd00::1:6514"),
    ],
)
def test_addresses(address: str, shown: str) -> None:
    assert SyslogTarget.parse({"syslog-address": address}).shown == shown


def test_a_socket_has_to_be_there(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    assert SyslogTarget.parse({"syslog-address": f"unixgram://{tmp_path}/log"}).path == f"{tmp_path}/log"
