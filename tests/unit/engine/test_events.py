from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping

import pytest

from engine.errors import InvalidParameter
from engine.events import HISTORY_EVENTS_MAX, SUBSCRIBER_EVENTS_MAX, Event, EventBus, matches

SECOND_NS = 1_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> int:
        return int(self.now_s * SECOND_NS)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bus(clock: Clock) -> EventBus:
    return EventBus(clock)


def publish(bus: EventBus, *actions: str) -> None:
    for action in actions:
        bus.publish("container", action, "c1", {"name": "web", "image": "alpine:3"})


async def actions(stream: AsyncGenerator[Event, None]) -> list[str]:
    return [event.action async for event in stream]


async def test_the_past_is_told_from_since_on(bus: EventBus, clock: Clock) -> None:
    for clock.now_s, action in ((1000.0, "create"), (1001.5, "start"), (1003.0, "die")):
        publish(bus, action)
    clock.now_s = 1010.0
    assert await actions(bus.stream(1001.5, 1010.0, {})) == ["start", "die"]
    assert await actions(bus.stream(1001.0, 1002.0, {})) == ["start"]
    assert await actions(bus.stream(0.0, 1002.0, {})) == ["create", "start"]


async def test_without_times_only_what_comes_is_told(bus: EventBus) -> None:
    publish(bus, "create")
    stream = bus.stream(0.0, 0.0, {})
    publish(bus, "start")
    assert (await anext(stream)).action == "start"
    await stream.aclose()
    assert bus._subscribers == set()


async def test_a_slow_reader_gets_all_that_came_before_the_end(bus: EventBus, clock: Clock) -> None:
    stream = bus.stream(0.0, 1005.0, {})
    publish(bus, "start")
    clock.now_s = 1005.0
    publish(bus, "die")
    clock.now_s = 1006.0
    publish(bus, "destroy")
    assert await actions(stream) == ["start", "die"]
    assert bus._subscribers == set()


async def test_until_ends_a_stream_in_which_nothing_happens(bus: EventBus, clock: Clock) -> None:
    assert await actions(bus.stream(0.0, clock.now_s + 0.01, {})) == []


async def test_who_does_not_keep_up_is_cut_off_and_holds_nobody_back(bus: EventBus) -> None:
    stream = bus.stream(0.0, 0.0, {})
    publish(bus, *(str(number) for number in range(SUBSCRIBER_EVENTS_MAX + 10)))
    told = await asyncio.wait_for(actions(stream), 10)
    assert told == [str(number) for number in range(1, SUBSCRIBER_EVENTS_MAX)]
    assert bus._subscribers == set()


async def test_history_is_bounded(bus: EventBus, clock: Clock) -> None:
    publish(bus, *(str(number) for number in range(HISTORY_EVENTS_MAX + 1)))
    told = await actions(bus.stream(1.0, clock.now_s, {}))
    assert (told[0], len(told)) == ("1", HISTORY_EVENTS_MAX)


def test_an_unknown_filter_is_refused_at_once(bus: EventBus) -> None:
    with pytest.raises(InvalidParameter, match="invalid filter 'colour'"):
        bus.stream(0.0, 0.0, {"colour": ["red"]})
    assert bus._subscribers == set()


def event(kind: str, action: str, actor: str, **attributes: str) -> Event:
    return Event(kind=kind, action=action, actor_id=actor, attributes=attributes, time_ns=0)


START = event("container", "start", "c1f0", name="alpine", image="registry:5000/lib/redis:7", tier="back")
HEALTHY = event("container", "health_status: healthy", "c2", name="db", image="alpine:3")
PULL = event("image", "pull", "sha256:1", name="alpine:3")
CONNECT = event("network", "connect", "n1", name="shop", container="c1f0")


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, [START, HEALTHY, PULL, CONNECT]),
        ({"type": ["image", "network"]}, [PULL, CONNECT]),
        ({"event": ["start", "pull"]}, [START, PULL]),
        ({"event": ["health_status"]}, [HEALTHY]),
        ({"event": ["health_status: healthy"]}, [HEALTHY]),
        ({"event": ["health"]}, []),
        ({"container": ["alpine"]}, [START]),
        ({"container": ["c1f0"]}, [START, CONNECT]),
        ({"container": ["c1"]}, [START]),
        ({"image": ["alpine"]}, [HEALTHY, PULL]),
        ({"image": ["alpine:3"]}, [HEALTHY, PULL]),
        ({"image": ["registry:5000/lib/redis"]}, [START]),
        ({"image": ["sha256:1"]}, [PULL]),
        ({"image": ["c1f0"]}, []),
        ({"network": ["shop"]}, [CONNECT]),
        ({"label": ["tier=back"]}, [START]),
        ({"label": ["tier", "tier=front"]}, []),
        ({"scope": ["swarm"]}, []),
        ({"daemon": ["node-1"]}, []),
        ({"type": ["container"], "event": ["start"], "container": []}, [START]),
    ],
)
def test_filters(filters: Mapping[str, list[str]], found: list[Event]) -> None:
    assert [e for e in (START, HEALTHY, PULL, CONNECT) if matches(e, filters)] == found


def test_the_message_of_the_api_has_what_old_clients_read() -> None:
    made = Event(
        kind="container",
        action="die",
        actor_id="c1",
        attributes={"image": "alpine"},
        time_ns=5 * SECOND_NS + 7,
    )
    assert made.to_api() == {
        "Type": "container",
        "Action": "die",
        "Actor": {"ID": "c1", "Attributes": {"image": "alpine"}},
        "scope": "local",
        "time": 5,
        "timeNano": 5 * SECOND_NS + 7,
        "status": "die",
        "id": "c1",
        "from": "alpine",
    }
