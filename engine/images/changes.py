"""`--change` of import: Dockerfile instructions applied to an image configuration. Pure."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from engine.errors import InvalidParameter

_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE | re.ASCII)
KNOWN = ("CMD", "ENTRYPOINT", "ENV", "EXPOSE", "LABEL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR")


def apply_changes(config: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """The configuration after all changes. InvalidParameter names the one that is wrong."""
    result = dict(config)
    for change in changes:
        keyword, rest = [*change.split(maxsplit=1), "", ""][:2]
        keyword, rest = keyword.upper(), rest.strip()
        if keyword not in KNOWN:
            raise InvalidParameter(
                f"{keyword or change!r} is not a valid change command: use {', '.join(KNOWN)}"
            )
        if not rest:
            raise InvalidParameter(f"{keyword} requires an argument: {change!r}")
        _apply(result, keyword, rest)
    return result


def _apply(config: dict[str, Any], keyword: str, rest: str) -> None:
    if keyword in ("CMD", "ENTRYPOINT"):
        config["Cmd" if keyword == "CMD" else "Entrypoint"] = _command(rest)
    elif keyword == "ENV":
        names = {entry.partition("=")[0]: entry for entry in config.get("Env") or ()}
        names.update({name: f"{name}={value}" for name, value in _pairs(keyword, rest)})
        config["Env"] = list(names.values())
    elif keyword == "LABEL":
        config["Labels"] = {**(config.get("Labels") or {}), **dict(_pairs(keyword, rest))}
    elif keyword == "EXPOSE":
        ports: dict[str, dict[str, Any]] = {port: {} for word in rest.split() for port in _ports(word)}
        config["ExposedPorts"] = {**(config.get("ExposedPorts") or {}), **ports}
    elif keyword == "VOLUME":
        paths = _words(rest) if rest.startswith("[") else rest.split()
        config["Volumes"] = {**(config.get("Volumes") or {}), **{path: {} for path in paths}}
    elif keyword == "WORKDIR":
        config["WorkingDir"] = posixpath.normpath(posixpath.join("/", config.get("WorkingDir") or "", rest))
    else:
        config[{"STOPSIGNAL": "StopSignal", "USER": "User"}[keyword]] = rest


def _command(rest: str) -> list[str]:
    """The JSON form as it is, else through a shell."""
    return _words(rest) if rest.startswith("[") else ["/bin/sh", "-c", rest]


def _words(text: str) -> list[str]:
    try:
        return msgspec.json.decode(text.encode(), type=list[str])
    except msgspec.DecodeError as error:
        raise InvalidParameter(f"not a JSON list of strings: {text}") from error


def _ports(word: str) -> list[str]:
    """80 -> 80/tcp; 8000-8002/udp -> each of them."""
    match = _PORTS.fullmatch(word)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if match is None or not 1 <= first <= last <= 65535:
        raise InvalidParameter(
            f'invalid containerPort "{word}": use PORT, FIRST-LAST or PORT/udp, 1 to 65535'
        )
    return [f"{port}/{(match[3] or 'tcp').lower()}" for port in range(first, last + 1)]


def _pairs(keyword: str, rest: str) -> list[tuple[str, str]]:
    """NAME=VALUE words, quoted as in a shell; or the old form NAME REST."""
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise InvalidParameter(f"{keyword} has an unfinished quotation: {rest}") from error
    if "=" not in words[0]:
        name, _, value = rest.partition(" ")
        if not value:
            raise InvalidParameter(f"{keyword} must have two arguments or NAME=VALUE: {rest}")
        return [(name, value.strip())]
    pairs = []
    for word in words:
        name, separator, value = word.partition("=")
        if not separator or not name:
            raise InvalidParameter(f"syntax error - can't find = in {word!r}: must be of the form NAME=VALUE")
        pairs.append((name, value))
    return pairs
