"""Lines of a Dockerfile: directives, comments, continuations, flags, and the here-documents that are refused."""

from __future__ import annotations

import pytest

from engine.building.dockerfile import parse_lines
from engine.errors import InvalidParameter


def texts(text: str) -> list[str]:
    return [line.text for line in parse_lines(text).lines]


def test_comments_and_continuations() -> None:
    source = (
        "\ufeff# first\nFROM a\n\n  # indented\nRUN one \\\n   two \\  \n# between\n  # and this\n three\n"
        "RUN ends with two \\\\\nCMD x\\"
    )
    assert texts(source) == ["FROM a", "RUN one    two  three", "RUN ends with two \\\\", "CMD x"]
    assert [line.number for line in parse_lines(source).lines] == [2, 5, 10, 11]


def test_an_empty_line_in_a_continuation_is_warned_of() -> None:
    parsed = parse_lines("RUN a \\\n\n  b\n")
    assert [line.text for line in parsed.lines] == ["RUN a   b"]
    assert len(parsed.warnings) == 1 and parsed.warnings[0].startswith("[WARNING]: Empty continuation line")
    assert parse_lines("RUN a \\\n# c\n b").warnings == ()


def test_a_hash_inside_a_line_is_no_comment() -> None:
    assert texts("RUN echo # not a comment") == ["RUN echo # not a comment"]


def test_directives_count_only_at_the_top() -> None:
    windows = parse_lines("# Escape = `\n# syntax=x/y\nRUN a `\n b \\\nCMD c")
    assert windows.escape == "`"
    assert [line.text for line in windows.lines] == ["RUN a  b \\", "CMD c"]
    assert parse_lines("# comment\n# escape=`\nRUN a").escape == "\\"
    assert parse_lines("RUN a\n# escape=`").escape == "\\"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# escape=x\nFROM a", "line 1: invalid ESCAPE 'x'"),
        ("# escape=`\n# escape=`\n", "line 2: only one escape parser directive"),
        ("FROM a\nRUN <<EOF\necho\nEOF", "line 2: the here-document <<EOF requires BuildKit"),
        ("COPY <<-'E' /x\nE", "the here-document <<-'E' requires"),
        ('ADD 3<<"E" /x', "requires BuildKit"),
    ],
)
def test_what_is_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        parse_lines(text)


@pytest.mark.parametrize(
    "text", ["RUN cat <<< word", "RUN echo $((1<<2))", 'RUN ["cat", "<<EOF"]', "CMD <<EOF"]
)
def test_what_only_looks_like_a_here_document(text: str) -> None:
    assert texts(text) == [text]


def test_flags_stand_before_the_arguments() -> None:
    (line,) = parse_lines("copy --from=a   --chown=b:c x --y z").lines
    assert (line.keyword, line.flags, line.rest) == ("COPY", ("--from=a", "--chown=b:c"), "x --y z")
    (line,) = parse_lines("RUN -- --x").lines
    assert (line.flags, line.rest) == ((), "--x")
