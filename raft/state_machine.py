"""What the log is applied to: the interface between the agreement and the state that it is about."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol


class StateMachine(Protocol):
    """What the log is applied to, the same on every manager."""

    def apply(self, command: bytes, index: int) -> object:
        """Deterministic; an error is a result."""

    def dump(self) -> object:
        """An immutable picture, made quickly on the event loop."""

    def pieces(self, dump: Any, /) -> Iterator[bytes]:
        """The dump as bytes; runs in a thread."""

    def prepare(self, pieces: Iterable[bytes], /) -> PreparedState:
        """Decode such bytes, aside from the state; runs in a thread. Raises RaftError."""

    def adopt(self, prepared: Any, /) -> None:
        """Replace the state by what was prepared, quickly on the event loop."""


class PreparedState(Protocol):
    def release(self) -> Iterator[None]:
        """Free what is in there, which after adopting is the former state; step by step in a thread."""
