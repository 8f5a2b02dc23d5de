"""What each instruction of a Dockerfile takes: its words, pairs, JSON form and flags, checked. Pure.

Variables are not substituted yet. InvalidParameter speaks Docker's words with the number of the line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from engine.building.dockerfile import Line, parse_lines
from engine.building.words import split
from engine.errors import InvalidParameter

_BUILDKIT = "the --{} option requires BuildKit, which this builder is not: leave it out"
_FLAGS: dict[str, tuple[str, ...]] = {
    "FROM": ("platform",),
    "COPY": ("from", "chown", "chmod"),
    "ADD": ("chown", "chmod"),
    "HEALTHCHECK": ("interval", "timeout", "start-period", "start-interval", "retries"),
}
_BUILDKIT_FLAGS: dict[str, tuple[str, ...]] = {
    "RUN": ("mount", "network", "security", "device"),
    "COPY": ("link", "parents", "exclude"),
    "ADD": ("link", "checksum", "keep-git-dir", "exclude", "unpack"),
}
_ONE_WORD = ("WORKDIR", "USER", "STOPSIGNAL", "MAINTAINER")
_STAGE_NAME = re.compile(r"[a-z][a-z0-9._-]*", re.ASCII)
Parts = dict[str, Any]  # those fields of an Instruction that its arguments fill
_NUMBER = re.compile(r"\d{1,9}", re.ASCII)


class Instruction(msgspec.Struct, frozen=True, kw_only=True):
    """`words` are arguments; `pairs` those of ENV, LABEL and ARG (None: ARG without a default).

    `is_json`: a command in JSON form, to be executed without a shell.
    """

    keyword: str
    text: str
    number: int
    escape: str = "\\"
    flags: dict[str, str] = {}
    words: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str | None], ...] = ()
    is_json: bool = False


def parse_instruction(line: Line, escape: str = "\\") -> Instruction:
    try:
        return _parse(line, escape)
    except InvalidParameter as error:
        raise InvalidParameter(f"dockerfile parse error line {line.number}: {error}") from error


def parse_change(text: str) -> Instruction:
    """One instruction that stands alone: a trigger of ONBUILD, or a `--change`."""
    lines = parse_lines(text).lines
    if len(lines) != 1:
        raise InvalidParameter(f"a single instruction is wanted, not {text!r}")
    return _parse(lines[0], "\\")


def _parse(line: Line, escape: str) -> Instruction:
    parse = _PARSERS.get(line.keyword)
    if parse is None:
        raise InvalidParameter(f"unknown instruction: {line.keyword}")
    flags = _checked_flags(line.keyword, line.flags)
    if not line.rest and line.keyword != "HEALTHCHECK":
        raise InvalidParameter(_too_few(line.keyword))
    parts = parse(line, escape)
    if line.keyword == "HEALTHCHECK":
        _check_health_flags(parts, flags)
    return Instruction(
        keyword=line.keyword, text=line.text, number=line.number, escape=escape, flags=flags, **parts
    )


def _command(line: Line, escape: str) -> Parts:
    listed = json_words(line.rest)
    return {"words": (line.rest,) if listed is None else listed, "is_json": listed is not None}


def _copy(line: Line, escape: str) -> Parts:
    listed = json_words(line.rest)
    words = tuple(line.rest.split()) if listed is None else listed
    if len(words) < 2:
        raise InvalidParameter(
            f"{line.keyword} requires at least two arguments, but only one was provided. "
            "Destination could not be determined."
        )
    return {"words": words}


def _volume(line: Line, escape: str) -> Parts:
    listed = json_words(line.rest)
    words = tuple(line.rest.split()) if listed is None else listed
    if not words or not all(word.strip() for word in words):
        raise InvalidParameter("VOLUME specified can not be an empty string")
    return {"words": words}


def _shell(line: Line, escape: str) -> Parts:
    words = json_words(line.rest)
    if not words:
        raise InvalidParameter("SHELL requires the arguments to be in JSON form")
    return {"words": words}


def _ports(line: Line, escape: str) -> Parts:
    return {"words": tuple(line.rest.split())}


def _whole(line: Line, escape: str) -> Parts:
    return {"words": (line.rest,)}


def json_words(rest: str) -> tuple[str, ...] | None:
    """None when it is not JSON. A list with anything but strings is an error, as in Docker."""
    if not rest.startswith("["):
        return None
    try:
        found = msgspec.json.decode(rest.encode())
    except msgspec.DecodeError:
        return None
    if not all(isinstance(word, str) for word in found):
        raise InvalidParameter("when using JSON array syntax, arrays must be comprised of strings only")
    return tuple(found)


def _checked_flags(keyword: str, given: tuple[str, ...]) -> dict[str, str]:
    flags: dict[str, str] = {}
    for flag in given:
        name, equals, value = flag.removeprefix("--").partition("=")
        if name in _BUILDKIT_FLAGS.get(keyword, ()):
            raise InvalidParameter(_BUILDKIT.format(name))
        if name not in _FLAGS.get(keyword, ()):
            raise InvalidParameter(f"unknown flag: --{name}")
        if not equals or not value:
            raise InvalidParameter(f"missing a value on flag: {name}")
        if name in flags:
            raise InvalidParameter(f"duplicate flag specified: {name}")
        flags[name] = value
    return flags


def _too_few(keyword: str) -> str:
    if keyword == "FROM":
        return "FROM requires either one or three arguments"
    if keyword in (*_ONE_WORD, "ONBUILD"):
        return f"{keyword} requires exactly one argument"
    if keyword in ("COPY", "ADD"):
        return f"{keyword} requires at least two arguments, but only zero were provided"
    return f"{keyword} requires at least one argument"


def _name_values(line: Line, escape: str) -> Parts:
    """NAME=VALUE words, or the old form NAME REST-OF-LINE."""
    keyword, rest = line.keyword, line.rest
    words = split(rest, escape)
    if "=" not in words[0]:
        name, value = [*rest.split(maxsplit=1), ""][:2]
        if not value:
            raise InvalidParameter(f"{keyword} must have two arguments")
        return {"pairs": ((name, value.strip()),)}
    pairs: list[tuple[str, str | None]] = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise InvalidParameter(
                f'Syntax error - can\'t find = in "{word}". Must be of the form: name=value'
            )
        if not name:
            raise InvalidParameter(f"{keyword} names can not be blank")
        pairs.append((name, value))
    return {"pairs": tuple(pairs)}


def _arguments(line: Line, escape: str) -> Parts:
    pairs: list[tuple[str, str | None]] = []
    for word in split(line.rest, escape):
        name, equals, value = word.partition("=")
        if not name:
            raise InvalidParameter("ARG names can not be blank")
        pairs.append((name, value if equals else None))
    return {"pairs": tuple(pairs)}


def _from(line: Line, escape: str) -> Parts:
    """(image,) or (image, stage name in lower case)."""
    words = line.rest.split()
    if len(words) == 1:
        return {"words": (words[0],)}
    if len(words) != 3 or words[1].upper() != "AS":
        raise InvalidParameter("FROM requires either one or three arguments")
    name = words[2].lower()
    if not _STAGE_NAME.fullmatch(name):
        raise InvalidParameter(
            f'invalid name for build stage: "{words[2]}", name can\'t start with a number or contain symbols'
        )
    return {"words": (words[0], name)}


def _health(line: Line, escape: str) -> Parts:
    """("NONE",), ("CMD-SHELL", line) or ("CMD", word, ...)."""
    kind, command = [*line.rest.split(maxsplit=1), "", ""][:2]
    kind = kind.upper()
    if not kind:
        raise InvalidParameter(_too_few(line.keyword))
    if kind not in ("NONE", "CMD"):
        raise InvalidParameter(f'unknown type "{kind}" in HEALTHCHECK (try CMD)')
    if (kind == "NONE") == bool(command):
        words = "HEALTHCHECK NONE takes no arguments" if command else "missing command after HEALTHCHECK CMD"
        raise InvalidParameter(words)
    listed = json_words(command) if command else None
    if listed:
        return {"words": ("CMD", *listed), "is_json": True}
    return {"words": ("CMD-SHELL", command) if command else ("NONE",)}


def _check_health_flags(parts: Parts, flags: dict[str, str]) -> None:
    if parts["words"] == ("NONE",) and flags:
        raise InvalidParameter("HEALTHCHECK NONE takes no arguments")
    retries = flags.get("retries", "0")
    if not _NUMBER.fullmatch(retries):
        raise InvalidParameter(f'--retries must be a whole number, not "{retries}"')


def _trigger(line: Line, escape: str) -> Parts:
    """The instruction of an ONBUILD, checked now rather than when somebody builds on the image."""
    inner = parse_lines(line.rest).lines[0]
    if inner.keyword == "ONBUILD":
        raise InvalidParameter("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if inner.keyword in ("FROM", "MAINTAINER"):
        raise InvalidParameter(f"{inner.keyword} isn't allowed as an ONBUILD trigger")
    _parse(inner, "\\")
    return {"words": (f"{inner.keyword}{line.rest[len(inner.keyword) :]}",)}


_PARSERS: dict[str, Callable[[Line, str], Parts]] = {
    "FROM": _from,
    "ARG": _arguments,
    "ENV": _name_values,
    "LABEL": _name_values,
    "RUN": _command,
    "CMD": _command,
    "ENTRYPOINT": _command,
    "COPY": _copy,
    "ADD": _copy,
    "VOLUME": _volume,
    "EXPOSE": _ports,
    "SHELL": _shell,
    "HEALTHCHECK": _health,
    "ONBUILD": _trigger,
    "WORKDIR": _whole,
    "USER": _whole,
    "STOPSIGNAL": _whole,
    "MAINTAINER": _whole,
}
