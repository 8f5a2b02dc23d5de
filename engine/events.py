"""Events of this host: what happened to which object, in order, for `docker events` and for the daemon.

Owns a bounded history (so that `since` works) and bounded queues of subscribers. A subscriber that does not
keep up loses its subscription with a `lagged` mark rather than holding the engine back.
"""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import AsyncIterator, Callable, Mapping

import msgspec

HISTORY_EVENTS_MAX = 1024
SUBSCRIBER_EVENTS_MAX = 4096


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


class EventBus:
    """Publishes to all subscribers at once; never blocks the publisher."""

    def __init__(self, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._clock_ns = clock_ns
        self._history: collections.deque[Event] = collections.deque(maxlen=HISTORY_EVENTS_MAX)
        self._subscribers: set[asyncio.Queue[Event | None]] = set()

    def publish(
        self, kind: str, action: str, actor_id: str, attributes: Mapping[str, str] | None = None
    ) -> Event:
        event = Event(
            kind=kind,
            action=action,
            actor_id=actor_id,
            attributes=dict(attributes or {}),
            time_ns=self._clock_ns(),
        )
        self._history.append(event)
        for queue in tuple(self._subscribers):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._subscribers.discard(queue)
                queue.get_nowait()
                queue.put_nowait(None)
        return event

    async def stream(
        self, since: float, until: float, filters: Mapping[str, list[str]]
    ) -> AsyncIterator[Event]:
        """Past events from `since` (Unix seconds; 0: none), then new ones until `until` (0: for ever)."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue(SUBSCRIBER_EVENTS_MAX)
        past = [event for event in self._history if since and event.time_ns >= since * 1e9]
        self._subscribers.add(queue)
        try:
            for event in past:
                if (not until or event.time_ns <= until * 1e9) and matches(event, filters):
                    yield event
            while True:
                remaining = until - self._clock_ns() / 1e9 if until else None
                if remaining is not None and remaining <= 0:
                    return
                try:
                    event_or_end = await asyncio.wait_for(queue.get(), remaining)
                except TimeoutError:
                    return
                if event_or_end is None:
                    return
                if matches(event_or_end, filters):
                    yield event_or_end
        finally:
            self._subscribers.discard(queue)


def matches(event: Event, filters: Mapping[str, list[str]]) -> bool:
    """Docker's event filters: values of one key are alternatives, keys must all hold."""
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
        return all(_has_label(attributes, value) for value in values)
    if key in ("container", "image", "network", "volume", "node", "service", "secret", "config"):
        if event.kind != key and not (key == "image" and event.kind == "container"):
            return key == "container" and event.kind == "network" and attributes.get("container") in values
        names = {event.actor_id, attributes.get("name", ""), attributes.get("image", "")}
        return any(value in names or event.actor_id.startswith(value) for value in values)
    return False


def _has_label(attributes: Mapping[str, str], wanted: str) -> bool:
    name, separator, value = wanted.partition("=")
    return name in attributes and (not separator or attributes[name] == value)
