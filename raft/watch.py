"""Watching the store: what changed, in order, with a mark at the end of every transaction.

A watch is bounded. A reader that falls behind loses its queue and gets one `resync` event in its place: it
reads the whole view again. Invariant: a reader that starts its watch before it reads the view, and acts on
every event, never misses a change.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from types import TracebackType
from typing import Literal

import msgspec

from raft.objects.base import Kind, ObjectRecord

Action = Literal["create", "update", "delete", "commit", "resync"]

WATCH_EVENTS_MAX = 10_000


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One change (`old` and `new` as far as they exist), a transaction border, or a request to start over.

    `index` is the log index of the transaction; kind, old and new are None for commit and resync.
    """

    action: Action
    index: int
    kind: Kind | None = None
    old: ObjectRecord | None = None
    new: ObjectRecord | None = None


class Watch:
    """One reader's queue: `with store.watch() as watch: async for event in watch`.

    It records from the moment it is entered until it is left; leaving ends the iteration.
    """

    def __init__(self, hub: Hub, kinds: Collection[Kind] | None, limit: int) -> None:
        self._hub = hub
        self._kinds = None if kinds is None else frozenset(kinds)
        self._limit = limit
        self._events: deque[Event] = deque()
        self._ready = asyncio.Event()
        self._closed = False

    def __enter__(self) -> Watch:
        self._hub.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._closed = True
        self._events.clear()
        self._hub.discard(self)
        self._ready.set()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            if self._closed:
                raise StopAsyncIteration
            self._ready.clear()
            await self._ready.wait()
        return self._events.popleft()

    async def wait(self) -> None:
        """Return when there is at least one event to read, or the watch was closed."""
        while not self._events and not self._closed:
            self._ready.clear()
            await self._ready.wait()

    def drain(self) -> list[Event]:
        """Everything that is queued now, without waiting."""
        events = list(self._events)
        self._events.clear()
        return events

    def _push(self, events: Sequence[Event], commit: Event) -> None:
        wanted = [e for e in events if self._kinds is None or e.kind in self._kinds]
        if not wanted:
            return
        if len(self._events) + len(wanted) + 1 > self._limit:
            self._resync(commit.index)
            return
        self._events.extend(wanted)
        self._events.append(commit)
        self._ready.set()

    def _resync(self, index: int) -> None:
        self._events.clear()
        self._events.append(Event(action="resync", index=index))
        self._ready.set()


class Hub:
    """The store's list of watches. Publishing never blocks and never fails."""

    def __init__(self) -> None:
        self._watches: set[Watch] = set()

    def watch(self, kinds: Collection[Kind] | None, limit: int) -> Watch:
        return Watch(self, kinds, limit)

    def add(self, watch: Watch) -> None:
        self._watches.add(watch)

    def discard(self, watch: Watch) -> None:
        self._watches.discard(watch)

    def publish(self, events: Sequence[Event], index: int) -> None:
        self._each(lambda watch, commit: watch._push(events, commit), index)

    def resync(self, index: int) -> None:
        self._each(lambda watch, commit: watch._resync(commit.index), index)

    def _each(self, deliver: Callable[[Watch, Event], None], index: int) -> None:
        if not self._watches:
            return
        commit = Event(action="commit", index=index)
        for watch in self._watches:
            deliver(watch, commit)
