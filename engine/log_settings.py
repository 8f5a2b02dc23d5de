"""The log driver of a container and its options, checked when the container is made. Pure, but for `check_log_settings`.

json-file and local are files. syslog and journald are files as well, from which the daemon forwards (log_forwarding);
reading them back is what Docker calls dual logging, and the cache-* options are about these files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from engine.config import LogConfig
from engine.errors import InvalidParameter
from engine.logging_drivers import attributes
from engine.logging_drivers.syslog import SyslogTarget

DRIVERS = ("journald", "json-file", "local", "none", "syslog")
REMOTE = ("journald", "syslog")
_MODE = frozenset({"mode", "max-buffer-size"})
_CACHE = frozenset({"cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"})
_FILES = frozenset({"max-size", "max-file", "compress"})
_OPTIONS = {
    "json-file": _FILES | attributes.OPTIONS,
    "local": _FILES,
    "journald": attributes.OPTIONS,
    "syslog": attributes.OPTIONS | SyslogTarget.OPTIONS,
}
LOCAL_MAX_SIZE, LOCAL_MAX_FILE = 20 * 1024**2, 5
BUFFER_BYTES = 1024**2
_SIZE = re.compile(r"(\d+)([kmgt]?)(?:i?b)?", re.ASCII | re.IGNORECASE)
_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_BOOLEANS = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`max_size` in bytes, 0 is unlimited. `buffer_bytes`: see runtime.wire.LogStyle."""

    driver: str = "json-file"
    max_size: int = 0
    max_file: int = 1
    compress: bool = False
    buffer_bytes: int = 0
    is_readable: bool = True

    @property
    def is_remote(self) -> bool:
        return self.driver in REMOTE


def check_log_settings(config: LogConfig | None) -> None:
    """For a container that is to be made: also whether the socket that the options name is there."""
    settings = log_settings(config)
    if config is not None and settings.driver == "syslog":
        SyslogTarget.parse(config.config or {}).check_path()


def log_settings(config: LogConfig | None) -> LogSettings:
    """InvalidParameter for a driver or an option that is not known, and for a bad value."""
    driver = (config.type if config else "") or "json-file"
    options = (config.config if config else None) or {}
    if driver == "none":
        return LogSettings(driver=driver, is_readable=False)
    buffer_bytes = _buffer_bytes(options)
    if driver not in DRIVERS:
        raise InvalidParameter(
            f"logger: no log driver named '{driver}' is registered: use one of {', '.join(DRIVERS)}"
        )
    for name in options:
        if name not in _OPTIONS[driver] | _MODE | (_CACHE if driver in REMOTE else frozenset()):
            raise InvalidParameter(f"unknown log opt '{name}' for {driver} log driver")
    attributes.check_attributes(options)
    if driver == "json-file":
        return _json_file(options, buffer_bytes)
    if driver == "syslog":
        SyslogTarget.parse(options)
    prefix = "cache-" if driver in REMOTE else ""
    max_file = _count(f"{prefix}max-file", options, LOCAL_MAX_FILE)
    compress = _boolean(f"{prefix}compress", options, max_file > 1)
    if compress and max_file == 1:
        raise InvalidParameter(f"{prefix}compress cannot be true when {prefix}max-file is 1")
    return LogSettings(
        driver=driver,
        max_size=_size(f"{prefix}max-size", options, LOCAL_MAX_SIZE) or LOCAL_MAX_SIZE,
        max_file=max_file,
        compress=compress,
        buffer_bytes=buffer_bytes,
        is_readable=not _boolean("cache-disabled", options, False),
    )


def _json_file(options: Mapping[str, str], buffer_bytes: int) -> LogSettings:
    max_size, max_file = _size("max-size", options, 0), _count("max-file", options, 1)
    compress = _boolean("compress", options, False)
    if compress and (max_file < 2 or not max_size):
        raise InvalidParameter("compress cannot be true when max-file is less than 2 or max-size is not set")
    return LogSettings(max_size=max_size, max_file=max_file, compress=compress, buffer_bytes=buffer_bytes)


def _buffer_bytes(options: Mapping[str, str]) -> int:
    mode = options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise InvalidParameter(f"logger: logging mode not supported: {mode}: use blocking or non-blocking")
    if "max-buffer-size" not in options:
        return BUFFER_BYTES if mode == "non-blocking" else 0
    if mode != "non-blocking":
        raise InvalidParameter("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
    return _size("max-buffer-size", options, BUFFER_BYTES) or BUFFER_BYTES


def _size(name: str, options: Mapping[str, str], default: int) -> int:
    """`10m`, `1g`, `512k` or bytes; -1 is unlimited."""
    text = options.get(name, "")
    if not text:
        return default
    if text == "-1":
        return 0
    match = _SIZE.fullmatch(text)
    if match is None or not int(match[1]):
        raise InvalidParameter(
            f"invalid value for {name}: '{text}': use a number with k, m or g, such as 10m"
        )
    return int(match[1]) * _UNITS[match[2].lower()]


def _count(name: str, options: Mapping[str, str], default: int) -> int:
    text = options.get(name, str(default))
    if not (text.isascii() and text.isdigit() and int(text)):
        raise InvalidParameter(f"invalid value for {name}: '{text}': use a number from 1 upwards")
    return int(text)


def _boolean(name: str, options: Mapping[str, str], default: bool) -> bool:
    text = options.get(name)
    if text is None or text == "":
        return default
    value = _BOOLEANS.get(text.lower())
    if value is None:
        raise InvalidParameter(f"invalid value for {name}: '{text}': use true or false")
    return value
