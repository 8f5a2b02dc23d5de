"""Signal names and numbers as users write them."""

from __future__ import annotations

import signal

from engine.errors import InvalidParameter


def parse_signal(text: str) -> int:
    """`SIGTERM`, `term`, `15`, `RTMIN+3` -> number. InvalidParameter names a bad one."""
    if text.isdecimal() and 0 < int(text) <= signal.SIGRTMAX:
        return int(text)
    name = text.upper().removeprefix("SIG")
    base, _, offset = name.partition("+")
    known = getattr(signal, f"SIG{base}", None)
    if isinstance(known, signal.Signals) and (not offset or (base == "RTMIN" and offset.isdecimal())):
        return int(known) + int(offset or 0)
    raise InvalidParameter(f"invalid signal: {text}")
