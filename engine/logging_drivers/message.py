"""What a log driver sends on: one line of a container, and who takes it."""

from __future__ import annotations

from typing import Protocol

import msgspec

from engine.config import LogRecord


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """The container as its lines name it. `attributes`: labels and variables that the options chose."""

    container_id: str
    container_name: str
    image_name: str
    tag: str
    attributes: dict[str, str]


class Sink(Protocol):
    """Where lines go. Not thread-safe; reconnects by itself with the next `send`.

    `portion`: how many lines may be sent before they have to be flushed; all of them are sent again when one fails.
    """

    @property
    def portion(self) -> int: ...

    async def check(self) -> None:
        """OSError, with the reason, when nobody takes lines now."""

    async def send(self, record: LogRecord) -> None:
        """OSError when it was not taken: send it again, or give up."""

    async def flush(self) -> None:
        """Return when what was sent has left this process. OSError as with `send`."""

    def close(self) -> None: ...
