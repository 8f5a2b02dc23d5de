from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.storage.driver import ADDED, Rootfs
from engine.storage.overlay import changes_of
from engine.storage.trees import PATH_MAX, remove_tree, tree_bytes, walk
from engine.storage.whole_tree import _entries

DEPTH = 5000


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """A chain of folders that no path can name, with a file of ten bytes at its end."""
    root = tmp_path / "deep"
    root.mkdir()
    descriptor = os.open(root, os.O_RDONLY)
    for _ in range(DEPTH):
        os.mkdir("d", dir_fd=descriptor)
        child = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = child
    file = os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor)
    os.write(file, b"x" * 10)
    os.close(file)
    os.close(descriptor)
    return root


def test_a_deep_tree_is_counted_compared_and_removed(deep: Path) -> None:
    """All in one test: pytest itself cannot remove such a folder."""
    open_before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names only
    try:
        assert tree_bytes(deep) == 10
        assert sum(1 for _ in walk(deep)) == DEPTH + 1
        changes = changes_of(Rootfs(upper=str(deep)))
        assert changes[0] == ("/d", ADDED)
        assert PATH_MAX < len(changes[-1][0]) <= PATH_MAX + 4, "as deep as a path can name"
        assert len(_entries(deep)) == len(changes)
    finally:
        remove_tree(deep)
    assert not deep.exists()
    assert len(os.listdir("/proc/self/fd")) == open_before  # noqa: PTH208 - names only


def test_a_walk_meets_every_folder_once(tmp_path: Path) -> None:
    for name in ("a/b/c", "a/d", "e"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a" / "file").write_text("")
    (tmp_path / "link").symlink_to("/")
    met = {folder.path: (sorted(folder.folders), sorted(folder.others)) for folder in walk(tmp_path)}
    assert met == {
        "": (["a", "e"], ["link"]),
        "/a": (["b", "d"], ["file"]),
        "/a/b": (["c"], []),
        "/a/b/c": ([], []),
        "/a/d": ([], []),
        "/e": ([], []),
    }


def test_a_folder_that_is_moved_meanwhile_does_not_lead_out(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    for folder in (root / "a" / "b" / "c", root / "z", elsewhere / "secret"):
        folder.mkdir(parents=True)
    met = []
    for folder in walk(root):
        folder.folders.sort()
        met.append(folder.path)
        if folder.path == "/a/b/c":
            (root / "a" / "b").rename(elsewhere / "b")
    assert met == ["", "/a", "/a/b", "/a/b/c", "/z"]


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("x")
    doomed = tmp_path / "doomed"
    (doomed / "a").mkdir(parents=True)
    (doomed / "a" / "link").symlink_to(kept)
    (tmp_path / "alias").symlink_to(kept)
    remove_tree(doomed)
    assert not doomed.exists()
    with pytest.raises(OSError, match="alias"):
        remove_tree(tmp_path / "alias")
    assert (kept / "file").read_text() == "x"


def test_errors_are_raised_unless_they_are_to_be_ignored(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        remove_tree(tmp_path / "none")
    remove_tree(tmp_path / "none", ignore_errors=True)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    (tmp_path / "here").mkdir()
    remove_tree("here", dir_fd=descriptor)
    os.close(descriptor)
    assert not (tmp_path / "here").exists()


def test_a_file_with_two_names_counts_once(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"x" * 100)
    (tmp_path / "two").hardlink_to(tmp_path / "one")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "three").write_bytes(b"y" * 7)
    assert tree_bytes(tmp_path) == 107
    assert tree_bytes(tmp_path / "none") == 0
