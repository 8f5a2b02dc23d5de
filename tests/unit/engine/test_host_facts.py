"""Sizes that count shared things once."""

from __future__ import annotations

import os
from pathlib import Path

from engine.host_facts import _engine_id, shared_sizes
from engine.storage.trees import tree_bytes


def test_layers_that_others_have_as_well() -> None:
    layers = {"a": {"base": 10, "mine": 1}, "b": {"base": 10, "other": 2}, "c": {"alone": 5}}
    assert shared_sizes(layers) == {"a": 10, "b": 10, "c": 0}


def test_a_file_with_two_names_counts_once(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(bytes(1000))
    os.link(tmp_path / "folder" / "file", tmp_path / "again")
    (tmp_path / "link").symlink_to("again")
    assert tree_bytes(tmp_path) == 1000 + len("again")
    assert tree_bytes(tmp_path / "none") == 0


def test_an_engine_keeps_its_id(tmp_path: Path) -> None:
    made = _engine_id(tmp_path / "id")
    assert len(made) == 36
    assert _engine_id(tmp_path / "id") == made
