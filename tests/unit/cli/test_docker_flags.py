"""Every command and flag of docker 28.2 is one of ours, with effect or refused by name with a reason.

tests/data/docker_cli_flags.json is what the client's own help texts say; scripts/docker_cli_flags.py writes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from cli.main import main, root
from cli.registry import ELSEWHERE

DATA = Path(__file__).parents[2] / "data/docker_cli_flags.json"
COMMANDS: dict[str, dict[str, Any]] = json.loads(DATA.read_text())["commands"]
# Commands that docker has and we have not: `cli.registry.ELSEWHERE` says what to use.
ABSENT = ("checkpoint", "manifest", "trust")
# Accepted by the parser only to be refused: flag -> a word of the reason that is told.
REFUSED = {
    "start --checkpoint": "frozen",
    "start --checkpoint-dir": "frozen",
    "images --tree": "platform",
    "rmi --platform": "platform",
    "run --use-api-socket": "mount the socket",
}
# Of docker's types of values: those that may be given again.
REPEATED = ("list", "map", "strings", "filter", "mount", "port", "network", "secret", "config", "ulimit")
# The content of a secret may come from stdin, ps has words of its own, and we need to know which volume.
OTHER_USAGE = ("config create", "top", "container top", "volume update")


def find(path: str) -> click.Command | None:
    found: click.Command | None = root
    for word in path.split():
        assert isinstance(found, click.Group), path
        found = found.get_command(click.Context(found), word)
        if found is None:
            return None
    return found


def options(command: click.Command) -> dict[str, click.Option]:
    ours = {name: item for item in command.params if isinstance(item, click.Option) for name in item.opts}
    return ours | {
        name: click.Option(["--help"], is_flag=True)
        for name in command.context_class(command).help_option_names
    }


def test_the_data_is_of_the_version_that_we_follow() -> None:
    assert json.loads(DATA.read_text())["client"].startswith("Docker version 28.2")
    assert len(COMMANDS) > 150
    assert sum(len(verb["flags"]) for verb in COMMANDS.values()) > 900


def ours() -> Iterator[tuple[str, click.Command]]:
    """Docker's commands that are ours as well."""
    for path in COMMANDS:
        if path.split()[:1] and path.split()[0] in ABSENT:
            assert path.split()[0] in ELSEWHERE
            continue
        command = find(path)
        assert command is not None, f"there is no command {path}"
        yield path, command


def differences(path: str, name: str, flag: dict[str, str], option: click.Option | None) -> Iterator[str]:
    if option is None:
        yield f"{path} has no --{name}"
        return
    if flag["short"] and f"-{flag['short']}" not in option.opts:
        yield f"{path} --{name} has no -{flag['short']}"
    if option.is_flag != (flag["type"] == ""):
        yield f"{path} --{name} is a switch for one, and takes a value for the other"
    if flag["type"] in REPEATED and not option.multiple:
        yield f"{path} --{name} may be given several times"


def test_every_command_has_dockers_flags() -> None:
    found = [
        text
        for path, command in ours()
        for name, flag in COMMANDS[path]["flags"].items()
        for text in differences(path, name, flag, options(command).get(f"--{name}"))
    ]
    assert found == []


def test_every_command_has_dockers_aliases() -> None:
    assert [alias for path, _ in ours() for alias in COMMANDS[path]["aliases"] if find(alias) is None] == []


def test_every_command_takes_as_many_arguments() -> None:
    """By the usage line: WORD is one, [WORD] may be left out, WORD... are any number."""
    found = []
    for path, command in ours():
        usage = COMMANDS[path]["usage"].removeprefix("[OPTIONS]").replace(" | ", "|")
        if isinstance(command, click.Group) or path in OTHER_USAGE:
            continue
        arguments = [item for item in command.params if isinstance(item, click.Argument)]
        endless = any(item.nargs == -1 for item in arguments)
        pieces = usage.split()
        least = sum(piece[0] != "[" for piece in pieces)
        needed = sum(item.required for item in arguments)
        if endless != ("..." in usage) or (not endless and (len(arguments), needed) != (len(pieces), least)):
            found.append(f"{path}: {usage}")
    assert found == []


@pytest.mark.parametrize("flag", REFUSED)
def test_what_cannot_be_honoured_is_refused_by_name(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    path, _, name = flag.partition(" ")
    value = [] if COMMANDS[path]["flags"][name[2:]]["type"] == "" else ["x"]
    assert main(["-H", "unix:///nobody", path, name, *value, "y"]) == 125
    told = capsys.readouterr().err
    assert f"{name} is not supported" in told
    assert REFUSED[flag] in told


def test_no_other_flag_is_refused_by_the_parser() -> None:
    refused = {
        name
        for _, command in ours()
        for name, option in options(command).items()
        if (option.help or "").startswith("Not supported")
    }
    assert refused == {flag.partition(" ")[2] for flag in REFUSED}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_is_not_here_names_what_to_use(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("cli.plugins._FOLDERS", ())
    assert main(["-H", "unix:///nobody", name, "anything", "--flag"]) == 1
    assert f"hint: {ELSEWHERE[name]}" in capsys.readouterr().err
