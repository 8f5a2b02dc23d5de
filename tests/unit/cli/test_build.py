"""What `swarmctl build` sends: the query, and the context without what is left out."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import IO

import pytest

from cli.build_context import pack_folder, pack_stdin
from cli.commands.build import build, build_query
from cli.errors import UsageError


def names(archive: IO[bytes]) -> list[str]:
    with archive, tarfile.open(fileobj=archive) as tar:
        members = tar.getmembers()
    assert {(member.uid, member.gid, member.uname) for member in members} == {(0, 0, "")}
    return sorted(member.name for member in members)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "context"
    (root / "keep/deep").mkdir(parents=True)
    (root / "skip/in").mkdir(parents=True)
    for path in ("Dockerfile", "a.txt", "keep/deep/x", "skip/in/y", "skip/z"):
        (root / path).write_text(path)
    (root / "link").symlink_to("/nowhere")
    return root


def test_everything_is_sent_without_an_ignore_file(folder: Path) -> None:
    archive, dockerfile = pack_folder(folder, "", compress=False)
    sent = [
        "Dockerfile",
        "a.txt",
        "keep",
        "keep/deep",
        "keep/deep/x",
        "link",
        "skip",
        "skip/in",
        "skip/in/y",
        "skip/z",
    ]
    assert (names(archive), dockerfile) == (sent, "Dockerfile")


def test_what_is_ignored_is_not_sent_but_the_daemon_gets_its_files(folder: Path) -> None:
    (folder / ".dockerignore").write_text("*\n!keep\n!skip/in\nkeep/deep\n")
    archive, _ = pack_folder(folder, "", compress=True)
    assert archive.read(2) == b"\x1f\x8b"
    archive.seek(0)
    assert names(archive) == [".dockerignore", "Dockerfile", "keep", "skip/in", "skip/in/y"]


def test_a_dockerfile_from_elsewhere_takes_a_name_that_is_left_out_again(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "Other").write_text("FROM other")
    (folder / ".dockerignore").write_text("skip")
    archive, dockerfile = pack_folder(folder, str(tmp_path / "Other"), compress=False)
    with archive, tarfile.open(fileobj=archive) as tar:
        texts = {name: tar.extractfile(name) for name in (dockerfile, ".dockerignore")}
        assert texts[dockerfile].read() == b"FROM other"  # type: ignore[union-attr]
        assert texts[".dockerignore"].read() == f"skip\n{dockerfile}\n".encode()  # type: ignore[union-attr]
        assert tar.getnames().count(".dockerignore") == 1


def test_a_dockerfile_inside_has_its_name_below_the_context(folder: Path) -> None:
    for given in (str(folder / "keep/deep/x"), "keep/deep/x"):
        archive, dockerfile = pack_folder(folder, given, compress=False)
        archive.close()
        assert dockerfile == "keep/deep/x"


def test_what_cannot_be_read(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UsageError, match="not found"):
        pack_folder(tmp_path / "nosuch", "", compress=False)
    with pytest.raises(UsageError, match="unable to evaluate the Dockerfile path"):
        pack_folder(folder, "/nosuch/Dockerfile", compress=False)


def test_standard_input_is_an_archive_or_a_dockerfile() -> None:
    with pack_stdin(io.BytesIO(b"FROM a\n")) as packed, tarfile.open(fileobj=packed) as tar:
        assert tar.extractfile("Dockerfile").read() == b"FROM a\n"  # type: ignore[union-attr]
        packed.seek(0)
        content = packed.read()
    for whole in (content, b"\x1f\x8bzip"):
        with pack_stdin(io.BytesIO(whole)) as packed:
            assert packed.read() == whole


def test_flags_become_the_query(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_ENV", "e")
    monkeypatch.delenv("UNSET", raising=False)
    words = "-t a -t b --build-arg A=1 --build-arg FROM_ENV --build-arg UNSET --label x=y -m 64m --memory-swap -1 "
    words += (
        "--ulimit nofile=1:2 --add-host db=10.0.0.1 --cache-from c --rm=false --no-cache --network none -"
    )
    query = build_query(build.make_context("build", words.split()).params)
    given = {name: value for name, value in query.items() if value not in (None, "", [], {})}
    assert given == {
        "t": ["a", "b"],
        "nocache": True,
        "rm": False,
        "buildargs": {"A": "1", "FROM_ENV": "e", "UNSET": None},
        "labels": {"x": "y"},
        "cachefrom": '["c"]',
        "networkmode": "none",
        "extrahosts": ["db:10.0.0.1"],
        "memory": 64 << 20,
        "memswap": -1,
        "ulimits": '[{"Name": "nofile", "Soft": 1, "Hard": 2}]',
    }
