"""What a decision is: the changes to make to the store, each with a reason, and when to look again.

Owns the vocabulary between the pure deciders and whoever carries their decisions out. Deciders read a
`View` (of the shape of the store's) and return a `Decision`; they never write, wait, log or read a clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from raft.objects.base import Kind, ObjectRecord
from raft.objects.cluster import Cluster, Config, Network, Secret
from raft.objects.node import Node
from raft.objects.service import Service
from raft.objects.task import Task

NewId = Callable[[], str]
NEVER = math.inf


class View(Protocol):
    """The applied state of the cluster, read only."""

    @property
    def nodes(self) -> Mapping[str, Node]: ...
    @property
    def services(self) -> Mapping[str, Service]: ...
    @property
    def tasks(self) -> Mapping[str, Task]: ...
    @property
    def networks(self) -> Mapping[str, Network]: ...
    @property
    def secrets(self) -> Mapping[str, Secret]: ...
    @property
    def configs(self) -> Mapping[str, Config]: ...
    @property
    def cluster(self) -> Cluster | None: ...
    def tasks_of_service(self, service_id: str) -> list[Task]: ...
    def tasks_of_node(self, node_id: str) -> list[Task]: ...


@dataclass(frozen=True, slots=True)
class Create:
    """Write an object that does not exist yet."""

    kind: Kind
    obj: ObjectRecord
    reason: str


@dataclass(frozen=True, slots=True)
class Update:
    """Replace an object; `obj.meta.version` is the version that the decision was made from."""

    kind: Kind
    obj: ObjectRecord
    reason: str


@dataclass(frozen=True, slots=True)
class Delete:
    kind: Kind
    id: str
    reason: str


Action = Create | Update | Delete


@dataclass(slots=True)
class Decision:
    """Actions in order, and the earliest time (Unix seconds) at which deciding again can differ."""

    actions: list[Action] = field(default_factory=list)
    due: float = NEVER

    def add(self, *actions: Action) -> None:
        self.actions.extend(actions)

    def wake_at(self, time: float) -> None:
        self.due = min(self.due, time)

    def extend(self, other: Decision) -> None:
        self.actions.extend(other.actions)
        self.wake_at(other.due)


def id_of(action: Action) -> str:
    return action.id if isinstance(action, Delete) else action.obj.id


def describe(action: Action) -> str:
    """One line for logs and transcripts: what is written and why."""
    verb = type(action).__name__.lower()
    return f"{verb} {action.kind} {id_of(action)}: {action.reason}"
