"""A view with staged changes on top: lets one pass orchestrate, allocate and place in one transaction.

Owns the merged picture while a pass is being decided, and the merged list of actions at its end (an object
that was created, allocated and placed is one creation). Never writes to the view below. Invariant: reads
answer as the view below would after the staged actions were applied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar, cast

from raft.objects.base import Kind, ObjectRecord
from raft.objects.cluster import Cluster, Config, Network, Secret
from raft.objects.node import Node
from raft.objects.service import Service
from raft.objects.task import Task
from scheduler.actions import Action, Create, Delete, Update, View, id_of

R = TypeVar("R", bound=ObjectRecord)

# Networks first, tasks last: a long list is committed in parts, and each part should stand on its own.
_COMMIT_ORDER = {
    Kind.CLUSTER: 0,
    Kind.NODE: 1,
    Kind.NETWORK: 2,
    Kind.SECRET: 3,
    Kind.CONFIG: 4,
    Kind.SERVICE: 5,
    Kind.TASK: 6,
}


class _Layered(Mapping[str, R]):
    """One table with staged rows; None marks a deleted one. Order: the table's, then the new rows."""

    def __init__(self, base: Mapping[str, R], staged: Mapping[str, ObjectRecord | None]) -> None:
        self._base = base
        self._staged = cast("Mapping[str, R | None]", staged)

    def __getitem__(self, key: str) -> R:
        found = self._staged[key] if key in self._staged else self._base[key]
        if found is None:
            raise KeyError(key)
        return found

    def __iter__(self) -> Iterator[str]:
        for key in self._base:
            if self._staged.get(key, self) is not None:
                yield key
        for key, obj in self._staged.items():
            if obj is not None and key not in self._base:
                yield key

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Staging:
    """A `View` over another one; `stage` puts a decision's actions into it."""

    def __init__(self, base: View) -> None:
        self._base = base
        self._staged: dict[Kind, dict[str, ObjectRecord | None]] = {kind: {} for kind in _COMMIT_ORDER}
        self._reasons: dict[tuple[Kind, str], list[str]] = {}
        self._created: set[tuple[Kind, str]] = set()

    def stage(self, actions: Iterable[Action]) -> None:
        for action in actions:
            key = (action.kind, id_of(action))
            self._reasons.setdefault(key, []).append(action.reason)
            if isinstance(action, Create):
                self._created.add(key)
            self._staged[action.kind][key[1]] = None if isinstance(action, Delete) else action.obj

    def merged(self) -> list[Action]:
        """One action per object, reasons joined, in commit order; created and deleted again is nothing."""
        merged: list[Action] = []
        for kind in sorted(self._staged, key=_COMMIT_ORDER.__getitem__):
            for object_id, obj in self._staged[kind].items():
                key = (kind, object_id)
                reason = "; ".join(dict.fromkeys(self._reasons[key]))
                if obj is None:
                    if key not in self._created:
                        merged.append(Delete(kind, object_id, reason))
                elif key in self._created:
                    merged.append(Create(kind, obj, reason))
                else:
                    merged.append(Update(kind, obj, reason))
        return merged

    @property
    def nodes(self) -> Mapping[str, Node]:
        return self._table(Kind.NODE, self._base.nodes)

    @property
    def services(self) -> Mapping[str, Service]:
        return self._table(Kind.SERVICE, self._base.services)

    @property
    def tasks(self) -> Mapping[str, Task]:
        return self._table(Kind.TASK, self._base.tasks)

    @property
    def networks(self) -> Mapping[str, Network]:
        return self._table(Kind.NETWORK, self._base.networks)

    @property
    def secrets(self) -> Mapping[str, Secret]:
        return self._base.secrets

    @property
    def configs(self) -> Mapping[str, Config]:
        return self._base.configs

    @property
    def cluster(self) -> Cluster | None:
        return self._base.cluster

    def tasks_of_service(self, service_id: str) -> list[Task]:
        return self._merge(self._base.tasks_of_service(service_id), "service_id", service_id)

    def tasks_of_node(self, node_id: str) -> list[Task]:
        return self._merge(self._base.tasks_of_node(node_id), "node_id", node_id)

    def _table(self, kind: Kind, base: Mapping[str, R]) -> Mapping[str, R]:
        staged = self._staged[kind]
        return _Layered(base, staged) if staged else base

    def _merge(self, base: list[Task], field: str, value: str) -> list[Task]:
        staged = cast("dict[str, Task | None]", self._staged[Kind.TASK])
        if not staged:
            return base
        tasks = [task for task in base if task.id not in staged]
        tasks.extend(task for task in staged.values() if task is not None and getattr(task, field) == value)
        return tasks
