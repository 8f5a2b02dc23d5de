"""The tables of the store and their indexes: plain dictionaries of frozen objects.

Owns where an object is found; knows nothing of transactions, versions or consensus. Invariant: every index
is exactly what a scan of the tables would give. Reads are O(1) or O(result).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar, cast

from raft.objects.base import Kind, ObjectRecord
from raft.objects.task import Task

NAMED_KINDS = frozenset({Kind.SERVICE, Kind.NETWORK, Kind.SECRET, Kind.CONFIG, Kind.CLUSTER})

_Key = TypeVar("_Key")

_NO_TASKS: Mapping[str, Task] = MappingProxyType({})


def name_of(record: ObjectRecord) -> str:
    """The user's name of an object of a named kind."""
    return cast(str, record.spec.annotations.name)  # type: ignore[attr-defined]


class Tables:
    """All objects of the cluster. Only the store's apply and load change it."""

    def __init__(self) -> None:
        self._rows: dict[Kind, dict[str, ObjectRecord]] = {kind: {} for kind in Kind}
        self._names: dict[Kind, dict[str, str]] = {kind: {} for kind in NAMED_KINDS}
        self._by_service: dict[str, dict[str, Task]] = {}
        self._by_node: dict[str, dict[str, Task]] = {}
        self._by_slot: dict[tuple[str, int], dict[str, Task]] = {}

    def rows(self, kind: Kind) -> Mapping[str, ObjectRecord]:
        return self._rows[kind]

    def id_of_name(self, kind: Kind, name: str) -> str | None:
        return self._names[kind].get(name)

    def tasks_of_service(self, service_id: str) -> Mapping[str, Task]:
        return self._by_service.get(service_id, _NO_TASKS)

    def tasks_of_node(self, node_id: str) -> Mapping[str, Task]:
        return self._by_node.get(node_id, _NO_TASKS)

    def tasks_of_slot(self, service_id: str, slot: int) -> Mapping[str, Task]:
        return self._by_slot.get((service_id, slot), _NO_TASKS)

    def put(self, kind: Kind, record: ObjectRecord) -> ObjectRecord | None:
        """Insert or replace; returns what was there."""
        rows = self._rows[kind]
        old = rows.get(record.id)
        rows[record.id] = record
        if kind is Kind.TASK:
            self._index_task(cast("Task | None", old), cast(Task, record))
        elif kind in NAMED_KINDS:
            self._index_name(kind, old, record)
        return old

    def remove(self, kind: Kind, object_id: str) -> ObjectRecord | None:
        old = self._rows[kind].pop(object_id, None)
        if old is None:
            return None
        if kind is Kind.TASK:
            self._index_task(cast(Task, old), None)
        elif kind in NAMED_KINDS:
            self._index_name(kind, old, None)
        return old

    def copy_rows(self) -> dict[Kind, list[ObjectRecord]]:
        """A list per table; the objects are frozen, so this is a consistent picture that never changes."""
        return {kind: list(rows.values()) for kind, rows in self._rows.items()}

    def parts(self) -> list[object]:
        """All objects and the smaller dictionaries, for whoever lets go of them a few at a time."""
        tables: list[Mapping[Any, object]] = [*self._rows.values()]
        tables += [self._by_service, self._by_node, self._by_slot]
        return [part for table in tables for part in table.values()]

    def exchange(self, other: Tables) -> None:
        """Swap everything with the other one, whatever its size."""
        self.__dict__, other.__dict__ = other.__dict__, self.__dict__

    def _index_name(self, kind: Kind, old: ObjectRecord | None, new: ObjectRecord | None) -> None:
        names = self._names[kind]
        # The name may already belong to another object that this same transaction renamed to it.
        if old is not None and names.get(name_of(old)) == old.id:
            del names[name_of(old)]
        if new is not None:
            names[name_of(new)] = new.id

    def _index_task(self, old: Task | None, new: Task | None) -> None:
        if old is not None and (new is None or not _same_place(old, new)):
            _drop(self._by_service, old.service_id, old.id)
            _drop(self._by_slot, (old.service_id, old.slot), old.id)
            _drop(self._by_node, old.node_id, old.id)
        if new is not None:
            self._by_service.setdefault(new.service_id, {})[new.id] = new
            self._by_slot.setdefault((new.service_id, new.slot), {})[new.id] = new
            self._by_node.setdefault(new.node_id, {})[new.id] = new


def _same_place(old: Task, new: Task) -> bool:
    return (old.service_id, old.slot, old.node_id) == (new.service_id, new.slot, new.node_id)


def _drop(index: dict[_Key, dict[str, Task]], key: _Key, task_id: str) -> None:
    tasks = index.get(key)
    if tasks is None:
        return
    tasks.pop(task_id, None)
    if not tasks:
        del index[key]
