"""Substitution, quotes and splitting, against what Docker's builder does with the same text."""

from __future__ import annotations

import pytest

from engine.building.words import expand, expand_words, split
from engine.errors import InvalidParameter

VARIABLES = {"A": "one", "EMPTY": "", "PATHS": "/a/b/c.tar.gz", "TWO": "x y", "_u1": "under"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("$A", "one"),
        ("${A}b", "oneb"),
        ("$A.b", "one.b"),
        ("$_u1-", "under-"),
        ("$NOSUCH", ""),
        ("a$", "a$"),
        ("$1$@", ""),
        ("'$A'", "$A"),
        ('"$A"', "one"),
        ("\\$A", "$A"),
        ('"\\$A \\" \\\\ \\n"', '$A " \\ \\n'),
        ("'a'\"b\"c", "abc"),
        ("${NOSUCH:-d}", "d"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${NOSUCH-d}", "d"),
        ("${A:-d}", "one"),
        ("${A:+set}", "set"),
        ("${EMPTY:+set}", ""),
        ("${EMPTY+set}", "set"),
        ("${NOSUCH+set}", ""),
        ("${NOSUCH:-$A}", "one"),
        ("${NOSUCH:-${EMPTY:-${A}!}}", "one!"),
        ("${NOSUCH:-'}'}", "}"),
        ("${A:?must}", "one"),
        ("${PATHS#*/}", "a/b/c.tar.gz"),
        ("${PATHS##*/}", "c.tar.gz"),
        ("${PATHS%.*}", "/a/b/c.tar"),
        ("${PATHS%%.*}", "/a/b/c"),
        ("${PATHS%nosuch}", "/a/b/c.tar.gz"),
        ("${PATHS/\\//-}", "-a/b/c.tar.gz"),
        ("${A/n/N}", "oNe"),
        ("${PATHS//[/x}", "/a/b/c.tar.gz"),
        ("${PATHS//?.tar/x}", "/a/b/x.gz"),
    ],
)
def test_expansion(text: str, expected: str) -> None:
    assert expand(text, VARIABLES) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("'$A", "matching single-quote"),
        ('"$A', "matching double-quote"),
        ("${A", "bad substitution"),
        ("${}", "bad substitution"),
        ("${A!}", r"unsupported modifier \(!\)"),
        ("${A:x}", r"unsupported modifier \(:x\)"),
        ("${NOSUCH:?not there}", "NOSUCH: not there"),
        ("${EMPTY:?}", "EMPTY: is not allowed to be unset"),
        ("${A:-b", "missing '}'"),
    ],
)
def test_what_cannot_be_expanded(text: str, words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        expand(text, VARIABLES)


def test_the_escape_character_may_be_another() -> None:
    assert expand("`$A c:\\x", VARIABLES, "`") == "$A c:\\x"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80 $A", ["80", "one"]),
        ("$TWO", ["x", "y"]),
        ('"$TWO" z', ["x y", "z"]),
        ("a$TWO", ["ax", "y"]),
        ("$EMPTY", []),
        ('""', [""]),
        ("a\\ b", ["a b"]),
    ],
)
def test_words_after_expansion(text: str, expected: list[str]) -> None:
    assert expand_words(text, VARIABLES) == expected


def test_splitting_keeps_quotes_and_escapes() -> None:
    assert split('a="b c" d=\\"e f=g\\ h \'i j\'') == ['a="b c"', 'd=\\"e', "f=g\\ h", "'i j'"]
    assert split("   ") == []
