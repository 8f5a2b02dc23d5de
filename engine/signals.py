"""Signal names and numbers as users write them."""

from __future__ import annotations

import re
import signal

from engine.errors import InvalidParameter

_REAL_TIME = re.compile(r"(RTMIN\+|RTMAX-)(\d+)", re.ASCII)


def parse_signal(text: str) -> int:
    """`SIGTERM`, `term`, `15`, `RTMIN+3`, `RTMAX-1` -> number. InvalidParameter names a bad one."""
    number = _number(text)
    if number is None or not 0 < number <= signal.SIGRTMAX:
        raise InvalidParameter(f"invalid signal: {text}")
    return number


def _number(text: str) -> int | None:
    if text.isascii() and text.isdigit():
        return int(text)
    name = text.upper().removeprefix("SIG")
    real_time = _REAL_TIME.fullmatch(name)
    if real_time is not None:
        offset = int(real_time[2])
        number = signal.SIGRTMIN + offset if real_time[1] == "RTMIN+" else signal.SIGRTMAX - offset
        return number if signal.SIGRTMIN <= number <= signal.SIGRTMAX else None
    known = getattr(signal, f"SIG{name}", None)
    return int(known) if isinstance(known, signal.Signals) else None
