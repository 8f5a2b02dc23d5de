"""Patterns of .dockerignore; the engine's rules and the command line's are the same."""

from __future__ import annotations

import pytest

from cli.errors import UsageError
from cli.ignore import IgnorePatterns as CliPatterns
from engine.building.ignore import IgnorePatterns
from engine.errors import InvalidParameter

PATTERNS = """
# comment

/top
*.log
**/cache
docs/**/*.md
temp?
[a-c].txt
out
!out/keep
!docs/**/README.md
 ./slash/
"""


@pytest.mark.parametrize(
    ("path", "is_excluded"),
    [
        ("top", True),
        ("top/below", True),
        ("x/top", False),
        ("a.log", True),
        ("x/a.log", False),
        ("cache", True),
        ("x/y/cache/z", True),
        ("docs/a.md", True),
        ("docs/x/y/a.md", True),
        ("docs/x/README.md", False),
        ("temp1", True),
        ("temp", False),
        ("b.txt", True),
        ("d.txt", False),
        ("out/other", True),
        ("out/keep", False),
        ("slash/x", True),
        ("# comment", False),
    ],
)
def test_paths(path: str, is_excluded: bool) -> None:
    assert IgnorePatterns(PATTERNS).excludes(path) is is_excluded
    assert CliPatterns(PATTERNS).excludes(path) is is_excluded


def test_a_lonely_exclamation_mark_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="illegal exclusion pattern"):
        IgnorePatterns("!")
    with pytest.raises(UsageError, match="illegal exclusion pattern"):
        CliPatterns("a\n!\n")
