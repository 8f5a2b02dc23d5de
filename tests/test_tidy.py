"""The shape of the source: sizes, names, headers, and no notes to oneself."""

from __future__ import annotations

import ast
import collections
import re
from collections.abc import Iterable
from pathlib import Path

from tests.test_imports import modules

LINES_MAX = 600
NAMES_REFUSED = {"utils", "helpers", "common", "misc", "util", "helper"}
NOTES = ("TO" + "DO", "FIX" + "ME", "XX" + "X")


def test_no_file_is_more_than_one_concept_long() -> None:
    long = {
        module: count
        for module, path in modules()
        if (count := len(path.read_text().splitlines())) > LINES_MAX
    }
    assert long == {}


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        m
        for m, path in modules()
        if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_modules_are_named_after_concepts() -> None:
    assert [module for module, _ in modules() if module.rpartition(".")[2] in NAMES_REFUSED] == []


def test_no_notes_to_oneself() -> None:
    noted = [module for module, path in modules() if any(note in path.read_text() for note in NOTES)]
    assert noted == []


def test_no_test_is_skipped_for_good() -> None:
    root = Path(__file__).parent
    words = ("mark." + "skip(", "x" + "fail(")
    assert [str(p) for p in root.rglob("*.py") if any(word in p.read_text() for word in words)] == []


def test_unit_tests_and_simulation_need_no_root() -> None:
    root = Path(__file__).parent
    files = [path for folder in ("unit", "sim") for path in (root / folder).rglob("*.py")]
    assert [str(path) for path in files if "mark.root" in path.read_text()] == []


def repeated(names: Iterable[str]) -> list[str]:
    return sorted(name for name, count in collections.Counter(names).items() if count > 1)


def test_names_of_test_files_are_their_own() -> None:
    """pytest would collect only one of two that have the same."""
    assert repeated(path.name for path in Path(__file__).parent.rglob("test_*.py")) == []


def test_decisions_have_numbers_of_their_own() -> None:
    folder = Path(__file__).parents[1] / "docs" / "adr"
    numbers = {path.name: path.name.partition("-")[0] for path in folder.glob("*.md")}
    assert repeated(numbers.values()) == []
    headed = {name: re.match(r"# (\d+)\.", (folder / name).read_text()) for name in numbers}
    assert [n for n, match in headed.items() if match and int(match[1]) != int(numbers[n])] == []


def test_the_map_has_no_long_lines() -> None:
    text = (Path(__file__).parents[1] / "ARCHITECTURE.md").read_text()
    assert [line for line in text.splitlines() if len(line) > 125] == []
