"""`swarmctl cluster`: the file that is written, where passphrases come from, texts and exit statuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_client import Server

from cli.main import main
from cli.passphrase import VARIABLE

ABOUT = {
    "SwarmctlVersion": "0.1.0",
    "ClusterID": "c1",
    "NodeID": "n1",
    "Addr": "10.0.0.1:2377",
    "Index": 42,
    "Term": 3,
    "MadeAt": "2026-01-02T03:04:05Z",
    "Managers": [{"NodeID": "n1", "Addr": "10.0.0.1:2377"}, {"NodeID": "n2", "Addr": "10.0.0.2:2377"}],
    "Counts": {"node": 3, "service": 1, "task": 0},
}
FOUNDING: dict[str, Any] = {
    "DryRun": True,
    "Backup": ABOUT,
    "ClusterID": "c1",
    "NodeID": "new",
    "Addr": "10.0.0.1:2377",
    "Index": 1_000_000_042,
    "Services": 1,
    "FormerNodes": [
        {"NodeID": "n1", "Hostname": "one", "Addr": "10.0.0.1:2377", "State": "down"},
        {"NodeID": "n2", "Hostname": "", "Addr": "10.0.0.2:2377", "State": "unknown"},
    ],
    "Warnings": ["the other managers must be off"],
}


def manager(name: str, **changes: object) -> dict[str, Any]:
    return {
        "NodeID": name,
        "Hostname": name,
        "Addr": f"{name}:2377",
        "Reachable": True,
        "Leader": name == "n1",
        "AppliedIndex": 42,
        "Digest": "0123456789ab",
        "Files": [{"Name": "wal-1.log", "Size": 10, "Problem": ""}],
        "Differences": [],
        "Problems": [],
        **changes,
    }


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    running = Server(tmp_path / "s")
    monkeypatch.setenv("SWARMCTL_HOST", running.host)
    monkeypatch.setenv(VARIABLE, "secret")
    yield running
    running.close()


def answer(body: object, status: int = 200) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return b"HTTP/1.1 %d OK\r\nContent-Length: %d\r\n\r\n" % (status, len(data)) + data


def sent(request: bytes) -> tuple[str, bytes]:
    """Path and body of a request."""
    head, _, body = request.partition(b"\r\n\r\n")
    return head.split()[1].decode(), body


def test_a_backup_is_written_read_back_and_shown(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers = [answer(b"the file"), answer(ABOUT)]
    file = tmp_path / "b"
    assert main(["cluster", "backup", str(file)]) == 0
    assert file.read_bytes() == b"the file"
    assert file.stat().st_mode & 0o777 == 0o600
    assert sent(server.requests[0]) == ("/swarmctl/cluster/backup", b'{"Passphrase": "secret"}')
    read_back = b'{"Passphrase": "secret"}\nthe file'
    assert sent(server.requests[1]) == ("/swarmctl/cluster/inspect-backup", read_back)
    out = capsys.readouterr().out
    assert out.splitlines() == [
        f"Backup written and verified: {file} (8B)",
        "Cluster:   c1",
        "Made:      2026-01-02T03:04:05Z by swarmctl 0.1.0 on 10.0.0.1:2377",
        "Log entry: 42 (term 3)",
        "Managers:  10.0.0.1:2377, 10.0.0.2:2377",
        "Holds:     3 nodes, 1 service",
    ]


@pytest.mark.parametrize(
    "answers",
    [
        [answer({"message": "This node is not a swarm manager."}, 503)],
        [answer(b"the file"), answer({"message": "the backup is damaged"}, 400)],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nhalf"],
    ],
    ids=["refused", "damaged on the way", "cut off"],
)
def test_a_backup_that_failed_leaves_what_was_there(
    server: Server, tmp_path: Path, answers: list[bytes | None]
) -> None:
    file = tmp_path / "b"
    file.write_bytes(b"yesterday's")
    server.answers = answers
    assert main(["cluster", "backup", "--force", str(file)]) == 1
    assert file.read_bytes() == b"yesterday's"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "s"]


def test_a_file_that_exists_is_only_replaced_by_force(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "b"
    file.write_bytes(b"yesterday's")
    assert main(["cluster", "backup", str(file)]) == 1
    assert "--force" in capsys.readouterr().err
    assert server.requests == []
    server.answers = [answer(b"today's"), answer(ABOUT)]
    assert main(["cluster", "backup", "-q", "--force", str(file)]) == 0
    assert file.read_bytes() == b"today's"
    assert capsys.readouterr().out == ""
    assert main(["cluster", "backup", "--force", str(tmp_path)]) == 1
    assert main(["cluster", "backup", str(tmp_path / "no" / "b")]) == 1
    assert len(server.requests) == 2


def test_a_backup_goes_to_a_pipe_but_not_to_a_terminal(
    server: Server,
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.answers = [answer(b"\x00the file")]
    assert main(["cluster", "backup", "-"]) == 0
    assert capfdbinary.readouterr().out == b"\x00the file"
    monkeypatch.setattr("cli.commands.cluster.is_terminal", lambda fd: fd == 1)
    assert main(["cluster", "backup", "-"]) == 1
    assert b"not written to a terminal" in capfdbinary.readouterr().err


class Terminal:
    """What the user types, in turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *typed: str) -> None:
        self.typed = list(typed)
        monkeypatch.delenv(VARIABLE, raising=False)
        monkeypatch.setattr("sys.stdin", self)
        monkeypatch.setattr("getpass.getpass", lambda prompt: self.typed.pop(0))

    def isatty(self) -> bool:
        return True


