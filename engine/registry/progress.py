"""Docker's progress messages: which words, how the bar looks, and not too many of them. Pure but for the clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

Report = Callable[[dict[str, Any]], None]
INTERVAL_S = 0.1
_WIDTH = 50
_UNITS = ("B", "kB", "MB", "GB", "TB")


def short_id(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def status(text: str, identifier: str = "") -> dict[str, Any]:
    return {"status": text, "id": identifier} if identifier else {"status": text}


def step(text: str, digest: str) -> dict[str, Any]:
    """What happens to a layer."""
    return {"status": text, "progressDetail": {}, "id": short_id(digest)}


class Meter:
    """Reports of one layer's bytes, at most every INTERVAL_S; the last one always."""

    def __init__(self, report: Report, text: str, digest: str, total: int) -> None:
        self._report = report
        self._text = text
        self._id = short_id(digest)
        self._total = total
        self._current = 0
        self._next_s = 0.0

    def add(self, count: int) -> None:
        self.at(self._current + count)

    def at(self, current: int) -> None:
        self._current = current
        now = time.monotonic()
        if now < self._next_s and current != self._total:
            return
        self._next_s = now + INTERVAL_S
        self._report(
            {
                "status": self._text,
                "progressDetail": {"current": current, "total": self._total},
                "progress": bar(current, self._total),
                "id": self._id,
            }
        )


def bar(current: int, total: int) -> str:
    """[====>     ]  1.2MB/3.4MB; without a known total the bytes alone."""
    if total <= 0:
        return f"{human(current):>8}"
    filled = min(_WIDTH, current * _WIDTH // total)
    drawn = "=" * filled + (">" if filled < _WIDTH else "")
    if filled == _WIDTH:
        drawn = "=" * _WIDTH + ">"
    return f"[{drawn:<{_WIDTH}}] {human(current):>8}/{human(total)}"


def human(count: int) -> str:
    """Four digits, in steps of 1000: 1.234MB."""
    value, unit = float(count), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.4g}{_UNITS[unit]}"
