"""/etc/swarmctl/daemon.json: read, checked by name and kind, and put together with the command line. Pure but reading.

The words of the refusals are Docker's, which tools and people look for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from node.options import BY_KEY, REFUSED, Option

DEFAULT_FILE = Path("/etc/swarmctl/daemon.json")
FILE_BYTES_MAX = 1 << 20
_KINDS: Mapping[str, tuple[type, str]] = {
    "flag": (bool, "true or false"),
    "text": (str, "a string"),
    "number": (int, "a number"),
    "list": (list, "a list of strings"),
    "map": (dict, "an object of strings"),
    "objects": (dict, "an object"),
    "ulimits": (dict, "an object"),
    "pools": (list, "a list of objects"),
}


class FileProblem(Exception):
    """Names the file and what is wrong with it."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"unable to configure the daemon with file {path}: {problem}")


def settings(path: Path, *, must_exist: bool, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting that was given, by flag or in the file; what is given twice is refused."""
    written = _read(path, must_exist)
    unknown = sorted(key for key in written if key not in BY_KEY and key not in REFUSED)
    if unknown:
        raise FileProblem(
            path, f"the following directives don't match any configuration option: {', '.join(unknown)}"
        )
    for key in sorted(set(written) & REFUSED):
        raise FileProblem(path, f"{key} is not supported yet: leave it out")
    if twice := sorted(set(written) & set(flags)):
        both = ", ".join(
            f"{key}: (from flag: {_shown(flags[key])}, from file: {_shown(written[key])})" for key in twice
        )
        raise FileProblem(
            path,
            f"the following directives are specified both as a flag and in the configuration file: {both}",
        )
    for key, value in written.items():
        if problem := _problem(BY_KEY[key], value):
            raise FileProblem(path, f"{key}: {problem}")
    return {**written, **flags}


def _read(path: Path, must_exist: bool) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError as error:
        if must_exist:
            raise FileProblem(path, f"open {path}: no such file or directory") from error
        return {}
    except OSError as error:
        raise FileProblem(path, f"open {path}: {(error.strerror or str(error)).lower()}") from error
    if len(data) > FILE_BYTES_MAX:
        raise FileProblem(path, f"it is larger than {FILE_BYTES_MAX} bytes")
    if not data.strip():
        return {}
    try:
        decoded = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise FileProblem(path, f"invalid JSON: {error}") from error
    if not isinstance(decoded, dict):
        raise FileProblem(path, "must be a JSON object")
    return decoded


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if repeated := sorted({key for key in keys if keys.count(key) > 1}):
        raise ValueError(f"given twice: {', '.join(repeated)}")
    return dict(pairs)


def _problem(option: Option, value: object) -> str:
    if option.kind == "size":
        good = isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))
        return "" if good else "must be a number of bytes or a string such as 64m"
    kind, words = _KINDS[option.kind]
    good = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    if option.kind == "list" and isinstance(value, list):
        good = all(isinstance(entry, str) for entry in value)
    if option.kind == "map" and isinstance(value, dict):
        good = all(isinstance(entry, str) for entry in value.values())
    return "" if good else f"must be {words}"


def _shown(value: object) -> str:
    """As Go prints it: [a b], true."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{' '.join(map(_shown, value))}]"
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{_shown(entry)}' for key, entry in value.items())}]"
    return str(value)
