"""What one node has to run: the complete set from the store, and the numbered differences to the last one.

Pure, apart from remembering what was sent. Invariants: a node gets exactly the secrets and configs that its
live tasks use; a status the node reported itself is never sent back; sequence numbers have no gaps.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

import msgspec

from raft.objects.assignment import Assignments, NetworkMap
from raft.objects.base import Kind, ObjectRecord
from raft.objects.cluster import Config, Secret
from raft.objects.task import Task, TaskState
from raft.store import View

T = TypeVar("T", bound=ObjectRecord)


class AssignmentSet(msgspec.Struct, frozen=True):
    """By id."""

    tasks: dict[str, Task]
    secrets: dict[str, Secret]
    configs: dict[str, Config]


def assignments_of(view: View, node_id: str, held: Collection[str] = ()) -> AssignmentSet:
    """Everything this node should have now. Ended tasks stay until they are deleted: their logs are kept.

    held: ids of tasks that must go on running for a moment although they are to stop.
    """
    tasks = {
        task.id: msgspec.structs.replace(task, desired_state=TaskState.RUNNING) if task.id in held else task
        for task in view.tasks_of_node(node_id)
        if TaskState.ASSIGNED <= task.status.state < TaskState.ORPHANED
    }
    secret_ids: set[str] = set()
    config_ids: set[str] = set()
    for task in tasks.values():
        if not task.status.state.is_terminal and task.desired_state <= TaskState.COMPLETE:
            secret_ids.update(reference.id for reference in task.spec.container.secrets)
            config_ids.update(reference.id for reference in task.spec.container.configs)
    return AssignmentSet(
        tasks,
        _existing(view, Kind.SECRET, secret_ids, Secret),
        _existing(view, Kind.CONFIG, config_ids, Config),
    )


def _existing(view: View, kind: Kind, ids: Iterable[str], cls: type[T]) -> dict[str, T]:
    found = ((id, view.get(kind, id)) for id in sorted(ids))
    return {id: record for id, record in found if isinstance(record, cls)}


def _same_task(old: Task, new: Task) -> bool:
    """A task's spec never changes, and its status comes from the node itself."""
    return (
        old.desired_state == new.desired_state
        and old.networks == new.networks
        and old.endpoint == new.endpoint
    )


def _same_payload(old: Secret | Config, new: Secret | Config) -> bool:
    return old.spec == new.spec


class AssignmentTracker:
    """What one session's agent has been told, and the next message for it."""

    def __init__(self) -> None:
        self._sequence = 0
        self._sent = AssignmentSet({}, {}, {})
        self._map: NetworkMap | None = None

    def complete(self, current: AssignmentSet, network_map: NetworkMap | None) -> Assignments:
        self._remember(current, network_map)
        return Assignments(
            sequence=self._sequence,
            complete=True,
            tasks=tuple(current.tasks.values()),
            secrets=tuple(current.secrets.values()),
            configs=tuple(current.configs.values()),
            network_map=network_map,
        )

    def difference(self, current: AssignmentSet, network_map: NetworkMap | None) -> Assignments | None:
        """None when the agent knows all of it."""
        sent = self._sent
        map_changed = network_map is not None and network_map != self._map
        tasks = tuple(
            task
            for id, task in current.tasks.items()
            if id not in sent.tasks or not _same_task(sent.tasks[id], task)
        )
        secrets = tuple(
            s
            for id, s in current.secrets.items()
            if id not in sent.secrets or not _same_payload(sent.secrets[id], s)
        )
        configs = tuple(
            c
            for id, c in current.configs.items()
            if id not in sent.configs or not _same_payload(sent.configs[id], c)
        )
        removed = [
            _gone(sent.tasks, current.tasks),
            _gone(sent.secrets, current.secrets),
            _gone(sent.configs, current.configs),
        ]
        if not (tasks or secrets or configs or map_changed or any(removed)):
            return None
        self._remember(current, network_map if map_changed else self._map)
        return Assignments(
            sequence=self._sequence,
            tasks=tasks,
            secrets=secrets,
            configs=configs,
            removed_tasks=removed[0],
            removed_secrets=removed[1],
            removed_configs=removed[2],
            network_map=network_map if map_changed else None,
        )

    def _remember(self, current: AssignmentSet, network_map: NetworkMap | None) -> None:
        self._sequence += 1
        self._sent = current
        self._map = network_map


def _gone(old: Mapping[str, ObjectRecord], new: Mapping[str, ObjectRecord]) -> tuple[str, ...]:
    return tuple(id for id in old if id not in new)
