"""Which node each waiting task gets: the best of those that the filters leave.

Owns the ranking: nodes where this version of the service keeps failing come last, then spread preferences,
then fewest tasks of the service, then fewest tasks, then the node's id. Deterministic: the same view gives
the same placement. A task that fits nowhere stays PENDING and says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from raft.objects.base import Kind
from raft.objects.task import Task, TaskState
from scheduler import constraints
from scheduler.actions import Decision, Update, View
from scheduler.filters import NodeRoom, explain, refused_by, still_accepts
from scheduler.slots import node_name

FAILURES_MANY = 5

ASSIGNED_MESSAGE = "scheduler assigned task to node"
PENDING_MESSAGE = "pending task scheduling"


def place(view: View, now: float) -> Decision:
    """Assign every allocated task that waits for a node."""
    waiting = [
        task
        for task in view.tasks.values()
        if task.status.state is TaskState.PENDING and task.desired_state <= TaskState.RUNNING
    ]
    decision = Decision()
    if not waiting:
        return decision
    tasks_of: dict[str, list[Task]] = {}
    for task in view.tasks.values():
        if task.node_id:
            tasks_of.setdefault(task.node_id, []).append(task)
    rooms = {
        node_id: NodeRoom.of(node, tasks_of.get(node_id, ()), now)
        for node_id, node in sorted(view.nodes.items())
    }
    waiting.sort(key=lambda t: (t.meta.created_at, t.service_id, t.spec_version, t.slot, t.id))
    groups: dict[tuple[str, int], list[Task]] = {}
    for task in waiting:
        if task.node_id:
            _fit(task, rooms.get(task.node_id), now, decision)
        else:
            groups.setdefault((task.service_id, task.spec_version), []).append(task)
    for group in groups.values():
        _place_group(group, rooms, now, decision)
    return decision


def _fit(task: Task, room: NodeRoom | None, now: float, decision: Decision) -> None:
    """A task of a global service: its node is given, it only has to have room."""
    if room is None:
        _keep_waiting(task, "no suitable node", now, decision)
    elif refused_by(room, task) is None:
        _assign(task, room, now, decision)
    else:
        _keep_waiting(task, f"no suitable node ({explain([room], task)})", now, decision)


def _place_group(tasks: Sequence[Task], rooms: dict[str, NodeRoom], now: float, decision: Decision) -> None:
    """Tasks of one service version: the filters' fixed answers are asked once."""
    first = tasks[0]
    candidates = [room for room in rooms.values() if refused_by(room, first) is None]
    spread = _Spread(first, rooms.values())
    explanation = ""
    for task in tasks:
        candidates = [room for room in candidates if still_accepts(room, task)]
        if not candidates:
            explanation = explanation or explain(rooms.values(), task)
            reason = f"no suitable node ({explanation})" if explanation else "no suitable node"
            _keep_waiting(task, reason, now, decision)
            continue
        best = min(candidates, key=lambda room: (spread.rank(room), *_rank(room, first)))
        _assign(task, best, now, decision)
        spread.add(best)


def _rank(room: NodeRoom, task: Task) -> tuple[int, int, int, str]:
    failures = room.failures[task.service_id, task.spec_version]
    many = failures if failures >= FAILURES_MANY else 0
    return (many, room.service_tasks[task.service_id], room.tasks, room.node.id)


class _Spread:
    """Copies of the service per group of the nested spread preferences."""

    def __init__(self, task: Task, rooms: Iterable[NodeRoom]) -> None:
        keys = [preference.descriptor for preference in task.spec.placement.preferences]
        self._paths: dict[str, tuple[str, ...]] = {}
        self._counts: Counter[tuple[str, ...]] = Counter()
        for room in rooms if keys else ():
            self._paths[room.node.id] = tuple(constraints.attribute(room.node, key) or "" for key in keys)
            self._count(room, room.service_tasks[task.service_id])

    def rank(self, room: NodeRoom) -> tuple[tuple[int, str], ...]:
        """Level by level: the group with fewest copies, of equal ones the first by name."""
        path = self._paths.get(room.node.id, ())
        return tuple((self._counts[path[: depth + 1]], value) for depth, value in enumerate(path))

    def add(self, room: NodeRoom) -> None:
        self._count(room, 1)

    def _count(self, room: NodeRoom, copies: int) -> None:
        path = self._paths.get(room.node.id, ())
        for depth in range(len(path)):
            self._counts[path[: depth + 1]] += copies


def _assign(task: Task, room: NodeRoom, now: float, decision: Decision) -> None:
    status = msgspec.structs.replace(
        task.status, state=TaskState.ASSIGNED, timestamp=now, message=ASSIGNED_MESSAGE, error=""
    )
    assigned = msgspec.structs.replace(task, node_id=room.node.id, status=status)
    room.add(assigned)
    decision.add(Update(Kind.TASK, assigned, f"assigned to node {node_name(room.node)}"))


def _keep_waiting(task: Task, reason: str, now: float, decision: Decision) -> None:
    if task.status.error == reason:
        return
    status = msgspec.structs.replace(task.status, timestamp=now, message=PENDING_MESSAGE, error=reason)
    decision.add(Update(Kind.TASK, msgspec.structs.replace(task, status=status), reason))
