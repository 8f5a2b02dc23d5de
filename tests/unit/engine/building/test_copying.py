"""Sources, digests and copies: links stay inside, owners and modes are as asked, touched files are the same."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from engine.building.archives import is_archive, unpack
from engine.building.copying import Manner, copy_sources
from engine.building.sources import digest_of, find_sources, resolve_inside
from engine.errors import InvalidParameter
from tests.images import tar_of

ME = (os.getuid(), os.getgid())
KEPT = Manner(owner=None)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "context"
    (root / "d/e").mkdir(parents=True)
    (root / "d/f").write_text("f")
    (root / "d/e/g").write_text("g")
    (root / "a1").write_text("1")
    (root / "a2").write_text("2")
    (root / "up").symlink_to("../../../etc")
    (root / "absolute").symlink_to("/d")
    (root / "loop").symlink_to("loop")
    return root


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("/d/../a1", "a1"),
        ("absolute/f", "d/f"),
        ("up/passwd", "etc/passwd"),
        ("../../../x", "x"),
        ("./d//e/", "d/e"),
    ],
)
def test_paths_end_inside(tree: Path, path: str, inside: str) -> None:
    assert resolve_inside(tree, path) == tree / inside


def test_a_ring_of_links_is_an_error(tree: Path) -> None:
    with pytest.raises(InvalidParameter, match="too many levels of symbolic links"):
        resolve_inside(tree, "loop/x")


def test_sources(tree: Path) -> None:
    assert [s.name for s in find_sources(tree, "a?", is_context=True)] == ["a1", "a2"]
    assert [s.path for s in find_sources(tree, "*/e/g", is_context=True)] == [tree / "d/e/g"]
    assert find_sources(tree, "nosuch*", is_context=True) == []
    (whole,) = find_sources(tree, ".", is_context=True)
    assert whole.path == tree and whole.is_directory
    for pattern, words in (
        ("../x", "outside the build context"),
        ("nosuch", "stat nosuch: file does not exist"),
    ):
        with pytest.raises(InvalidParameter, match=words):
            find_sources(tree, pattern, is_context=True)
    assert find_sources(tree, "../a1", is_context=False)[0].path == tree / "a1"


def test_the_digest_is_of_names_modes_links_and_content(tree: Path) -> None:
    def digest(pattern: str = "d") -> str:
        return digest_of(find_sources(tree, pattern, is_context=True), owners=False)

    first = digest()
    assert first.startswith("dir:") and digest("a1").startswith("file:") and digest("a*").startswith("multi:")
    os.utime(tree / "d/f", (1, 1))
    assert digest() == first
    seen = {first}
    for change in (
        lambda: (tree / "d/f").write_text("F"),
        lambda: (tree / "d/f").chmod(0o600),
        lambda: (tree / "d/f").rename(tree / "d/h"),
        lambda: (tree / "d/new").mkdir(),
        lambda: (tree / "d/link").symlink_to("h"),
        lambda: ((tree / "d/link").unlink(), (tree / "d/link").symlink_to("e")),
    ):
        change()
        assert digest() not in seen
        seen.add(digest())


def copied(tree: Path, root: Path, patterns: list[str], destination: str, manner: Manner = KEPT) -> list[str]:
    sources = [source for pattern in patterns for source in find_sources(tree, pattern, is_context=True)]
    copy_sources(root, sources, destination, manner)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


@pytest.mark.parametrize(
    ("patterns", "destination", "made"),
    [
        (["a1"], "/x", ["x"]),
        (["a1"], "/x/", ["x", "x/a1"]),
        (["a1", "a2"], "/x/y/", ["x", "x/y", "x/y/a1", "x/y/a2"]),
        (["d"], "/x", ["x", "x/e", "x/e/g", "x/f"]),
        (["d/e/g"], "/x", ["x"]),
    ],
)
def test_where_copies_go(
    tree: Path, tmp_path: Path, patterns: list[str], destination: str, made: list[str]
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    manner = Manner(owner=ME)
    assert copied(tree, root, patterns, destination, manner) == made


def test_copies_into_what_is_there(tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "real").mkdir(parents=True)
    (root / "link").symlink_to("/real")
    (root / "real/e").write_text("in the way of a folder")
    (root / "real/f").symlink_to("/etc/hostname")
    copied(tree, root, ["d"], "/link/")
    assert (root / "link").is_symlink()
    assert (root / "real/e/g").read_text() == "g"
    assert (root / "real/f").read_text() == "f" and not (root / "real/f").is_symlink()
    (root / "folder/a1").mkdir(parents=True)
    with pytest.raises(InvalidParameter, match="cannot copy to directory"):
        copied(tree, root, ["a1"], "/folder/")
    with pytest.raises(InvalidParameter, match="not a directory: /real/f"):
        copied(tree, root, ["a1"], "/real/f/x")


def test_modes_and_times(tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tree / "a1").chmod(0o4711)
    os.utime(tree / "a1", (5, 7))
    copied(tree, root, ["a1"], "/kept")
    copied(tree, root, ["a1"], "/given", Manner(owner=None, mode=0o640))
    assert [stat.S_IMODE((root / name).stat().st_mode) for name in ("kept", "given")] == [0o4711, 0o640]
    assert (root / "kept").stat().st_mtime == 7


def test_archives_are_known_by_their_content(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(tar_of({"x": b"1"}))
    (tmp_path / "b.tar").write_bytes(b"no archive at all" * 100)
    (tmp_path / "c.gz").write_bytes(b"\x1f\x8bbroken")
    assert [is_archive(tmp_path / name) for name in ("a.txt", "b.tar", "c.gz")] == [True, False, False]


def context_archive(name: str, data: bytes) -> bytes:
    """Owned by whoever runs the test; ends as docker's client ends it: with the last byte of the last file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size, (member.uid, member.gid) = len(data), ME
        archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()[: 512 + len(data)]


def test_an_archive_may_end_with_its_last_file(tmp_path: Path) -> None:
    whole = context_archive(".wh.kept", b"x" * 700)
    unpack(io.BytesIO(whole), tmp_path, "build context")
    assert (tmp_path / ".wh.kept").read_bytes() == b"x" * 700  # no layer: that name means nothing
    with pytest.raises(InvalidParameter, match="build context cannot be unpacked: "):
        unpack(io.BytesIO(whole[:-1]), tmp_path, "build context")


@pytest.mark.parametrize("data", [b"no tar" * 200, b"\x1f\x8b\x08\x00junk", b"\x28\xb5\x2f\xfd\x00\x00"])
def test_what_is_no_archive_is_said(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InvalidParameter, match=r"build context cannot be unpacked|zstd"):
        unpack(io.BytesIO(data), tmp_path, "build context")
