"""An attachment that begins with what was logged before (`logs=1`): no byte twice, and none left out in between.

The supervisor stamps log lines and tells the moment from which an attachment hears everything, both by the same clock:
what is older comes from the log, the rest from the attachment.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

from engine.attach import AttachSession
from engine.config import LogRecord


class LoggedSession:
    """`batches`: the log. `follows`: go on with the session at its end; its input works from the beginning."""

    def __init__(
        self, session: AttachSession, batches: AsyncGenerator[list[LogRecord], None], *, follows: bool
    ) -> None:
        self.tty = session.tty
        self.since_ns = session.since_ns
        self._session = session
        self._follows = follows
        self._batches: AsyncGenerator[list[LogRecord], None] | None = batches
        self._waiting: list[LogRecord] = []  # last one first

    async def read(self) -> tuple[int, bytes] | None:
        while self._batches is not None:
            if self._waiting:
                record = self._waiting.pop()
                return record.stream, record.data
            batch = await anext(self._batches, None)
            if batch is None:
                self._batches = None
                break
            self._waiting = [
                r for r in reversed(batch) if not self.since_ns or r.timestamp_ns < self.since_ns
            ]
        return await self._session.read() if self._follows else None

    async def write(self, data: bytes) -> None:
        await self._session.write(data)

    async def close_stdin(self) -> None:
        await self._session.close_stdin()

    async def close(self) -> None:
        if self._batches is not None:
            with contextlib.suppress(RuntimeError):  # it is being read: whoever reads is being cancelled
                await self._batches.aclose()
        await self._session.close()
