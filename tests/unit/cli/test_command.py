"""The registry, the help, and what wrong command lines answer."""

from __future__ import annotations

from typing import Any

import click
import pytest

from cli.command import Command, load
from cli.main import main, root
from cli.registry import SECTIONS, Entry, Noun

ENTRIES = [
    (prefix, entry)
    for _, members in SECTIONS
    for member in members
    for prefix, entries in [(member.name, member.verbs) if isinstance(member, Noun) else ("", (member,))]
    for entry in entries
]


@pytest.mark.parametrize(
    ("noun", "entry"), ENTRIES, ids=[f"{noun} {entry.name}".strip() for noun, entry in ENTRIES]
)
def test_every_command_loads_and_has_help(
    noun: str, entry: Entry, capsys: pytest.CaptureFixture[str]
) -> None:
    command = load(entry.target)
    if noun != "lab":  # its help is node.lab's
        words = [noun, entry.name, "--help"] if noun else [entry.name, "--help"]
        assert main(words) == 0
        out = capsys.readouterr().out
        assert out.startswith(f"Usage: swarmctl {' '.join(words[:-1])}")
        assert (command.help or "").strip().splitlines()[0] in out


def test_help_shows_the_sections_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    positions = [out.index(f"\n{title}:") for title, _ in SECTIONS]
    assert positions == sorted(positions)


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["pss"], 1, 'did you mean "ps"'),
        (["service", "sl"], 1, "unknown command: swarmctl service sl"),
        (["ps", "--nonsense"], 125, "--nonsense"),
        (["ps", "--last", "x"], 125, "--last"),
        (["rm"], 1, "'swarmctl rm' requires at least 1 argument"),
        (["run", "--memory", "12x", "image"], 125, "'12x'"),
        (["run"], 1, "'swarmctl run' requires at least 1 argument"),
        (["service", "create", "--limit-memory", "much", "image"], 125, "'much'"),
        (["service", "scale", "web"], 1, "invalid scale specifier 'web'"),
        (["service", "scale", "web=many"], 1, "invalid replicas value many"),
        (["-H", "nonsense", "ps"], 1, 'invalid daemon address "nonsense"'),
        (["inspect", "--type", "planet", "x"], 1, '"planet"'),
    ],
)
def test_wrong_command_lines(
    words: list[str],
    status: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SWARMCTL_HOST", "unix:///nonexistent/socket")
    assert main(words) == status
    assert message in capsys.readouterr().err


def test_no_daemon(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARMCTL_HOST", "unix:///nonexistent/socket")
    assert main(["ps"]) == 1
    err = capsys.readouterr().err
    assert (
        "Cannot connect to the Docker daemon at unix:///nonexistent/socket. Is the docker daemon running?"
        in err
    )
    assert "hint: " in err


def _parsed(words: list[str], **settings: Any) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    @click.command(cls=Command, context_settings=settings)
    @click.option("-t", "--tty", is_flag=True, default=None)
    @click.option("-i", "--interactive", is_flag=True)
    @click.option("-e", "--env", multiple=True)
    @click.argument("words", nargs=-1, type=click.UNPROCESSED)
    def command(**values: Any) -> None:
        seen.update(values)

    command.main(words, standalone_mode=False)
    return seen


def test_flags_take_values_as_dockers_do() -> None:
    assert _parsed(["--tty=true"])["tty"] is True
    assert _parsed(["--tty=false"])["tty"] is False
    assert _parsed([])["tty"] is None
    assert _parsed(["-ite", "A=--tty=false", "--interactive=0"]) == {
        "tty": True,
        "interactive": False,
        "env": ("A=--tty=false",),
        "words": (),
    }
    assert _parsed(["image", "--tty=false"], allow_interspersed_args=False)["words"] == (
        "image",
        "--tty=false",
    )


def test_completion_knows_the_verbs() -> None:
    from click.shell_completion import ShellComplete

    complete = ShellComplete(root, {}, "swarmctl", "_SWARMCTL_COMPLETE")
    assert "create" in [item.value for item in complete.get_completions(["service"], "cr")]
    assert "--replicas" in [item.value for item in complete.get_completions(["service", "create"], "--repl")]
