"""Leaving a terminal without ending what runs in it: the detach keys, found in what the client types.

Only with a terminal, as Docker does: without one, input is data.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from engine.attach import AttachSession
from engine.errors import InvalidParameter

DEFAULT_KEYS = b"\x10\x11"  # ctrl-p,ctrl-q
_CONTROLS = "@abcdefghijklmnopqrstuvwxyz[\\]^_"


def detach_keys(text: str) -> bytes:
    """ "ctrl-p,x" -> the bytes that these keys send; "" -> b"". InvalidParameter for keys that there are not."""
    keys = bytearray()
    for key in text.split(",") if text else ():
        if len(key) == 1 and key.isascii():
            keys += key.encode()
        elif key.startswith("ctrl-") and len(key) == 6 and key[5].lower() in _CONTROLS:
            keys.append(_CONTROLS.index(key[5].lower()))
        else:
            raise InvalidParameter(
                f"invalid detach keys ({text}) provided: use letters or ctrl-LETTER, separated by commas"
            )
    return bytes(keys)


class DetachableSession:
    """A session that ends for its reader when the keys were typed. What begins like them is held back until it is clear."""

    def __init__(self, session: AttachSession, keys: bytes, detached: Callable[[], object]) -> None:
        self.tty = session.tty
        self.since_ns = session.since_ns
        self._session = session
        self._keys = keys
        self._matched = 0
        self._detached = detached
        self._left = asyncio.Event()

    async def read(self) -> tuple[int, bytes] | None:
        if self._left.is_set():
            return None
        reading = asyncio.ensure_future(self._session.read())
        leaving = asyncio.ensure_future(self._left.wait())
        try:
            await asyncio.wait((reading, leaving), return_when=asyncio.FIRST_COMPLETED)
            return reading.result() if reading.done() else None
        finally:
            reading.cancel()
            leaving.cancel()
            await asyncio.gather(reading, leaving, return_exceptions=True)

    async def write(self, data: bytes) -> None:
        if self._left.is_set():
            return
        passed = self._passed(data)
        if passed:
            await self._session.write(passed)
        if self._matched == len(self._keys):
            self._left.set()
            self._detached()

    async def close_stdin(self) -> None:
        if not self._left.is_set():
            await self._session.close_stdin()

    async def close(self) -> None:
        await self._session.close()

    def _passed(self, data: bytes) -> bytes:
        passed = bytearray()
        for byte in data:
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    break
                continue
            passed += self._keys[: self._matched]
            self._matched = 1 if byte == self._keys[0] else 0
            if not self._matched:
                passed.append(byte)
        return bytes(passed)


def detachable(session: AttachSession, keys: bytes, detached: Callable[[], object]) -> AttachSession:
    """`keys` empty: the usual ones."""
    return DetachableSession(session, keys or DEFAULT_KEYS, detached) if session.tty else session
