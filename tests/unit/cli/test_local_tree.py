"""Packing local files and unpacking what a container sends, which is not trusted."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from cli.errors import CliError
from cli.local_tree import Blocks, pack, unpack


def archive(*members: tuple[str, dict[str, Any]]) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, fields in members:
            info = tarfile.TarInfo(name)
            content = fields.pop("content", b"")
            info.size = len(content)
            for field, value in fields.items():
                setattr(info, field, value)
            tar.addfile(info, io.BytesIO(content))
    buffer.seek(0)
    return buffer


def same(member: str) -> str:
    return member.strip("/")


def test_there_and_back(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "d").mkdir(parents=True)
    (source / "d/file").write_text("content")
    os.link(source / "d/file", source / "same")
    (source / "link").symlink_to("/nowhere")
    (source / "d").chmod(0o500)
    buffer = io.BytesIO()
    pack(str(source), "source", lambda name: name.replace("source", "copy", 1), buffer, follow=False)
    buffer.seek(0)
    unpack(buffer, str(tmp_path), same)
    copy = tmp_path / "copy"
    assert (copy / "d/file").read_text() == "content"
    assert (copy / "same").stat().st_nlink == 2
    assert (copy / "link").readlink() == Path("/nowhere")
    assert copy.joinpath("d").stat().st_mode & 0o777 == 0o500
    assert int((copy / "d/file").stat().st_mtime) == int((source / "d/file").stat().st_mtime)


@pytest.mark.parametrize(
    "members",
    [
        [("../escaped", {"content": b"x"})],
        [("d/../../escaped", {"content": b"x"})],
        [("l", {"type": tarfile.SYMTYPE, "linkname": ".."}), ("l/escaped", {"content": b"x"})],
        [("h", {"type": tarfile.LNKTYPE, "linkname": "../secret"})],
        [
            ("l", {"type": tarfile.SYMTYPE, "linkname": ".."}),
            ("h", {"type": tarfile.LNKTYPE, "linkname": "l/secret"}),
        ],
    ],
    ids=["dots", "dots inside", "through a link", "hard link", "hard link through a link"],
)
def test_nothing_is_written_or_linked_outside(
    tmp_path: Path, members: list[tuple[str, dict[str, Any]]]
) -> None:
    (tmp_path / "secret").write_text("secret")
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(CliError):
        unpack(archive(*[(name, dict(fields)) for name, fields in members]), str(inside), same)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["inside", "secret"]
    assert (tmp_path / "secret").stat().st_nlink == 1


def test_a_file_does_not_replace_a_folder_nor_write_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("as before")
    inside = tmp_path / "inside"
    (inside / "d").mkdir(parents=True)
    (inside / "f").symlink_to("../victim")
    unpack(archive(("f", {"content": b"new"})), str(inside), same)
    assert (tmp_path / "victim").read_text() == "as before"
    assert (inside / "f").read_text() == "new"
    with pytest.raises(CliError, match="cannot overwrite directory"):
        unpack(archive(("d", {"content": b"x"})), str(inside), same)


def test_blocks_are_a_file_and_are_counted() -> None:
    seen: list[int] = []
    blocks = Blocks([b"ab", b"", b"cde"], seen.append)
    assert io.BufferedReader(blocks, 4).read() == b"abcde"
    assert (blocks.count, seen[-1]) == (5, 5)
