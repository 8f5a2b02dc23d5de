"""A slot and its tasks: what is live in it, what still holds it, and how a new task for it looks.

Owns the words of the orchestrators. A slot is named by its number (replicated) or by its node's id
(global); its tasks are always listed oldest first. Tasks that are to be removed are no part of any slot.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from raft import defaults
from raft.objects.base import SECOND, Kind, Meta
from raft.objects.node import Availability, Node, NodeState
from raft.objects.service import RestartCondition, Service
from raft.objects.task import Task, TaskState, TaskStatus
from scheduler import constraints
from scheduler.actions import Action, Create, NewId, Update, View

SlotKey = int | str

# Waiting for an old task that does not report its end is given up this long after its grace period.
STOP_WAIT_S = 60.0

# Tasks of a slot are told apart by age; this is the least difference.
AGE_STEP_S = 0.001

# How a task ends by itself; SHUTDOWN and ORPHANED are done to it.
ENDED = frozenset({TaskState.COMPLETE, TaskState.FAILED, TaskState.REJECTED})


def slots_of(tasks: Iterable[Task]) -> dict[SlotKey, list[Task]]:
    slots: dict[SlotKey, list[Task]] = {}
    for task in sorted(tasks, key=lambda t: (t.meta.created_at, t.spec_version, t.id)):
        if task.desired_state < TaskState.REMOVE:
            slots.setdefault(task.slot or task.node_id, []).append(task)
    return slots


def is_live(task: Task) -> bool:
    """Wanted to run (it may have ended without anybody having reacted yet)."""
    return task.desired_state <= TaskState.RUNNING


def has_ended(task: Task) -> bool:
    return task.status.state in ENDED


def is_outdated(service: Service, task: Task) -> bool:
    """Made from another spec than the service's. The same spec under a new version is up to date."""
    if task.spec_version == service.spec_version:
        return False
    endpoint = task.endpoint
    return task.spec != service.spec.task or (endpoint is not None and endpoint.spec != service.spec.endpoint)


def lost_reason(task: Task, view: View) -> str:
    """Why the task cannot stay on its node; "" when it can, or has none."""
    if not task.node_id:
        return ""
    node = view.nodes.get(task.node_id)
    if node is None:
        return f"node {task.node_id} was removed"
    if node.status.state is NodeState.DOWN:
        return f"node {node_name(node)} is down"
    if node.spec.availability is Availability.DRAIN:
        return f"node {node_name(node)} is drained"
    wanted = task.spec.placement.constraints
    if wanted and not constraints.satisfied(wanted, node):
        return f"node {node_name(node)} no longer satisfies the scheduling constraints"
    return ""


def node_name(node: Node) -> str:
    return node.spec.annotations.name or node.description.hostname or node.id


def holds_slot(task: Task, view: View) -> bool:
    """Told to stop, but its container may still run on a node that is there."""
    return not is_live(task) and may_run(task, view)


def may_run(task: Task, view: View) -> bool:
    """Its container may run, on a node that is there."""
    if not task.status.state.uses_node:
        return False
    node = view.nodes.get(task.node_id)
    return node is not None and node.status.state is not NodeState.DOWN


def stop_deadline(task: Task) -> float:
    """When a waiting task starts although the old one has not reported its end (Unix seconds)."""
    return task.meta.created_at + STOP_WAIT_S + defaults.stop_grace_period_ns(task.spec) / SECOND


def counts_as_failure(task: Task) -> bool:
    """Failed, or ended although it should have run for ever."""
    if task.status.state is TaskState.COMPLETE:
        return task.spec.restart.condition is RestartCondition.ANY
    return task.status.state.is_failure


def shut_down(task: Task, reason: str, desired: TaskState = TaskState.SHUTDOWN) -> Update:
    return Update(Kind.TASK, msgspec.structs.replace(task, desired_state=desired), reason)


def remove_all(tasks: Iterable[Task], reason: str) -> list[Action]:
    return [
        shut_down(task, reason, TaskState.REMOVE) for task in tasks if task.desired_state < TaskState.REMOVE
    ]


def new_task(
    service: Service,
    key: SlotKey,
    earlier: Sequence[Task],
    now: float,
    new_id: NewId,
    reason: str,
    *,
    waits: bool = False,
    restart_at: float = 0.0,
) -> Create:
    """A task from the service's spec. `waits`: prepared only, until the old one has stopped.

    It is younger than the slot's `earlier` tasks even when this leader's clock is behind the last one's.
    """
    created_at = max(now, earlier[-1].meta.created_at + AGE_STEP_S) if earlier else now
    task = Task(
        id=new_id(),
        meta=Meta(created_at=created_at, updated_at=now),
        service_id=service.id,
        service_name=service.spec.annotations.name,
        slot=key if isinstance(key, int) else 0,
        node_id=key if isinstance(key, str) else "",
        spec=service.spec.task,
        spec_version=service.spec_version,
        status=TaskStatus(state=TaskState.NEW, timestamp=now, message="created"),
        desired_state=TaskState.READY if waits or restart_at > now else TaskState.RUNNING,
        restart_at=restart_at,
    )
    return Create(Kind.TASK, task, reason)
