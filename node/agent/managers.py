"""The managers that this node knows, on disk, and the order in which it tries them.

Invariant: there is always an address to try once one was known; a redirect to the leader is tried first.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from raft.objects.assignment import ManagerAddress

log = logging.getLogger(__name__)


class KnownManagers:
    """`path`: a JSON file. Addresses are host:port."""

    def __init__(self, path: Path, *, shuffle: Callable[[list[str]], None] = random.shuffle) -> None:
        self._path = path
        self._shuffle = shuffle
        self._managers = self._load()
        self._queue: list[str] = []
        self._leader = ""

    @property
    def all(self) -> Sequence[ManagerAddress]:
        return self._managers

    def replace(self, managers: Iterable[ManagerAddress]) -> None:
        """What a manager said last; an empty list is not believed."""
        new = tuple(managers)
        if not new or new == self._managers:
            return
        self._managers = new
        self._queue.clear()
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            beside = self._path.with_suffix(".new")
            beside.write_bytes(msgspec.json.encode(new))
            beside.replace(self._path)
        except OSError as error:
            log.error("the list of managers cannot be saved: %s", error)

    def redirect(self, leader: str) -> None:
        """Try this address next."""
        self._leader = leader

    def next(self) -> str:
        """The next address to try, all of them in turn; "" when none is known."""
        if self._leader:
            leader, self._leader = self._leader, ""
            return leader
        if not self._queue:
            self._queue = self._shuffled()
        return self._queue.pop() if self._queue else ""

    def lost(self, address: str) -> None:
        """The session with that manager ended: the others are tried first."""
        others = self._shuffled(without=address)
        self._queue = [address, *others] if others else []

    @property
    def all_tried(self) -> bool:
        """Has every one been named by `next` since the last time that this was so?"""
        return not self._queue

    def _shuffled(self, without: str = "") -> list[str]:
        found = [manager.address for manager in self._managers if manager.address != without]
        self._shuffle(found)
        return found

    def _load(self) -> tuple[ManagerAddress, ...]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=tuple[ManagerAddress, ...])
        except FileNotFoundError:
            return ()
        except (OSError, msgspec.MsgspecError) as error:
            log.error("the list of managers cannot be read: %s", error)
            return ()
