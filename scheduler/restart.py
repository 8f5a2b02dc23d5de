"""Supervising one wanted slot: replace what was lost, restart what ended, let exactly one task survive.

Owns the restart policy and its delays. Everything is computed from the slot's tasks in the store, so a new
leader decides as the old one would have. A lost node costs no delay; a failed task waits for the policy's
delay as desired READY, longer when it keeps failing. Invariant: at most one task of a slot is wanted
RUNNING, except while a start-first update waits for the new one.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from raft import defaults
from raft.objects.base import SECOND, Kind
from raft.objects.service import RestartCondition, Service
from raft.objects.task import Task, TaskState
from scheduler.actions import Decision, NewId, Update, View
from scheduler.slots import (
    SlotKey,
    has_ended,
    holds_slot,
    is_live,
    is_outdated,
    lost_reason,
    may_run,
    new_task,
    shut_down,
    stop_deadline,
)

BACKOFF_WINDOW_S = 300.0
BACKOFF_FREE_FAILURES = 2  # this many failures in the window restart after the plain delay
BACKOFF_DELAY_MAX_S = 60.0


def supervise(
    service: Service, key: SlotKey, tasks: Sequence[Task], view: View, now: float, new_id: NewId
) -> Decision:
    """Bring one slot to exactly one live task, or to none when the restart policy says so."""
    decision = Decision()
    live: list[Task] = []
    why = ""
    for task in tasks:
        if not is_live(task):
            continue
        why = _end_of(task) or lost_reason(task, view)
        if why:
            decision.add(shut_down(task, why))
        else:
            live.append(task)
    survivors = _survivors(service, live, decision)
    for task in survivors:
        _promote(task, tasks, view, now, decision)
    if not survivors:
        _replace(service, key, tasks, why, view, now, new_id, decision)
    return decision


def is_settled(tasks: Sequence[Task]) -> bool:
    """Nothing is live, the last task ended by itself, and the policy does not want another one."""
    return (
        bool(tasks)
        and not any(is_live(task) for task in tasks)
        and has_ended(tasks[-1])
        and not should_restart(tasks[-1], tasks)
    )


def should_restart(task: Task, slot: Sequence[Task]) -> bool:
    """The policy's answer for a task that ended; attempts are counted up to its end, not up to now."""
    policy = task.spec.restart
    if policy.condition is RestartCondition.NONE:
        return False
    if policy.condition is RestartCondition.ON_FAILURE and task.status.state is TaskState.COMPLETE:
        return False
    if policy.max_attempts == 0:
        return True
    horizon = task.status.timestamp - policy.window_ns / SECOND if policy.window_ns else float("-inf")
    attempts = sum(
        1
        for other in slot
        if other.id != task.id
        and other.spec_version == task.spec_version
        and has_ended(other)
        and other.status.timestamp >= horizon
    )
    return attempts < policy.max_attempts


def restart_delay(task: Task, slot: Sequence[Task], now: float) -> float:
    """Seconds until the next attempt: the policy's delay, doubled for each failure beyond the free ones."""
    delay = defaults.restart_delay_ns(task.spec.restart) / SECOND
    failures = sum(
        1
        for other in slot
        if other.spec_version == task.spec_version
        and other.status.state.is_failure
        and other.status.timestamp > now - BACKOFF_WINDOW_S
    )
    doubled = delay * 2.0 ** max(0, failures - BACKOFF_FREE_FAILURES)
    return float(min(doubled, max(delay, BACKOFF_DELAY_MAX_S)))


def _end_of(task: Task) -> str:
    state = task.status.state
    if not state.is_terminal:
        return ""
    cause = task.status.error or task.status.message
    return f"task {task.id} is {state.name.lower()}" + (f": {cause}" if cause else "")


def _stopped_unasked(task: Task) -> bool:
    """Its agent stopped it although it was wanted: replaced whatever the policy says, but not in a hot loop."""
    return is_live(task) and task.status.state is TaskState.SHUTDOWN


def _survivors(service: Service, live: list[Task], decision: Decision) -> list[Task]:
    """One live task; two only while an outdated one serves until an up-to-date one runs."""
    if len(live) < 2:
        return live
    current = [task for task in live if not is_outdated(service, task)]
    outdated = [task for task in live if is_outdated(service, task)]
    kept = [max(current, key=_worth)] if current else []
    if outdated and not any(task.status.state is TaskState.RUNNING for task in kept):
        kept.insert(0, max(outdated, key=_worth))
    for task in live:
        if task not in kept:
            decision.add(shut_down(task, f"slot is served by task {kept[-1].id}"))
    return kept


def _worth(task: Task) -> tuple[TaskState, TaskState, float, str]:
    return (task.desired_state, task.status.state, task.meta.created_at, task.id)


def _promote(task: Task, slot: Sequence[Task], view: View, now: float, decision: Decision) -> None:
    """READY becomes RUNNING when the delay has passed and nobody holds the slot any more."""
    if task.desired_state is not TaskState.READY:
        return
    if now < task.restart_at:
        decision.wake_at(task.restart_at)
        return
    deadline = stop_deadline(task)
    if now < deadline and any(holds_slot(other, view) for other in slot):
        decision.wake_at(deadline)
        return
    reason = "restart delay is over" if task.restart_at else "the old task has stopped"
    running = msgspec.structs.replace(task, desired_state=TaskState.RUNNING)
    decision.add(Update(Kind.TASK, running, reason))


def _replace(
    service: Service,
    key: SlotKey,
    tasks: Sequence[Task],
    why: str,
    view: View,
    now: float,
    new_id: NewId,
    decision: Decision,
) -> None:
    newest = tasks[-1] if tasks else None
    waits = any(may_run(task, view) for task in tasks)
    if newest is None or not (has_ended(newest) or _stopped_unasked(newest)):
        reason = why or f"slot {key} is empty"
        decision.add(new_task(service, key, tasks, now, new_id, reason, waits=waits))
        return
    if has_ended(newest) and not should_restart(newest, tasks):
        return
    delay = restart_delay(newest, tasks, now)
    reason = f"{_end_of(newest)}; restart in {delay:g}s"
    restart_at = now + delay if delay > 0 else 0.0
    decision.add(new_task(service, key, tasks, now, new_id, reason, waits=waits, restart_at=restart_at))
    if restart_at:
        decision.wake_at(restart_at)
