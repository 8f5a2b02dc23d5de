"""Values of flags: durations, sizes, CPUs, environment, labels, filters. Every error names the flag's value."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

from cli.errors import UsageError

_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_UNIT_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_BYTES = re.compile(r"(-?\d+(?:\.\d+)?)\s?([kKmMgGtTpP]?)(?:i?[bB])?")
_LONGEST_NS = 2**63 - 1


def nanoseconds(text: str) -> int:
    """Go's duration notation (1h30m, 5s, 250ms) to nanoseconds; a bare 0 is allowed."""
    if text in ("0", "+0", "-0"):
        return 0
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    total, position = 0.0, 0
    for match in _DURATION_PART.finditer(rest):
        if match.start() != position:
            break
        total += float(match.group(1)) * _UNIT_NS[match.group(2)]
        position = match.end()
    if position != len(rest) or not rest:
        missing = re.fullmatch(r"\d+(\.\d+)?", rest) is not None
        problem = "missing unit in duration" if missing else "invalid duration"
        raise UsageError(f'time: {problem} "{text}"', hint="durations look like 500ms, 10s, 1m30s or 2h")
    if total > _LONGEST_NS:
        raise UsageError(f'invalid duration "{text}": longer than 292 years')
    return sign * round(total)


def positive_nanoseconds(text: str) -> int:
    value = nanoseconds(text)
    if value < 0:
        raise UsageError(f'invalid duration "{text}": it must not be negative')
    return value


def size_bytes(text: str) -> int:
    """512, 64k, 100m, 1.5g, 1GiB: binary multiples, as Docker's memory flags take them."""
    match = _BYTES.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"invalid size: '{text}'", hint="sizes look like 512b, 64k, 100m or 2g")
    if match.group(1).startswith("-"):
        raise UsageError(f"invalid size: '{text}': it must not be negative")
    return int(float(match.group(1)) * 1024 ** " kmgtp".index(match.group(2).lower() or " "))


def nano_cpus(text: str) -> int:
    """Decimal CPUs ("1.5") to billionths."""
    try:
        value = float(text)
    except ValueError:
        raise UsageError(f"failed to parse {text} as a rational number", hint="such as 0.5 or 2") from None
    if not 0 <= value < 1e6:
        raise UsageError(f'invalid number of CPUs "{text}"', hint="such as 0.5 or 2")
    return round(value * 1_000_000_000)


def environment(values: Iterable[str], files: Iterable[str] = ()) -> list[str]:
    """--env-file lines, then --env values; a name without "=" takes its value from our environment."""
    entries: list[str] = []
    for path in files:
        entries += _resolve_environment(_file_lines(path, "env"))
    return entries + _resolve_environment(values)


def _resolve_environment(values: Iterable[str]) -> list[str]:
    entries = []
    for value in values:
        name, equals, _ = value.partition("=")
        if not name:
            raise UsageError(f"invalid environment variable: {value}", hint="such as NAME=value")
        if equals:
            entries.append(value)
        elif name in os.environ:
            entries.append(f"{name}={os.environ[name]}")
    return entries


def _file_lines(path: str, what: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as source:
            lines = [line.strip("\r\n").lstrip() for line in source]
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)
        raise UsageError(
            f"open {path}: {why}", hint=f"the {what} file is a text with a line for each entry"
        ) from error
    return [line for line in lines if line and not line.startswith("#")]


def labels(values: Iterable[str], files: Iterable[str] = ()) -> dict[str, str]:
    """key=value, or key alone for an empty value."""
    found: dict[str, str] = {}
    for path in files:
        found |= labels(_file_lines(path, "label"))
    for value in values:
        key, _, text = value.partition("=")
        if not key:
            raise UsageError(f'invalid label "{value}"', hint="such as key=value")
        found[key] = text
    return found


def key_values(values: Iterable[str], flag: str) -> dict[str, str]:
    """key=value pairs where the "=" is needed."""
    found: dict[str, str] = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not key or not equals:
            raise UsageError(f'invalid argument "{value}" for "--{flag}"', hint="such as key=value")
        found[key] = text
    return found


