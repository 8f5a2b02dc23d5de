"""Clearing away: tasks whose time is over, old history, services that were told to go.

Owns deletions. A task is deleted when it was told to be removed and nothing of it runs any more, when it
never reached a node and is not wanted, or when its slot has more history than the cluster keeps.
Invariant: a task that may still have a container is never deleted.
"""

from __future__ import annotations

from raft.objects.base import Kind
from raft.objects.service import Service
from raft.objects.task import Task, TaskState
from scheduler.actions import Decision, Delete, View
from scheduler.slots import is_live, remove_all, slots_of


def tidy_service(service_id: str, view: View) -> Decision:
    """One service's tasks; also of a service that is no longer there."""
    decision = Decision()
    service = view.services.get(service_id)
    tasks = view.tasks_of_service(service_id)
    gone = service is None or service.pending_delete
    if gone:
        decision.add(*remove_all((t for t in tasks if not _is_over(t, view)), "service was removed"))
    deletable = {task.id for task in tasks if _is_over(task, view) and (gone or not _is_history(task))}
    decision.add(*(Delete(Kind.TASK, task_id, "removed and stopped") for task_id in sorted(deletable)))
    if service is None:
        return decision
    if service.pending_delete:
        if len(deletable) == len(tasks):
            decision.add(Delete(Kind.SERVICE, service_id, "all its tasks have stopped"))
        return decision
    decision.extend(_trim_history(service, [t for t in tasks if t.id not in deletable], view))
    return decision


def _is_over(task: Task, view: View) -> bool:
    """Nothing of it runs, nor ever will: ended, never given to a node, or its node is gone for good."""
    state = task.status.state
    if state.is_terminal:
        return True
    return not is_live(task) and (state < TaskState.ASSIGNED or task.node_id not in view.nodes)


def _is_history(task: Task) -> bool:
    """Worth showing: it was on a node, and nobody asked for its removal."""
    return task.desired_state < TaskState.REMOVE and task.status.state >= TaskState.ASSIGNED


def _trim_history(service: Service, tasks: list[Task], view: View) -> Decision:
    decision = Decision()
    limit = view.cluster.spec.task_history_limit if view.cluster else 5
    if limit < 0:
        return decision
    attempts = service.spec.task.restart.max_attempts
    if attempts:
        limit = max(limit, attempts + 1)  # the restart policy counts these
    if len(tasks) <= limit:
        return decision
    for slot in slots_of(tasks).values():
        # The newest one stays in any case: it tells whether the slot is finished or has to be filled.
        over = [task for task in slot[:-1] if not is_live(task) and _is_over(task, view)]
        for task in over[: max(0, len(slot) - limit)]:
            decision.add(Delete(Kind.TASK, task.id, f"history keeps {limit} tasks per slot"))
    return decision
