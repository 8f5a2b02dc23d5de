"""Packing and unpacking below a root that is not trusted; as whoever runs the tests."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import InvalidParameter
from engine.files.extract import Extractor
from engine.files.inside import open_inside
from engine.files.pack import pack_path, pack_tree

ME = (os.getuid(), os.getgid())


def member(name: str, content: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    buffer.seek(0)
    return buffer


class Box:
    """A root with a folder /in; what is outside of it must stay as it is."""

    def __init__(self, folder: Path) -> None:
        self.outside, self.path = folder, folder / "root"
        (self.path / "in").mkdir(parents=True)
        (folder / "secret").write_text("secret")
        self.root = os.open(self.path, os.O_PATH)

    def extract(self, data: io.BytesIO, *, keeps_kinds: bool = False) -> None:
        folder = open_inside(self.root, "/in", os.O_PATH)
        try:
            Extractor(self.root, folder, "/in", keeps_kinds=keeps_kinds, owner=ME).extract(data)
        finally:
            os.close(folder)

    def packed(self, path: str) -> tarfile.TarFile:
        buffer = io.BytesIO()
        pack_path(self.root, path, buffer)
        buffer.seek(0)
        return tarfile.open(fileobj=buffer)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    os.close(made.root)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["root", "secret"]
    assert (tmp_path / "secret").read_text() == "secret"
    assert (tmp_path / "secret").stat().st_nlink == 1


def test_an_archive_is_unpacked_with_times_and_modes(box: Box) -> None:
    box.extract(
        archive(
            member("d", type=tarfile.DIRTYPE, mode=0o750, mtime=1000),
            member("d/f", b"content", mode=0o640, mtime=2000),
            member("d/same", type=tarfile.LNKTYPE, linkname="d/f"),
            member("left/out/f", b"x"),
        )
    )
    status = (box.path / "in/d/f").stat()
    assert (status.st_mode & 0o777, status.st_mtime, status.st_nlink) == (0o640, 2000, 2)
    assert (box.path / "in/d").stat().st_mtime == 1000
    assert (box.path / "in/left/out/f").read_bytes() == b"x"


@pytest.mark.parametrize(
    "members",
    [
        [("../secret", {"content": b"x"})],
        [("a/../../../secret", {"content": b"x"})],
        [("h", {"type": tarfile.LNKTYPE, "linkname": "../../secret"})],
        [("h", {"type": tarfile.LNKTYPE, "linkname": "nosuch"})],
        [("h", {"type": tarfile.LNKTYPE, "linkname": "."})],
        [("f", {"content": b"x"}), ("f/below", {"content": b"x"})],
        [("x", {"type": b"Z"})],
        [("n" * 300, {"content": b"x"})],
        [("/".join("d" * 3000), {"content": b"x"})],
        [("t", {"content": b"x", "pax_headers": {"mtime": "nan"}})],
        [("o", {"type": tarfile.CHRTYPE, "devmajor": 0o7777777, "devminor": 0o7777777})],
        [("s", {"content": b"x", "pax_headers": {"SCHILY.xattr.trusted.overlay.opaque": "y"}})],
        [("s\0x", {"content": b"x", "pax_headers": {"path": "s\0x"}})],
    ],
)
def test_what_is_wrong_with_an_archive_is_its_fault(
    box: Box, members: list[tuple[str, dict[str, Any]]]
) -> None:
    with pytest.raises(InvalidParameter, match="archive"):
        box.extract(archive(*(member(name, **fields) for name, fields in members)))


def test_links_that_are_planted_lead_into_the_root(box: Box) -> None:
    box.extract(
        archive(
            member("up", type=tarfile.SYMTYPE, linkname="../../../.."),
            member("up/secret", b"inner"),
            member("abs", type=tarfile.SYMTYPE, linkname="/"),
            member("abs/other", b"inner"),
        )
    )
    assert (box.path / "secret").read_text() == (box.path / "other").read_text() == "inner"


def test_a_file_and_a_folder_replace_each_other_only_when_they_may(box: Box) -> None:
    (box.path / "in/d").mkdir()
    (box.path / "in/f").touch()
    with pytest.raises(InvalidParameter, match='cannot overwrite directory "/in/d" with non-directory "/in"'):
        box.extract(archive(member("d", b"x")), keeps_kinds=True)
    with pytest.raises(InvalidParameter, match='cannot overwrite non-directory "/in/f" with directory "/in"'):
        box.extract(archive(member("f", type=tarfile.DIRTYPE)), keeps_kinds=True)
    box.extract(archive(member("d", b"x"), member("f", type=tarfile.DIRTYPE, mode=0o755)))
    assert (box.path / "in/d").is_file() and (box.path / "in/f").is_dir()


@pytest.mark.parametrize("cut", [600, 1100])
def test_an_archive_that_ends_early_is_told(box: Box, cut: int) -> None:
    data = archive(member("a", b"x" * 600), member("b", b"x" * 600)).getvalue()
    with pytest.raises(InvalidParameter, match="not a valid tar archive"):
        box.extract(io.BytesIO(data[:cut]))


def test_rubbish_in_the_middle_is_not_taken_for_the_end(box: Box) -> None:
    data = bytearray(archive(member("a", b"x"), member("b", b"x")).getvalue())
    data[1024 + 148] ^= 0xFF
    with pytest.raises(InvalidParameter, match="bad header"):
        box.extract(io.BytesIO(bytes(data)))


def test_a_header_that_wants_all_memory_is_refused(box: Box) -> None:
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
        info, _ = member("h", type=kind)
        info.size = 1 << 33
        with pytest.raises(InvalidParameter, match="extended header"):
            box.extract(io.BytesIO(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096)))


def test_a_tree_is_packed_under_its_own_name(box: Box) -> None:
    folder = box.path / "in"
    (folder / "f").write_bytes(b"content")
    os.link(folder / "f", folder / "same")
    (folder / "out").symlink_to("../../secret")
    os.mkfifo(folder / "pipe")
    with box.packed("/in") as tar:
        assert tar.getnames() == ["in", "in/f", "in/out", "in/pipe", "in/same"]
        assert tar.getmember("in/same").islnk() and tar.getmember("in/same").linkname == "in/f"
        assert tar.getmember("in/out").linkname == "../../secret"
    with box.packed("/in/.") as tar:
        assert tar.getnames()[:2] == [".", "./f"]
    with box.packed("/") as tar:
        assert tar.getnames()[:3] == ["", "/in", "/in/f"]
    with box.packed("/in/out") as tar:
        assert [info.type for info in tar] == [tarfile.SYMTYPE]
    buffer = io.BytesIO()
    pack_tree(box.root, buffer)
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as tar:
        assert tar.getnames()[:2] == ["in", "in/f"]


def test_a_tree_deeper_than_our_stack_is_packed(box: Box) -> None:
    here = os.open(box.path / "in", os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    try:
        with box.packed("/in") as tar:
            assert len(tar.getnames()) == 1201
    finally:
        os.system(f"rm -rf '{box.path}/in'")


def test_a_file_that_shrinks_while_it_is_packed_keeps_the_archive_whole(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = box.path / "in/f"
    path.write_bytes(b"x" * 100_000)
    opened = os.fdopen

    def shrinking(descriptor: int, *arguments: Any, **options: Any) -> Any:
        path.write_bytes(b"y")
        return opened(descriptor, *arguments, **options)

    monkeypatch.setattr("engine.files.pack.os.fdopen", shrinking)
    with box.packed("/in") as tar:
        content = tar.extractfile("in/f")
        assert content is not None and content.read() == b"y".ljust(100_000, b"\0")
