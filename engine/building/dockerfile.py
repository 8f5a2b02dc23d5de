"""A Dockerfile's text into its lines: directives, comments, continuations. Pure; knows no instruction's meaning.

A line is one instruction with its flags split off. Here-documents are refused: the classic builder has none.
"""

from __future__ import annotations

import re

import msgspec

from engine.errors import InvalidParameter

_DIRECTIVE = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*")
_DIRECTIVES = ("escape", "syntax", "check")
_HEREDOC = re.compile(r"\d*<<-?(\"[^\"<]+\"|'[^'<]+'|[A-Za-z_][A-Za-z0-9_.-]*)")
_HEREDOC_KEYWORDS = ("RUN", "COPY", "ADD")
DOCKERFILE_BYTES_MAX = 4 << 20


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """`text` is the whole instruction on one line, `rest` what follows the keyword and its flags."""

    number: int
    keyword: str
    flags: tuple[str, ...]
    rest: str
    text: str


class Dockerfile(msgspec.Struct, frozen=True):
    lines: tuple[Line, ...]
    escape: str = "\\"
    warnings: tuple[str, ...] = ()


def parse_lines(text: str) -> Dockerfile:
    """InvalidParameter names the line, in Docker's words."""
    physical = text.removeprefix("\ufeff").splitlines()
    escape, first = _directives(physical)
    ends = re.compile(rf"(?:^|[^{re.escape(escape)}]){re.escape(escape)}[ \t]*$")
    lines: list[Line] = []
    warnings: list[str] = []
    number = first
    while number < len(physical):
        start = number
        current = physical[number].lstrip()
        number += 1
        if not current or current.startswith("#"):
            continue
        whole, goes_on, is_gapped = "", True, False
        while True:
            match = ends.search(current)
            goes_on = match is not None
            whole += current[: current.rindex(escape)] if goes_on else current
            if not goes_on:
                break
            while number < len(physical) and _is_nothing(physical[number]):
                is_gapped = is_gapped or not physical[number].strip()
                number += 1
            if number == len(physical):
                break
            current = physical[number]
            number += 1
        if is_gapped:
            warnings.append(f"[WARNING]: Empty continuation line found in:\n    {whole.strip()}")
        if whole.strip():
            lines.append(_line(start + 1, whole.strip()))
    return Dockerfile(tuple(lines), escape, tuple(warnings))


def _is_nothing(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")


def _directives(physical: list[str]) -> tuple[str, int]:
    """(escape character, how many lines they took). They end with the first line that is none."""
    escape, seen = "\\", set[str]()
    for index, line in enumerate(physical):
        match = _DIRECTIVE.fullmatch(line.strip())
        key = match[1].lower() if match else ""
        if match is None or key not in _DIRECTIVES:
            return escape, index
        if key in seen:
            raise InvalidParameter(
                f"dockerfile parse error line {index + 1}: only one {key} parser directive can be used"
            )
        seen.add(key)
        if key == "escape":
            if match[2] not in ("\\", "`"):
                raise InvalidParameter(
                    f"dockerfile parse error line {index + 1}: invalid ESCAPE '{match[2]}' does not match ` or \\"
                )
            escape = match[2]
    return escape, len(physical)


def _line(number: int, text: str) -> Line:
    keyword, rest = [*text.split(maxsplit=1), ""][:2]
    keyword = keyword.upper()
    flags, rest = _flags(rest.strip()) if keyword != "ONBUILD" else ((), rest.strip())
    if keyword in _HEREDOC_KEYWORDS and not rest.startswith("["):
        found = next((word for word in rest.split() if _HEREDOC.fullmatch(word)), None)
        if found:
            raise InvalidParameter(
                f"dockerfile parse error line {number}: the here-document {found} requires BuildKit, which this "
                "builder is not: write the lines with continuations, or COPY a file"
            )
    return Line(number=number, keyword=keyword, flags=flags, rest=rest, text=text)


def _flags(rest: str) -> tuple[tuple[str, ...], str]:
    """Leading words that begin with two dashes; `--` alone ends them."""
    flags: list[str] = []
    while rest.startswith("--"):
        word, rest = [*rest.split(maxsplit=1), ""][:2]
        if word == "--":
            break
        flags.append(word)
    return tuple(flags), rest.strip()