def filters(values: Iterable[str]) -> dict[str, list[str]]:
    """-f key=value (repeatable) to the API's map of lists."""
    found: dict[str, list[str]] = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key.strip():
            raise UsageError("bad format of filter (expected name=value)", hint="such as name=web")
        found.setdefault(key.strip().lower(), []).append(text.strip())
    return found


def reference(text: str) -> tuple[str, str]:
    """An image reference to (repository, tag); the tag is "latest" when none is given, or the digest."""
    if "@" in text:
        repository, _, digest = text.partition("@")
        return repository, digest
    repository, colon, tag = text.rpartition(":")
    if not colon or "/" in tag:
        return text, "latest"
    return repository, tag


def check_reference(text: str) -> None:
    """Refuses names with capitals where they cannot be, as docker's client does before it asks."""
    repository = text.partition("@")[0]
    head, slash, rest = repository.partition("/")
    is_domain = slash and ("." in head or ":" in head or head == "localhost" or head.lower() != head)
    path = rest if is_domain else f"library/{repository}" if not slash else repository
    path = path.partition(":")[0]
    if path.lower() != path:
        raise UsageError(f"invalid reference format: repository name ({path}) must be lowercase")


def tagged(text: str) -> str:
    """With the tag that is meant when there is none, as docker's client writes it into specs."""
    repository, tag = reference(text)
    return text if "@" in text else f"{repository}:{tag}"


def capabilities(names: Iterable[str]) -> list[str]:
    """NET_ADMIN, net_admin and CAP_NET_ADMIN are one; sorted, as the client of docker sends them for services."""
    words = {name.strip().upper() for name in names}
    return sorted(word if word == "ALL" or word.startswith("CAP_") else f"CAP_{word}" for word in words)


def platform_object(text: str) -> str:
    """os/arch/variant as the JSON object that some calls of the API want; empty stays empty."""
    if not text:
        return ""
    import json

    return json.dumps(dict(zip(("os", "architecture", "variant"), text.split("/"), strict=False)))


def ulimits(values: Iterable[str]) -> list[dict[str, object]]:
    """name=soft[:hard]"""
    found: list[dict[str, object]] = []
    for value in values:
        name, equals, numbers = value.partition("=")
        soft, colon, hard = numbers.partition(":")
        try:
            limit: dict[str, object] = {
                "Name": name,
                "Soft": int(soft),
                "Hard": int(hard) if colon else int(soft),
            }
        except ValueError:
            limit = {}
        if not (name and equals and limit):
            raise UsageError(f"invalid ulimit argument: {value}", hint="such as nofile=1024:2048")
        found.append(limit)
    return found


def choice(value: str, allowed: Sequence[str], flag: str) -> str:
    if value not in allowed:
        raise UsageError(f'invalid argument "{value}" for "--{flag}"', hint="one of: " + ", ".join(allowed))
    return value


def host_entry(value: str) -> tuple[str, str]:
    """--add-host / --host: name:address or name=address."""
    separator = "=" if "=" in value else ":"
    name, found, address = value.partition(separator)
    if not (name and found and address):
        raise UsageError(f'bad format for add-host: "{value}"', hint="such as db:10.0.0.5")
    return name, address.strip("[]")


def command_words(text: str) -> list[str]:
    """--entrypoint and --args values, split as a shell would."""
    import shlex

    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f'invalid command "{text}": {error}') from error


def comma_fields(text: str, what: str) -> list[tuple[str, str | None]]:
    """key=value,key,... (CSV with quotes, as --mount and --secret take it) to pairs; a bare key has None."""
    import csv

    try:
        fields = next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise UsageError(f'invalid {what} "{text}": {error}') from error
    pairs: list[tuple[str, str | None]] = []
    for item in fields:
        key, equals, value = item.partition("=")
        pairs.append((key.strip().lower(), value if equals else None))
    return pairs


def boolean(text: str | None, what: str) -> bool:
    """A bare key is true; otherwise as Go's ParseBool."""
    if text is None or text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise UsageError(f'invalid value for {what}: "{text}"', hint="true or false")
