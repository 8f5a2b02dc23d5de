"""The log driver of a container and its options, checked when the container is made. Pure."""

from __future__ import annotations

import re

import msgspec

from engine.config import LogConfig
from engine.errors import InvalidParameter

DRIVERS = ("json-file", "none")
# Docker's other options of json-file only add attributes to lines or pack old files: accepted, without effect.
_OPTIONS = frozenset(
    {"max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag"}
    | {"mode", "max-buffer-size"}
)
_SIZE = re.compile(r"(\d+)([kmg]?)b?", re.ASCII | re.IGNORECASE)
_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`max_size` in bytes, 0 is unlimited."""

    driver: str = "json-file"
    max_size: int = 0
    max_file: int = 1


def log_settings(config: LogConfig | None) -> LogSettings:
    """InvalidParameter for a driver or an option that is not known, and for a bad value."""
    driver = (config.type if config else "") or "json-file"
    if driver not in DRIVERS:
        raise InvalidParameter(
            f"logger: no log driver named '{driver}' is registered: use one of {', '.join(DRIVERS)}"
        )
    options = (config.config if config else None) or {}
    if driver == "none":
        return LogSettings(driver=driver)
    for name in options:
        if name not in _OPTIONS:
            raise InvalidParameter(f"unknown log opt '{name}' for {driver} log driver")
    max_file = options.get("max-file", "1")
    if not (max_file.isascii() and max_file.isdigit() and int(max_file)):
        raise InvalidParameter(f"invalid value for max-file: '{max_file}': use a number from 1 upwards")
    return LogSettings(driver=driver, max_size=_size(options.get("max-size", "-1")), max_file=int(max_file))


def _size(text: str) -> int:
    """`10m`, `1g`, `512k` or bytes; -1 is unlimited."""
    if text == "-1":
        return 0
    match = _SIZE.fullmatch(text)
    if match is None or not int(match[1]):
        raise InvalidParameter(
            f"invalid value for max-size: '{text}': use a number with k, m or g, such as 10m"
        )
    return int(match[1]) * _UNITS[match[2].lower()]
