"""${VARIABLE} in the values of a compose file.

Pure: what a variable is worth comes from the caller's mapping. Keys are never changed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cli.errors import UsageError

_VARIABLE = re.compile(
    r"\$(?:(?P<escaped>\$)|(?P<bare>[A-Za-z_]\w*)"
    r"|\{(?P<name>[A-Za-z_]\w*)(?:(?P<operator>:?[-?+])(?P<word>[^{}]*(?:\$\{[^{}]*\}[^{}]*)*))?\}|(?P<wrong>))",
    re.ASCII,
)


def interpolated(value: Any, variables: Mapping[str, str], where: str) -> Any:
    """`where` names the value in errors, such as services.web.image."""
    if isinstance(value, dict):
        return {key: interpolated(item, variables, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [interpolated(item, variables, f"{where}[{at}]") for at, item in enumerate(value)]
    return substituted(value, variables, where) if isinstance(value, str) else value


def substituted(text: str, variables: Mapping[str, str], where: str) -> str:
    def one(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        if match["bare"]:
            return variables.get(match["bare"], "")
        if match["name"] is None:
            raise UsageError(
                f'invalid interpolation format for {where}: "{text}"',
                hint="you may need to escape any $ with another $",
            )
        return _braced(match["name"], match["operator"] or "", match["word"] or "", variables, where)

    return _VARIABLE.sub(one, text)


def _braced(name: str, operator: str, word: str, variables: Mapping[str, str], where: str) -> str:
    """`:` in the operator: an empty variable counts as none."""
    value = variables.get(name)
    is_given = bool(value) if operator.startswith(":") else value is not None
    kind = operator[-1:]
    if kind == "+":
        return substituted(word, variables, where) if is_given else ""
    if is_given or not kind:
        return value or ""
    if kind == "-":
        return substituted(word, variables, where)
    message = substituted(word, variables, where) or "it is not set"
    raise UsageError(f"required variable {name} is missing a value: {message}")
