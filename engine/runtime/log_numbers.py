"""The numbers of lines that are forwarded: the last one of a log, and how far its lines were sent.

The writer goes on counting from the higher of the two, so that no number is given twice, whatever a crash left of the files.
"""

# Plain strings: the supervisor uses this.

from __future__ import annotations

import contextlib
import os

import msgspec

from engine.runtime.log_rotation import PACKED

_TAIL_BYTES = 256 * 1024  # more than the longest line, of 16 KiB before it is escaped
_DIGITS = 20


class _Numbered(msgspec.Struct):
    number: int = 0


def last_number(path: str) -> int:
    """Of the newest whole line; 0 when there is none."""
    for name in (path, f"{path}.1", f"{path}.1{PACKED}"):
        with contextlib.suppress(OSError, EOFError):
            found = _last_in(_tail(name))
            if found:
                return found
    return sent_number(path)


def mark_name(path: str) -> str:
    """The file beside a log that says how far it was sent."""
    return f"{path}.sent"


def sent_number(path: str) -> int:
    """Of the last line that was sent; 0 when there is none, or it cannot be read."""
    try:
        with open(mark_name(path), "rb") as file:
            text = file.read(_DIGITS + 1).strip()
    except OSError:
        return 0
    return int(text) if text.isdigit() else 0


def write_mark(descriptor: int, number: int) -> None:
    """In one small write, which the kernel takes whole."""
    os.pwrite(descriptor, b"%0*d\n" % (_DIGITS, number), 0)


def _tail(name: str) -> bytes:
    if name.endswith(PACKED):
        import gzip

        with gzip.open(name) as packed:
            return packed.read()[-_TAIL_BYTES:]
    with open(name, "rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - _TAIL_BYTES, 0))
        return file.read()


def _last_in(data: bytes) -> int:
    for line in reversed(data.split(b"\n")):
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            return msgspec.json.decode(line, type=_Numbered).number
    return 0
