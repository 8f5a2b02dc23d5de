"""Which events of the swarm `docker events` shows, with Docker's attributes."""

from __future__ import annotations

from typing import Any

import msgspec

from node.swarm_events import SwarmEvents
from raft.objects.base import Annotations, Kind, Meta, ObjectRecord
from raft.objects.cluster import Secret, SecretSpec
from raft.objects.node import ManagerStatus, Node, NodeDescription, NodeState, NodeStatus
from raft.objects.service import Service, ServiceSpec, UpdateState, UpdateStatus
from raft.watch import Action, Event


class Bus:
    def __init__(self) -> None:
        self.told: list[tuple[str, str, str, dict[str, str], str]] = []

    def publish(
        self,
        kind: str,
        action: str,
        actor_id: str,
        attributes: dict[str, str] | None = None,
        *,
        scope: str = "local",
    ) -> None:
        self.told.append((kind, action, actor_id, attributes or {}, scope))


def told(action: Action, kind: Kind, old: ObjectRecord | None, new: ObjectRecord | None) -> list[Any]:
    bus = Bus()
    SwarmEvents(bus)._tell(Event(action=action, index=1, kind=kind, old=old, new=new))
    return bus.told


SERVICE = Service(id="s1", spec=ServiceSpec(annotations=Annotations(name="web"), replicas=2))


def test_the_life_of_a_service() -> None:
    assert told("create", Kind.SERVICE, None, SERVICE) == [
        ("service", "create", "s1", {"name": "web"}, "swarm")
    ]
    assert told("delete", Kind.SERVICE, SERVICE, None) == [
        ("service", "remove", "s1", {"name": "web"}, "swarm")
    ]
    more = msgspec.structs.replace(SERVICE, spec=msgspec.structs.replace(SERVICE.spec, replicas=3))
    (scaled,) = told("update", Kind.SERVICE, SERVICE, more)
    assert scaled[3] == {"name": "web", "replicas.new": "3", "replicas.old": "2"}


def test_the_states_of_an_update() -> None:
    begun = msgspec.structs.replace(SERVICE, update_status=UpdateStatus(state=UpdateState.UPDATING))
    ended = msgspec.structs.replace(SERVICE, update_status=UpdateStatus(state=UpdateState.COMPLETED))
    assert told("update", Kind.SERVICE, SERVICE, begun)[0][3] == {
        "name": "web",
        "updatestate.new": "updating",
    }
    assert told("update", Kind.SERVICE, begun, ended)[0][3] == {
        "name": "web",
        "updatestate.new": "completed",
        "updatestate.old": "updating",
    }


def test_what_only_the_system_notes_is_no_event() -> None:
    noted = msgspec.structs.replace(SERVICE, meta=Meta(version=9), spec_version=2)
    assert told("update", Kind.SERVICE, SERVICE, noted) == []
    assert told("commit", Kind.SERVICE, None, None) == []


def test_nodes() -> None:
    down = Node(id="n1", description=NodeDescription(hostname="one"), status=NodeStatus(state=NodeState.DOWN))
    ready = msgspec.structs.replace(
        down, status=NodeStatus(state=NodeState.READY), manager=ManagerStatus(leader=True)
    )
    assert told("update", Kind.NODE, down, ready)[0][3] == {
        "name": "one",
        "state.new": "ready",
        "state.old": "down",
        "leader.new": "true",
        "leader.old": "false",
    }


def test_secrets() -> None:
    secret = Secret(id="x", spec=SecretSpec(annotations=Annotations(name="key")))
    assert told("create", Kind.SECRET, None, secret) == [("secret", "create", "x", {"name": "key"}, "swarm")]
