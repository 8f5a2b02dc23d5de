"""What the values of the API's filters mean, the same for containers, images, networks and volumes. Pure."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence

from engine.errors import InvalidParameter

_SECONDS = re.compile(r"-?\d{1,15}(?:\.\d+)?", re.ASCII)
_UNIT_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ms|us|µs|ns|h|m|s)", re.ASCII)
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern})+", re.ASCII)


def check_filters(filters: Mapping[str, list[str]], known: Sequence[str]) -> None:
    """InvalidParameter names a filter that is not known."""
    for key in filters:
        if key not in known:
            raise InvalidParameter(f"invalid filter '{key}'")


def truth(key: str, values: Sequence[str]) -> bool:
    words = {value.lower() for value in values}
    if not words or not (words <= {"true", "1"} or words <= {"false", "0"}):
        raise InvalidParameter(f"invalid filter '{key}={list(values)}': use true or false")
    return words <= {"true", "1"}


def has_label(labels: Mapping[str, str], wanted: str) -> bool:
    """`wanted` is a name, or name=value."""
    name, separator, value = wanted.partition("=")
    return name in labels and (not separator or labels[name] == value)


def is_spared(labels: Mapping[str, str], unwanted: Sequence[str]) -> bool:
    """`label!` of pruning, as Docker means it: what has all of these labels stays."""
    return bool(unwanted) and all(has_label(labels, value) for value in unwanted)


def matches_pattern(text: str, pattern: str) -> bool:
    """The text itself, or a regular expression that fits somewhere in it; a broken one fits nothing."""
    if text == pattern:
        return True
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return False


def moment(text: str, now: float) -> float:
    """Unix seconds of a filter's time: a number of them, RFC 3339 (without a zone: this host's), or a
    duration before `now` (`1h30m`)."""
    if _SECONDS.fullmatch(text):
        return float(text)
    if _DURATION.fullmatch(text):
        return now - sum(float(n) * _UNIT_S[unit] for n, unit in _DURATION_PART.findall(text))
    try:
        parsed = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidParameter(
            f"'{text}' is no time: use Unix seconds, 2026-01-02T15:04:05Z or a duration such as 24h"
        ) from error
    return parsed.timestamp()
