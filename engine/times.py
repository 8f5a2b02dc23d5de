"""Points in time as Docker's filters write them."""

from __future__ import annotations

import datetime
import re

from engine.errors import InvalidParameter

_UNIT_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)", re.ASCII)
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern})+", re.ASCII)


def moment(text: str, now: float) -> int:
    """Unix seconds of a filter's time: a number of them, RFC 3339, or a duration before now (`1h30m`)."""
    if text.isdecimal():
        return int(text)
    if _DURATION.fullmatch(text):
        return int(now - sum(float(n) * _UNIT_S[unit] for n, unit in _DURATION_PART.findall(text)))
    try:
        parsed = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidParameter(
            f"invalid time '{text}': use Unix seconds, 2026-01-02T15:04:05Z or a duration such as 24h"
        ) from error
    return int((parsed if parsed.tzinfo else parsed.replace(tzinfo=datetime.UTC)).timestamp())
