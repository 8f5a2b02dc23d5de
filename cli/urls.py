"""Percent-encoding of paths and queries (urllib.parse would be a third of a command's start-up time)."""

from __future__ import annotations

import json
from typing import Any

_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~:@,")


def quote(value: str, *, keep: str = "") -> str:
    """One path segment or query value; `keep` lists further characters that stay as they are."""
    safe = _SAFE | frozenset(keep.encode())
    return "".join(chr(byte) if byte in safe else f"%{byte:02X}" for byte in value.encode())


def quote_query(query: dict[str, Any]) -> str:
    """`?a=1&b=x`, or nothing. None and "" are left out; True is 1, False is 0; lists repeat; maps are JSON."""
    pairs: list[str] = []
    for name, value in query.items():
        if value is None or value in ("", {}):
            continue
        for item in value if isinstance(value, list) else [value]:
            pairs.append(f"{name}={quote(_text(item))}")
    return "?" + "&".join(pairs) if pairs else ""


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, dict):
        return json.dumps(value)
    return str(value)


def unquote(text: str) -> str:
    """Percent-encoded UTF-8 back to text; a stray percent sign stays as it is."""
    if "%" not in text:
        return text
    head, *parts = text.encode().split(b"%")
    out = bytearray(head)
    for part in parts:
        try:
            out.append(int(part[:2], 16))
            out += part[2:]
        except ValueError:
            out += b"%" + part
    return out.decode(errors="replace")
