"""Patterns of .dockerignore: which paths of a build context are not sent. Pure.

The last pattern that matches a path, or a folder above it, decides; `!` takes back. `**` stands for any number of
folders. (The engine keeps the same rules in engine.building.ignore, since neither may import the other.)
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

from cli.errors import UsageError


class IgnorePatterns:
    def __init__(self, text: str) -> None:
        self._rules = [_rule(line) for line in _lines(text)]

    def excludes(self, path: str) -> bool:
        """`path` is relative to the context, with slashes."""
        parts = path.split("/")
        candidates = ["/".join(parts[: length + 1]) for length in range(len(parts))]
        excluded = False
        for takes_back, form in self._rules:
            if takes_back == excluded and any(form.fullmatch(candidate) for candidate in candidates):
                excluded = not takes_back
        return excluded

    @property
    def takes_back(self) -> bool:
        """With exceptions, a folder that is left out may hold something that is not."""
        return any(takes_back for takes_back, _ in self._rules)


def _lines(text: str) -> Iterable[str]:
    for line in text.removeprefix("\ufeff").splitlines():
        pattern = line.strip()
        if not line.startswith("#") and pattern:
            yield pattern


def _rule(pattern: str) -> tuple[bool, re.Pattern[str]]:
    takes_back = pattern.startswith("!")
    path = pattern.removeprefix("!").strip()
    if not path:
        raise UsageError('illegal exclusion pattern: "!" in .dockerignore')
    normal = posixpath.normpath(path).lstrip("/")
    try:
        return takes_back, re.compile(_expression(normal), re.DOTALL)
    except re.error as error:
        raise UsageError(f'invalid pattern "{pattern}" in .dockerignore: {error}') from error


def _expression(pattern: str) -> str:
    """Go's filepath.Match with `**`, as a regular expression."""
    result, position = "", 0
    while position < len(pattern):
        char = pattern[position]
        position += 1
        if pattern.startswith("**", position - 1):
            position += 1
            if pattern.startswith("/", position):
                position += 1
                result += "(?:.*/)?"
            else:
                result += ".*"
        elif char == "*":
            result += "[^/]*"
        elif char == "?":
            result += "[^/]"
        elif char == "\\" and position < len(pattern):
            result += re.escape(pattern[position])
            position += 1
        elif char == "[" and "]" in pattern[position + 1 :]:
            end = pattern.index("]", position + 1)
            result += "[" + pattern[position:end].replace("\\", "\\\\") + "]"
            position = end + 1
        else:
            result += re.escape(char)
    return result
