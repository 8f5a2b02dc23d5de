"""Points in time on the command line: `--since 10m`, `--until 2026-01-02T03:04:05Z`, Unix seconds."""

from __future__ import annotations

import math
import re
import time

from cli.errors import UsageError
from cli.humanize import unix_time
from cli.parse import nanoseconds

_SECONDS = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
_FRACTION = re.compile(r":\d\d\.(\d{1,9})", re.ASCII)


def moment(text: str) -> str:
    """As the API takes it: Unix seconds with a fraction, or empty for none."""
    if not text:
        return ""
    if _SECONDS.fullmatch(text):
        return text
    if "-" in text[1:] and text[:4].isdigit():
        found = unix_time(_completed(text))
        if found:
            # The fraction as it was written: a float does not hold nanoseconds.
            fraction = _FRACTION.search(text)
            return f"{math.floor(found)}.{fraction[1] if fraction else '0'}"
        raise UsageError(
            f'invalid timestamp "{text}"', hint="such as 2026-01-02T15:04:05Z, or 10m for relative"
        )
    try:
        return f"{time.time() - nanoseconds(text) / 1e9:.9f}"
    except UsageError as error:
        raise UsageError(f'failed to parse value as time or duration: "{text}"', hint=error.hint) from error


def _completed(text: str) -> str:
    """Dates and times may be cut short: 2026-01-02, 2026-01-02T15:04."""
    date, separator, clock = text.partition("T")
    if separator and clock.count(":") == 1 and not clock.endswith("Z"):
        clock += ":00"
    return f"{date}T{clock or '00:00:00'}"
