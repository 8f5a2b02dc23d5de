"""Exchanging the raft folder: old or new at every moment, and a bounded number of old ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from node import raft_folder
from node.identity import SwarmFolder
from node.raft_folder import DAMAGED, KEPT_MAX, REPLACED


@pytest.fixture
def folder(tmp_path: Path) -> SwarmFolder:
    made = SwarmFolder(tmp_path)
    made.raft.mkdir(parents=True)
    (made.raft / "what").write_text("old")
    return made


def build(folder: SwarmFolder, what: str) -> None:
    path = raft_folder.begin(folder)
    path.mkdir()
    (path / "what").write_text(what)


def content(folder: SwarmFolder) -> str:
    return (folder.raft / "what").read_text()


def test_new_one_takes_its_place_and_the_old_one_is_kept(folder: SwarmFolder):
    build(folder, "new")
    raft_folder.put_in_place(folder, DAMAGED, 0.0)
    assert content(folder) == "new"
    assert [path.name for path in raft_folder.kept(folder)] == ["raft.damaged-19700101T000000Z"]
    assert (raft_folder.kept(folder)[0] / "what").read_text() == "old"


def test_folder_that_is_missing_is_simply_made(folder: SwarmFolder):
    shutil.rmtree(folder.raft)
    build(folder, "new")
    raft_folder.put_in_place(folder, DAMAGED, 0.0)
    assert content(folder) == "new"
    assert raft_folder.kept(folder) == []


def test_what_was_not_decided_is_forgotten(folder: SwarmFolder):
    build(folder, "new")
    raft_folder.finish(folder)
    assert content(folder) == "old"
    assert not (folder.path / "raft.building").exists()


@pytest.mark.parametrize("old_is_aside", [False, True])
def test_what_was_decided_is_finished(folder: SwarmFolder, old_is_aside: bool):
    build(folder, "new")
    (folder.path / "raft.building").rename(folder.path / "raft.next-replaced")
    if old_is_aside:
        folder.raft.rename(folder.path / "raft.replaced-19700101T000000Z")
    raft_folder.finish(folder)
    assert content(folder) == "new"
    assert [(path / "what").read_text() for path in raft_folder.kept(folder)] == ["old"]
    raft_folder.finish(folder)
    assert content(folder) == "new"


def test_only_the_latest_are_kept_and_names_do_not_clash(folder: SwarmFolder):
    for number in range(KEPT_MAX + 2):
        build(folder, str(number))
        raft_folder.put_in_place(folder, REPLACED if number % 2 else DAMAGED, number // 2)
    assert content(folder) == str(KEPT_MAX + 1)
    kept = [(path / "what").read_text() for path in raft_folder.kept(folder)]
    assert kept == [str(number) for number in range(KEPT_MAX + 1)][-KEPT_MAX:]


def test_a_worker_keeps_nothing(folder: SwarmFolder):
    build(folder, "new")
    raft_folder.put_in_place(folder, DAMAGED, 0.0)
    raft_folder.remove_all(folder)
    assert list(folder.path.glob("raft*")) == []
