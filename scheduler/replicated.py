"""Replicated services: as many slots as the spec says, each with one task.

Owns which slots exist. Growing fills the lowest free slots; shrinking gives up slots without a node first,
then those on the nodes with most copies, there those that do not run. What happens inside a slot is
`restart`'s business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count, islice

from raft.objects.service import Service
from raft.objects.task import Task, TaskState
from scheduler.actions import Decision, NewId, View
from scheduler.restart import supervise
from scheduler.slots import has_ended, is_live, lost_reason, remove_all, slots_of

Slots = Mapping[int, Sequence[Task]]


def reconcile(service: Service, view: View, now: float, new_id: NewId) -> Decision:
    slots = {
        key: tasks
        for key, tasks in slots_of(view.tasks_of_service(service.id)).items()
        if isinstance(key, int)
    }
    occupied = [key for key, tasks in slots.items() if _is_occupied(tasks)]
    wanted = service.spec.replicas
    decision = Decision()
    if len(occupied) > wanted:
        ranked = _ranked(occupied, slots, view)
        occupied, given_up = ranked[:wanted], ranked[wanted:]
        for key in given_up:
            decision.add(*remove_all(slots[key], f"scaled down to {wanted}"))
    kept = set(occupied)
    free = (slot for slot in count(1) if slot not in kept)
    kept.update(islice(free, wanted - len(kept)))
    for key in sorted(kept):
        decision.extend(supervise(service, key, slots.get(key, ()), view, now, new_id))
    return decision


def _is_occupied(tasks: Sequence[Task]) -> bool:
    return has_ended(tasks[-1]) or any(is_live(task) for task in tasks)


def _representative(tasks: Sequence[Task]) -> Task:
    """The task that stands for the slot: the one that serves, else the newest live one, else the newest."""
    live = [task for task in tasks if is_live(task)]
    running = [task for task in live if task.status.state is TaskState.RUNNING]
    return (running or live or list(tasks))[-1]


def _ranked(occupied: Sequence[int], slots: Slots, view: View) -> list[int]:
    """Most worth keeping first."""
    homeless: list[int] = []
    by_node: dict[str, list[tuple[bool, int]]] = {}
    for key in occupied:
        task = _representative(slots[key])
        if not task.node_id or not is_live(task) or lost_reason(task, view):
            homeless.append(key)
        else:
            by_node.setdefault(task.node_id, []).append((task.status.state is not TaskState.RUNNING, key))
    # The n-th copy of every node comes before any (n+1)-th one: the fullest nodes lose first.
    placed = [
        (copy, not_running, key)
        for copies in by_node.values()
        for copy, (not_running, key) in enumerate(sorted(copies))
    ]
    return [key for _, _, key in sorted(placed)] + sorted(homeless)
