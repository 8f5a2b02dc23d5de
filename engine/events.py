"""Events of this host: what happened to which object, in order, for `docker events` and for the daemon.

Owns a bounded history (so that `since` works) and bounded queues of subscribers. A subscriber that does not
keep up loses its subscription with a `lagged` mark rather than holding the engine back.
"""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from typing import Protocol

import msgspec

from engine.filter_values import check_filters, has_label

HISTORY_EVENTS_MAX = 1024
SUBSCRIBER_EVENTS_MAX = 4096
_KINDS = (
    *("builder", "config", "container", "daemon", "image", "network", "node"),
    *("plugin", "secret", "service", "volume"),
)
FILTERS = ("event", "label", "scope", "type", *_KINDS)


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """`kind`: container, image, network, volume, daemon, ... `action`: create, start, die, ..."""

    kind: str
    action: str
    actor_id: str
    attributes: dict[str, str]
    time_ns: int
    scope: str = "local"

    def to_api(self) -> dict[str, object]:
        """The EventMessage of the Docker Engine API, with the legacy fields that old clients read."""
        message: dict[str, object] = {
            "Type": self.kind,
            "Action": self.action,
            "Actor": {"ID": self.actor_id, "Attributes": self.attributes},
            "scope": self.scope,
            "time": self.time_ns // 1_000_000_000,
            "timeNano": self.time_ns,
        }
        if self.kind == "container":
            message |= {"status": self.action, "id": self.actor_id, "from": self.attributes.get("image", "")}
        elif self.kind == "image":
            message |= {"status": self.action, "id": self.actor_id}
        return message


class Companion(Protocol):
    """What else there is to tell of an event: (kind, action, id, attributes)."""

    def before(
        self, kind: str, action: str, actor_id: str
    ) -> Iterable[tuple[str, str, str, dict[str, str]]]: ...
    def after(
        self, kind: str, action: str, actor_id: str
    ) -> Iterable[tuple[str, str, str, dict[str, str]]]: ...


class EventBus:
    """Publishes to all subscribers at once; never blocks the publisher."""

    def __init__(self, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._clock_ns = clock_ns
        self._history: collections.deque[Event] = collections.deque(maxlen=HISTORY_EVENTS_MAX)
        self._subscribers: set[asyncio.Queue[Event | None]] = set()
        self.companion: Companion | None = None
        self.published = 0

    @property
    def subscribers(self) -> int:
        return len(self._subscribers)

    def publish(
        self,
        kind: str,
        action: str,
        actor_id: str,
        attributes: Mapping[str, str] | None = None,
        *,
        scope: str = "local",
    ) -> Event:
        """The event, with what its companion says before and after it."""
        companion = self.companion
        for told in () if companion is None else companion.before(kind, action, actor_id):
            self._publish(*told, scope="local")
        event = self._publish(kind, action, actor_id, dict(attributes or {}), scope)
        for told in () if companion is None else companion.after(kind, action, actor_id):
            self._publish(*told, scope="local")
        return event

    def _publish(
        self, kind: str, action: str, actor_id: str, attributes: dict[str, str], scope: str
    ) -> Event:
        event = Event(
            kind=kind,
            action=action,
            actor_id=actor_id,
            attributes=attributes,
            time_ns=self._clock_ns(),
            scope=scope,
        )
        self._history.append(event)
        self.published += 1
        for queue in tuple(self._subscribers):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._subscribers.discard(queue)
                queue.get_nowait()
                queue.put_nowait(None)
        return event

    def stream(
        self, since: float, until: float, filters: Mapping[str, list[str]]
    ) -> AsyncGenerator[Event, None]:
        """Past events from `since` (Unix seconds; 0: none, or all when there is an `until`), then new ones until
        `until` (0: for ever). Nothing that happens after this call is missed. InvalidParameter: unknown filter.
        """
        check_filters(filters, FILTERS)
        queue: asyncio.Queue[Event | None] = asyncio.Queue(SUBSCRIBER_EVENTS_MAX)
        past = [e for e in self._history if (since or until) and e.time_ns >= since * 1e9]
        self._subscribers.add(queue)
        return self._stream(past, queue, until, filters)

    async def _stream(
        self,
        past: Iterable[Event],
        queue: asyncio.Queue[Event | None],
        until: float,
        filters: Mapping[str, list[str]],
    ) -> AsyncGenerator[Event, None]:
        try:
            for event in past:
                if (not until or event.time_ns <= until * 1e9) and matches(event, filters):
                    yield event
            while (following := await self._next(queue, until)) is not None:
                if until and following.time_ns > until * 1e9:
                    return
                if matches(following, filters):
                    yield following
        finally:
            self._subscribers.discard(queue)

    async def _next(self, queue: asyncio.Queue[Event | None], until: float) -> Event | None:
        """None at the end: `until` has come and all that came before is read, or the subscriber lagged."""
        if not until or not queue.empty():
            return await queue.get()
        try:
            async with asyncio.timeout(until - self._clock_ns() / 1e9):
                return await queue.get()
        except TimeoutError:
            return None


def matches(event: Event, filters: Mapping[str, list[str]]) -> bool:
    """Docker's event filters: values of one key are alternatives (but labels), keys must all hold."""
    return all(_matches_one(event, key, values) for key, values in filters.items() if values)


def _matches_one(event: Event, key: str, values: list[str]) -> bool:
    attributes = event.attributes
    if key == "type":
        return event.kind in values
    if key == "event":
        return any(event.action == value or event.action.startswith(f"{value}:") for value in values)
    if key == "scope":
        return event.scope in values
    if key == "label":
        return all(has_label(attributes, value) for value in values)
    if key == "image":
        return _is_about_image(event, values)
    if key == "container" and event.kind == "network":
        return attributes.get("container") in values
    names = (event.actor_id, attributes.get("name", ""))
    return event.kind == key and any(name.startswith(value) for name in names for value in values)


def _is_about_image(event: Event, values: list[str]) -> bool:
    """Events of an image, and of containers made from it; with or without its tag."""
    if event.kind == "image":
        names = {event.actor_id, event.attributes.get("name", "")}
    elif event.kind == "container":
        names = {event.attributes.get("image", "")}
    else:
        return False
    return any(value in names | {_without_tag(name) for name in names} for value in values)


def _without_tag(name: str) -> str:
    head, _, last = name.rpartition("/")
    plain = last.partition("@")[0].partition(":")[0]
    return f"{head}/{plain}" if head else plain
