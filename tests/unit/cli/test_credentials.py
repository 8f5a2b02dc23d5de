"""Accounts in docker's own file and in credential helpers."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path

import pytest

from cli import credentials
from cli.errors import CliError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path


def write(folder: Path, config: object) -> None:
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("image", "server"),
    [
        ("hello", credentials.HUB),
        ("me/hello", credentials.HUB),
        ("docker.io/me/hello", credentials.HUB),
        ("localhost/hello", "localhost"),
        ("reg.example:5000/a/b:1", "reg.example:5000"),
    ],
)
def test_the_server_of_an_image(image: str, server: str) -> None:
    assert credentials.server_of(image) == server


def test_what_docker_wrote_is_read(folder: Path) -> None:
    pair = base64.b64encode(b"anna:ge:heim").decode()
    write(
        folder,
        {
            "auths": {
                "reg.example": {"auth": pair},
                "https://old.example/v1/": {"auth": pair, "identitytoken": "t"},
            }
        },
    )
    expected = {"username": "anna", "password": "ge:heim"}
    assert credentials.find("reg.example") == {**expected, "serveraddress": "reg.example"}
    assert credentials.find("old.example") == {
        **expected,
        "identitytoken": "t",
        "serveraddress": "old.example",
    }
    assert credentials.find("other.example") is None


def test_storing_keeps_the_rest_of_the_file_and_hides_it(folder: Path) -> None:
    write(folder, {"HttpHeaders": {"X": "y"}, "auths": {"a.example": {"auth": "eA=="}}})
    assert credentials.store("reg.example", {"username": "anna", "password": "geheim"})
    kept = json.loads((folder / "config.json").read_text())
    assert kept["HttpHeaders"] == {"X": "y"}
    assert kept["auths"] == {
        "a.example": {"auth": "eA=="},
        "reg.example": {"auth": base64.b64encode(b"anna:geheim").decode()},
    }
    assert stat.S_IMODE((folder / "config.json").stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    assert credentials.erase("reg.example") and not credentials.erase("reg.example")
    assert credentials.find("reg.example") is None


def test_a_file_that_is_damaged_is_not_written_over(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(CliError, match="cannot read"):
        credentials.store("reg.example", {"username": "a", "password": "b"})
    assert (folder / "config.json").read_text() == "{"


HELPER = """#!/bin/sh
server=$(cat)
case $1 in
get) if [ "$server" = reg.example ]; then echo '{"ServerURL":"x","Username":"anna","Secret":"geheim"}';
     elif [ "$server" = token.example ]; then echo '{"Username":"<token>","Secret":"t0"}';
     else echo "credentials not found in native keychain"; exit 1; fi ;;
*) echo "$1 $server" >> "$(dirname "$0")/log" ;;
esac
"""


def test_helpers_are_asked_and_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "docker-credential-safe"
    program.write_text(HELPER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    write(folder, {"credsStore": "safe", "credHelpers": {"gone.example": "gone"}})
    assert credentials.find("reg.example") == {
        "username": "anna",
        "password": "geheim",
        "serveraddress": "reg.example",
    }
    assert credentials.find("token.example") == {"identitytoken": "t0", "serveraddress": "token.example"}
    assert credentials.find("nobody.example") is None
    with pytest.raises(CliError, match="docker-credential-gone get"):
        credentials.find("gone.example")
    assert not credentials.store("reg.example", {"username": "anna", "password": "neu"})
    credentials.erase("reg.example")
    log = (folder / "log").read_text().splitlines()
    assert json.loads(log[0].removeprefix("store ")) == {
        "ServerURL": "reg.example",
        "Username": "anna",
        "Secret": "neu",
    }
    assert log[1] == "erase reg.example"
    assert "neu" not in (folder / "config.json").read_text()


def test_the_header_of_a_call(folder: Path) -> None:
    write(folder, {"auths": {"reg.example": {"auth": base64.b64encode(b"anna:geheim").decode()}}})
    value = credentials.auth_headers("reg.example/a:1")["X-Registry-Auth"]
    assert json.loads(base64.urlsafe_b64decode(value))["password"] == "geheim"
    assert base64.urlsafe_b64decode(credentials.auth_headers("hello")["X-Registry-Auth"]) == b"{}"
