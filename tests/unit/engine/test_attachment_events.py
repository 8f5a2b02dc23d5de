"""Networks and volumes of a container are told of around its start and its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from engine.attachment_events import AttachmentEvents
from engine.container import Container
from engine.events import Event, EventBus
from engine.networks import NetworkProvider


class Endpoint(NamedTuple):
    network: str
    network_name: str


class Sandbox(NamedTuple):
    endpoints: tuple[Endpoint, ...]


class Spec(NamedTuple):
    driver: str


class Network(NamedTuple):
    id: str
    spec: Spec


class Provider:
    def __init__(self) -> None:
        self.made: Sandbox | None = Sandbox((Endpoint("n1", "front"),))

    def sandbox(self, _container_id: str) -> Sandbox | None:
        return self.made

    def networks(self) -> Sequence[Network]:
        return [Network("n1", Spec("bridge"))]


class Mount(NamedTuple):
    kind: str
    name: str
    driver: str = "local"
    target: str = "/data"
    propagation: str = ""
    read_only: bool = True


class Made(NamedTuple):
    id: str
    mounts: list[Mount]


def test_before_the_start_and_after_the_end() -> None:
    provider = Provider()
    container = Made("c1", [Mount("volume", "v"), Mount("bind", "")])
    bus = EventBus()
    bus.companion = AttachmentEvents(
        cast(Any, lambda _ref: cast(Container, container)), cast(NetworkProvider, provider)
    )
    bus.publish("container", "create", "c1", {})
    bus.publish("container", "start", "c1", {})
    provider.made = None  # gone with the process
    bus.publish("container", "die", "c1", {})
    history: list[Event] = list(bus._history)
    assert [f"{event.kind} {event.action}" for event in history] == [
        *("container create", "network connect", "volume mount", "container start"),
        *("container die", "network disconnect", "volume unmount"),
    ]
    assert history[1].attributes == {"container": "c1", "name": "front", "type": "bridge"}
    assert history[5].attributes == history[1].attributes
    assert history[2].attributes["read/write"] == "false"
    assert (history[2].actor_id, history[6].attributes) == ("v", {"container": "c1", "driver": "local"})
    assert bus.published == 7
