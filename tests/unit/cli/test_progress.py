"""What pulls and pushes print, and on which line."""

from __future__ import annotations

import io

import pytest

from cli import progress
from cli.commands.distribution import full_name, split_name
from cli.errors import CliError
from cli.progress import show_progress

STEPS = [
    {"status": "Pulling from a", "id": "1"},
    {"status": "Pulling fs layer", "id": "aa"},
    {"status": "Pulling fs layer", "id": "bb"},
    {"status": "Downloading", "id": "aa", "progress": "[=>  ]  1kB/2kB"},
    {"status": "Download complete", "id": "aa"},
    {"progressDetail": {}, "aux": {"Tag": "1"}},
    {"status": "Status: done"},
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 99


def test_without_a_terminal_there_are_no_bars() -> None:
    out = io.StringIO()
    show_progress(STEPS, out)
    assert out.getvalue().splitlines() == [
        "1: Pulling from a",
        "aa: Pulling fs layer",
        "bb: Pulling fs layer",
        "aa: Download complete",
        "Status: done",
    ]


@pytest.mark.parametrize(("columns", "bar"), [(150, "[=>  ]  1kB/2kB"), (80, "1kB/2kB")])
def test_on_a_terminal_each_layer_keeps_its_line(
    monkeypatch: pytest.MonkeyPatch, columns: int, bar: str
) -> None:
    monkeypatch.setattr(progress, "window_size", lambda fd: (24, columns))
    out = Terminal()
    show_progress(STEPS, out)
    assert f"\x1b[2A\x1b[2K\raa: Downloading {bar}\x1b[2B\r" in out.getvalue()


def test_an_error_in_the_stream_is_raised() -> None:
    with pytest.raises(CliError, match="no space"):
        show_progress([{"errorDetail": {"message": "no space"}, "error": "no space"}], io.StringIO())


@pytest.mark.parametrize(
    ("text", "split", "full"),
    [
        ("hello", ("hello", ""), "docker.io/library/hello"),
        ("me/hello:1", ("me/hello", "1"), "docker.io/me/hello"),
        ("localhost:5000/a", ("localhost:5000/a", ""), "localhost:5000/a"),
        ("reg.example:5000/a:1", ("reg.example:5000/a", "1"), "reg.example:5000/a"),
        ("hello@sha256:1", ("hello", "sha256:1"), "docker.io/library/hello"),
        ("hello:1@sha256:1", ("hello", "sha256:1"), "docker.io/library/hello"),
    ],
)
def test_names(text: str, split: tuple[str, str], full: str) -> None:
    assert split_name(text) == split
    assert full_name(split[0]) == full
