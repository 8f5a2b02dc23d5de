"""`--change` of import: Dockerfile instructions applied to an image configuration. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from engine.errors import InvalidParameter

KNOWN = ("CMD", "ENTRYPOINT", "ENV", "EXPOSE", "LABEL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR")


def apply_changes(config: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """The configuration after all changes. InvalidParameter names the one that is wrong."""
    result = dict(config)
    for change in changes:
        keyword, _, rest = change.strip().partition(" ")
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
        names.update({name: f"{name}={value}" for name, value in _pairs(rest)})
        config["Env"] = list(names.values())
    elif keyword == "LABEL":
        config["Labels"] = {**(config.get("Labels") or {}), **dict(_pairs(rest))}
    elif keyword == "EXPOSE":
        ports: dict[str, dict[str, Any]] = {
            port if "/" in port else f"{port}/tcp": {} for port in rest.split()
        }
        config["ExposedPorts"] = {**(config.get("ExposedPorts") or {}), **ports}
    elif keyword == "VOLUME":
        paths = _command(rest) if rest.startswith("[") else rest.split()
        config["Volumes"] = {**(config.get("Volumes") or {}), **{path: {} for path in paths}}
    else:
        config[{"STOPSIGNAL": "StopSignal", "USER": "User", "WORKDIR": "WorkingDir"}[keyword]] = rest


def _command(rest: str) -> list[str]:
    """The JSON form as it is, else through a shell."""
    if rest.startswith("["):
        try:
            return msgspec.json.decode(rest.encode(), type=list[str])
        except msgspec.DecodeError as error:
            raise InvalidParameter(f"not a JSON list of strings: {rest}") from error
    return ["/bin/sh", "-c", rest]


def _pairs(rest: str) -> list[tuple[str, str]]:
    words = shlex.split(rest)
    if "=" not in words[0]:
        return [(words[0], rest.partition(" ")[2].strip())]
    return [(name, value) for name, _, value in (word.partition("=") for word in words)]
