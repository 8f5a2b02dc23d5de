from __future__ import annotations

import signal

import pytest

from engine.errors import InvalidParameter
from engine.signals import parse_signal


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("SIGTERM", 15),
        ("term", 15),
        ("sigkill", 9),
        ("15", 15),
        ("64", 64),
        ("CHLD", signal.SIGCHLD),
        ("SIGRTMIN", signal.SIGRTMIN),
        ("RTMIN+3", signal.SIGRTMIN + 3),
        ("SIGRTMAX-1", signal.SIGRTMAX - 1),
        ("RTMAX-0", signal.SIGRTMAX),
    ],
)
def test_signals(text: str, number: int) -> None:
    assert parse_signal(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "65",
        "-9",
        "SIG",
        "SIGSIGTERM",
        "TERM+1",
        "RTMIN+99",
        "RTMIN+",
        "RTMAX-99",
        "RTMIN-1",
        "_BLOCK",
        "٩",
        "DFL",
    ],
)
def test_no_signals(text: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid signal"):
        parse_signal(text)