def test_a_new_passphrase_is_typed_twice_an_old_one_once(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "b"
    Terminal(monkeypatch, "one", "other")
    assert main(["cluster", "backup", str(file)]) == 1
    assert "not the same" in capsys.readouterr().err
    Terminal(monkeypatch, "")
    assert main(["cluster", "backup", str(file)]) == 1
    assert "is empty" in capsys.readouterr().err
    server.answers = [answer(b"f"), answer(ABOUT), answer(ABOUT)]
    Terminal(monkeypatch, "same", "same")
    assert main(["cluster", "backup", str(file)]) == 0
    Terminal(monkeypatch, "same")
    assert main(["cluster", "inspect-backup", str(file)]) == 0
    assert all(b'"Passphrase": "same"' in request for request in server.requests)


def test_where_passphrases_come_from(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secret, backup = tmp_path / "p", tmp_path / "b"
    backup.write_bytes(b"f")
    secret.write_bytes(b" with spaces \r\n")
    server.answers = [answer(ABOUT)]
    assert main(["cluster", "inspect-backup", "--passphrase-file", str(secret), str(backup)]) == 0
    assert sent(server.requests[0])[1] == b'{"Passphrase": " with spaces "}\nf'
    for content, named in ((b"\n", "is empty"), (b"\xff", "not UTF-8")):
        secret.write_bytes(content)
        assert main(["cluster", "inspect-backup", "--passphrase-file", str(secret), str(backup)]) == 1
        assert named in capsys.readouterr().err
    monkeypatch.setenv(VARIABLE, "")
    assert main(["cluster", "inspect-backup", str(backup)]) == 1
    assert f"{VARIABLE} is empty" in capsys.readouterr().err
    monkeypatch.delenv(VARIABLE)
    assert main(["cluster", "inspect-backup", str(backup)]) == 1
    assert "--passphrase-file" in capsys.readouterr().err
    assert len(server.requests) == 1


def test_inspection_as_json_and_by_template(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "b"
    file.write_bytes(b"f")
    server.answers = [answer(ABOUT), answer(ABOUT)]
    assert main(["cluster", "inspect-backup", "--format", "json", str(file)]) == 0
    assert json.loads(capsys.readouterr().out) == ABOUT
    assert main(["cluster", "inspect-backup", "--format", "{{.ClusterID}} {{.Index}}", str(file)]) == 0
    assert capsys.readouterr().out == "c1 42\n"
    assert main(["cluster", "inspect-backup", str(tmp_path / "none")]) == 1
    assert "cannot read" in capsys.readouterr().err


def test_a_restore_says_what_it_does(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "b"
    file.write_bytes(b"f")
    server.answers = [
        answer(FOUNDING),
        answer({**FOUNDING, "DryRun": False, "FormerNodes": [], "Warnings": []}),
    ]
    words = ("--dry-run", "--advertise-addr", "10.0.0.1", "--availability", "drain")
    assert main(["cluster", "restore", *words, str(file)]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        "The backup is whole. Cluster c1 would be founded anew:",
        "This node: new at 10.0.0.1:2377, the only manager",
        "State:     of 2026-01-02T03:04:05Z, 1 services; goes on at log entry 1000000042",
        "Formerly:  one (n1, 10.0.0.1:2377) is down, this node replaces it",
        "Formerly:  n2 (n2, 10.0.0.2:2377) becomes a worker if it connects",
    ]
    assert printed.err == "WARNING: the other managers must be off\n"
    line = json.loads(sent(server.requests[0])[1].split(b"\n")[0])
    assert line == {
        "AdvertiseAddr": "10.0.0.1",
        "ListenAddr": "",
        "Availability": "drain",
        "DryRun": True,
        "Passphrase": "secret",
    }
    assert main(["cluster", "restore", str(file)]) == 0
    assert "Cluster c1 is founded anew" in capsys.readouterr().out
    assert main(["cluster", "restore", "--availability", "gone", str(file)]) == 1


BAD = manager("n2", Digest="ffffffffffff", Problems=["secret s1 is missing, on most managers at version 4"])
DOWN = manager("n3", Reachable=False, Digest="", Files=[], Problems=["cannot be examined: refused"])
DAMAGED = manager("n2", Files=[{"Name": "w", "Size": 1, "Problem": "bad"}], Problems=["w: bad"])


@pytest.mark.parametrize(
    ("managers", "problem", "status", "lines"),
    [
        ([manager("n1"), manager("n2")], "", 0, ["States compared at log entry 42: all is well."]),
        ([manager("n1"), BAD], "", 1, ["n2: secret s1 is missing, on most managers at version 4"]),
        ([manager("n1"), DOWN], "", 1, ["n3: cannot be examined: refused"]),
        ([manager("n1"), DAMAGED], "", 1, ["n2: w: bad"]),
        ([manager("n1")], "no leader", 1, ["no leader"]),
    ],
    ids=["well", "different", "down", "damaged", "no leader"],
)
def test_the_status_of_a_check_says_whether_all_is_well(
    server: Server,
    capsys: pytest.CaptureFixture[str],
    managers: list[dict[str, Any]],
    problem: str,
    status: int,
    lines: list[str],
) -> None:
    report = {"Healthy": not status, "Index": 42, "Problem": problem, "Managers": managers}
    server.answers = [answer(report), answer(report)]
    assert main(["cluster", "check"]) == status
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["MANAGER", "STATUS", "APPLIED", "DIGEST", "FILES", "RESULT"]
    assert out[1].split() == ["n1", "Leader", "42", "0123456789ab", "1", "good", "ok"]
    assert set(lines) <= set(out)
    assert ("Not all is well." in out) == bool(status)
    assert main(["cluster", "check", "--json"]) == status
    assert json.loads(capsys.readouterr().out) == report


def test_a_check_shows_every_managers_row(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    report = {"Healthy": False, "Index": 42, "Problem": "", "Managers": [DAMAGED, DOWN]}
    server.answers = [answer(report)]
    assert main(["cluster", "check"]) == 1
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == ["n2", "Reachable", "42", "0123456789ab", "1", "of", "1", "bad", "bad"]
    assert lines[2] == ["n3", "Unreachable", "-", "-", "-", "bad"]
