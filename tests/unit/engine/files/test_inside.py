from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import InvalidParameter
from engine.files.inside import final_target, go_mode, open_inside, status_inside
from engine.files.service import checked_path


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "root/etc/passwd").write_text("inner")
    for name, target in (
        ("out", "../../../etc/passwd"),
        ("abs", "/etc"),
        ("loop", "loop"),
        ("broken", "/no/such"),
    ):
        (tmp_path / "root" / name).symlink_to(target)
    descriptor = os.open(tmp_path / "root", os.O_PATH)
    yield descriptor
    os.close(descriptor)


def test_links_end_inside(root: int) -> None:
    for path in ("/out", "out", "/abs/passwd", "../../etc/passwd"):
        found = open_inside(root, path, os.O_RDONLY)
        assert os.read(found, 100) == b"inner"
        os.close(found)
    with pytest.raises(OSError, match="Too many levels"):
        open_inside(root, "/loop", os.O_RDONLY)


def test_a_status_is_of_the_link_unless_a_slash_follows(root: int) -> None:
    assert stat.S_ISLNK(status_inside(root, "/abs").st_mode)
    assert stat.S_ISDIR(status_inside(root, "/abs/").st_mode)
    assert stat.S_ISDIR(status_inside(root, "/").st_mode)
    with pytest.raises(NotADirectoryError):
        status_inside(root, "/out/")


def test_where_a_link_leads_is_told_as_far_as_it_goes(root: int) -> None:
    assert final_target(root, "/out") == "/etc/passwd"
    assert final_target(root, "/abs/passwd") == "/etc/passwd"
    assert final_target(root, "/broken") == "/no/such"
    with pytest.raises(OSError, match="Too many levels"):
        final_target(root, "/loop")


@pytest.mark.parametrize(
    ("mode", "shown"),
    [
        (stat.S_IFREG | 0o644, 0o644),
        (stat.S_IFDIR | 0o1777, 1 << 31 | 1 << 20 | 0o777),
        (stat.S_IFLNK | 0o777, 1 << 27 | 0o777),
        (stat.S_IFCHR | 0o666, 1 << 26 | 1 << 21 | 0o666),
        (stat.S_IFREG | 0o6755, 1 << 23 | 1 << 22 | 0o755),
    ],
)
def test_modes_are_go_modes(mode: int, shown: int) -> None:
    assert go_mode(mode) == shown


@pytest.mark.parametrize(
    ("path", "clean"),
    [
        ("a", "/a"),
        ("/a/../b", "/b"),
        ("../..", "/"),
        ("/a/", "/a/"),
        ("/a/.", "/a/."),
        (".", "/."),
        ("//a", "/a"),
    ],
)
def test_paths_are_made_absolute(path: str, clean: str) -> None:
    assert checked_path(path) == clean


def test_an_empty_path_is_refused() -> None:
    with pytest.raises(InvalidParameter):
        checked_path("")
