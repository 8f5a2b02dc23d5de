"""Durations and sizes in the words that Docker uses."""

from __future__ import annotations

import time

_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def duration(seconds: float) -> str:
    """ "Less than a second", "5 seconds", "About a minute", "2 hours", "3 days", ..."""
    whole = int(seconds)
    steps = (
        (1, "Less than a second"),
        (2, "1 second"),
        (60, f"{whole} seconds"),
        (120, "About a minute"),
        (3600, f"{whole // 60} minutes"),
    )
    for limit, words in steps:
        if whole < limit:
            return words
    hours = round(seconds / 3600)
    if hours <= 1:
        return "About an hour"
    days = hours // 24
    if hours < 48:
        return f"{hours} hours"
    if days < 14:
        return f"{days} days"
    if days < 60:
        return f"{days // 7} weeks"
    if days < 730:
        return f"{days // 30} months"
    return f"{days // 365} years"


def size(count: float, *, digits: int = 4) -> str:
    """Decimal units and `digits` significant digits: 1.23MB."""
    return _scaled(count, 1000.0, _DECIMAL, digits)


def short_size(count: float) -> str:
    """As the SIZE columns show it: three significant digits."""
    return size(count, digits=3)


def binary_size(count: float) -> str:
    """1024-based: 1.5GiB."""
    return _scaled(count, 1024.0, _BINARY, 4)


def _scaled(count: float, base: float, units: tuple[str, ...], digits: int) -> str:
    unit = 0
    while count >= base and unit < len(units) - 1:
        count /= base
        unit += 1
    return f"{count:.{digits}g}{units[unit]}" if count < 10**digits else f"{count:.0f}{units[unit]}"


def seconds_since(timestamp: str | float | None, now: float | None = None) -> float:
    """Seconds from an API time (RFC 3339 or Unix seconds) until now; 0 for times that were never set."""
    moment = unix_time(timestamp)
    if moment <= 0:
        return 0.0
    return max(0.0, (time.time() if now is None else now) - moment)


def ago(timestamp: str | float | None, now: float | None = None) -> str:
    if unix_time(timestamp) <= 0:
        return "N/A"
    return duration(seconds_since(timestamp, now)) + " ago"


def unix_time(timestamp: str | float | None) -> float:
    """Seconds since 1970 of an API time; 0.0 for none and for Go's zero time (year 1)."""
    if timestamp is None or timestamp == "":
        return 0.0
    if isinstance(timestamp, int | float):
        return float(timestamp)
    import calendar

    text, offset = _split_offset(timestamp)
    date, _, clock = text.partition("T")
    if date.startswith("0001"):
        return 0.0
    clock, _, fraction = clock.partition(".")
    try:
        parsed = time.strptime(f"{date} {clock or '00:00:00'}", "%Y-%m-%d %H:%M:%S")
        return calendar.timegm(parsed) + float(f"0.{fraction or 0}") - offset
    except ValueError:
        return 0.0


def _split_offset(text: str) -> tuple[str, float]:
    if text.endswith("Z"):
        return text[:-1], 0.0
    sign = max(text.rfind("+"), text.rfind("-"))
    if sign > text.find("T") > 0 and ":" in text[sign:]:
        hours, _, minutes = text[sign + 1 :].partition(":")
        seconds = int(hours) * 3600 + int(minutes) * 60
        return text[:sign], float(seconds if text[sign] == "+" else -seconds)
    return text, 0.0


def local_time(timestamp: str | float | None) -> str:
    """As the CreatedAt fields show it: 2026-01-02 15:04:05 +0000 UTC."""
    moment = unix_time(timestamp)
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(moment)) if moment > 0 else ""


def rfc3339(timestamp: str | float | None) -> str:
    """2026-01-02T15:04:05Z, in local time."""
    moment = unix_time(timestamp)
    text = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(moment))
    return text.removesuffix("+0000") + "Z" if text.endswith("+0000") else f"{text[:-2]}:{text[-2:]}"


def nanoseconds(value: int) -> str:
    """Go's notation of a duration: 1m30s, 5s, 250ms, 0s."""
    if value == 0:
        return "0s"
    sign, value = ("-", -value) if value < 0 else ("", value)
    if value < 1_000_000_000:
        for unit, scale in (("ms", 1_000_000), ("µs", 1_000), ("ns", 1)):
            if value >= scale:
                return f"{sign}{value / scale:g}{unit}"
    seconds, rest = divmod(value, 1_000_000_000)
    hours, seconds = divmod(seconds, 3600)
    minutes, seconds = divmod(seconds, 60)
    last = f"{seconds + rest / 1e9:.9g}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{last}"
    return f"{sign}{minutes}m{last}" if minutes else f"{sign}{last}"
