"""Rolling updates and rollbacks: bring outdated slots to the service's current spec, a few at a time.

Owns `Service.update_status`. An update is whatever makes tasks outdated; scaling alone is none. Everything
is computed from the tasks and the persisted status, so a new leader goes on where the old one was.
A slot is in flight from its new task's creation until that task has run for the update's delay.
Invariant: never more than `parallelism` slots are in flight, and an update always ends: a new task that
does not run by the progress deadline counts as failed.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from raft import defaults
from raft.objects.base import SECOND, Kind
from raft.objects.service import (
    FailureAction,
    Service,
    UpdateConfig,
    UpdateOrder,
    UpdateState,
    UpdateStatus,
)
from raft.objects.task import Task, TaskState
from scheduler.actions import NEVER, Decision, NewId, Update, View
from scheduler.restart import is_settled
from scheduler.slots import (
    SlotKey,
    counts_as_failure,
    is_live,
    is_outdated,
    may_run,
    new_task,
    shut_down,
    slots_of,
)

PROGRESS_DEADLINE_S = 600.0

_ACTIVE = frozenset({UpdateState.UPDATING, UpdateState.ROLLBACK_STARTED})


class Phase(enum.Enum):
    OUTDATED = enum.auto()
    IN_FLIGHT = enum.auto()
    FAILED = enum.auto()
    DONE = enum.auto()


@dataclass(slots=True)
class Progress:
    """Slots by phase; `failed_task` and `stalled` explain the first failure found."""

    phases: dict[SlotKey, Phase] = field(default_factory=dict)
    due: float = NEVER
    running_since: float = 0.0
    failed_task: str = ""
    stalled: bool = False

    def of(self, phase: Phase) -> list[SlotKey]:
        return [key for key, value in self.phases.items() if value is phase]


def advance(service: Service, view: View, now: float, new_id: NewId) -> Decision:
    """Take the next step of this service's update, if it has one."""
    status = service.update_status
    if status is not None and status.state not in _ACTIVE:
        return Decision()
    slots = slots_of(view.tasks_of_service(service.id))
    if status is None:
        if not any(_needs_update(service, tasks) for tasks in slots.values()):
            return Decision()
        status = UpdateStatus(state=UpdateState.UPDATING, started_at=now, message="update in progress")
        service = msgspec.structs.replace(service, update_status=status)
    decision = _step(service, status, slots, view, now, new_id)
    if service is not view.services[service.id] and not _writes_service(decision):
        decision.add(Update(Kind.SERVICE, service, "update started"))
    return decision


def _writes_service(decision: Decision) -> bool:
    return any(action.kind is Kind.SERVICE for action in decision.actions)


def _step(
    service: Service,
    status: UpdateStatus,
    slots: Mapping[SlotKey, Sequence[Task]],
    view: View,
    now: float,
    new_id: NewId,
) -> Decision:
    rolling_back = status.state is UpdateState.ROLLBACK_STARTED
    config = service.spec.rollback if rolling_back else service.spec.update
    progress = _progress(service, config, slots, now)
    decision = Decision(due=progress.due)
    failed, outdated = progress.of(Phase.FAILED), progress.of(Phase.OUTDATED)
    tolerant = config.failure_action is FailureAction.CONTINUE
    if failed and not tolerant and len(failed) / len(slots) > config.max_failure_ratio:
        decision.add(_failed(service, status, config, progress, now))
        return decision
    in_flight = progress.of(Phase.IN_FLIGHT)
    budget = len(outdated) if config.parallelism == 0 else config.parallelism - len(in_flight)
    for key in sorted(outdated, key=lambda k: (_serves(slots[k]), k))[: max(0, budget)]:
        decision.extend(_renew(service, key, slots[key], config, view, now, new_id))
    if not outdated and not in_flight:
        _complete(service, status, config, progress, now, decision)
    return decision


def _progress(
    service: Service,
    config: UpdateConfig,
    slots: Mapping[SlotKey, Sequence[Task]],
    now: float,
) -> Progress:
    progress = Progress()
    for key, tasks in slots.items():
        progress.phases[key] = _phase(service, config, tasks, now, progress)
    return progress


def _phase(
    service: Service,
    config: UpdateConfig,
    tasks: Sequence[Task],
    now: float,
    progress: Progress,
) -> Phase:
    # By version, not by time: the update may have been started by a leader with another clock.
    new = [task for task in tasks if task.spec_version == service.spec_version]
    failures = [task for task in new if counts_as_failure(task)]
    if failures:
        progress.failed_task = progress.failed_task or failures[0].id
        return Phase.FAILED
    if _needs_update(service, tasks):
        return Phase.OUTDATED
    if not new or not is_live(new[-1]):
        return Phase.DONE
    task = new[-1]
    if task.status.state is TaskState.RUNNING:
        # The record was last written when the leader learned that it runs, by that leader's clock.
        since = min(task.meta.updated_at, now)
        progress.running_since = max(progress.running_since, since)
        until = since + config.delay_ns / SECOND
    else:
        until = max(task.meta.created_at, task.restart_at) + PROGRESS_DEADLINE_S
        if now >= until:
            progress.failed_task, progress.stalled = progress.failed_task or task.id, True
            return Phase.FAILED
    if now < until:
        progress.due = min(progress.due, until)
        return Phase.IN_FLIGHT
    return Phase.DONE


def _needs_update(service: Service, tasks: Sequence[Task]) -> bool:
    """Nothing of the current spec serves or will serve the slot."""
    live = [task for task in tasks if is_live(task)]
    if live:
        return all(is_outdated(service, task) for task in live)
    return is_settled(tasks) and is_outdated(service, tasks[-1])


def _serves(tasks: Sequence[Task]) -> bool:
    return any(is_live(task) and task.status.state is TaskState.RUNNING for task in tasks)


def _renew(
    service: Service,
    key: SlotKey,
    tasks: Sequence[Task],
    config: UpdateConfig,
    view: View,
    now: float,
    new_id: NewId,
) -> Decision:
    decision = Decision()
    reason = f"slot {key} is updated to version {service.spec_version}"
    start_first = config.order is UpdateOrder.START_FIRST
    if not start_first:
        decision.add(*(shut_down(task, reason) for task in tasks if is_live(task)))
    waits = not start_first and any(may_run(task, view) for task in tasks)
    decision.add(new_task(service, key, tasks, now, new_id, reason, waits=waits))
    return decision


def _failed(
    service: Service, status: UpdateStatus, config: UpdateConfig, progress: Progress, now: float
) -> Update:
    if progress.stalled:
        cause = f"task {progress.failed_task} not running after {PROGRESS_DEADLINE_S:g}s"
    else:
        cause = f"failure or early termination of task {progress.failed_task}"
    if status.state is UpdateState.ROLLBACK_STARTED:
        return _with_status(service, status, UpdateState.ROLLBACK_PAUSED, f"rollback paused due to {cause}")
    if config.failure_action is FailureAction.ROLLBACK and service.previous_spec is not None:
        return roll_back(service, now, f"update rolled back due to {cause}")
    return _with_status(service, status, UpdateState.PAUSED, f"update paused due to {cause}")


def roll_back(service: Service, now: float, message: str) -> Update:
    """The service with its previous spec, as the start of a rollback."""
    assert service.previous_spec is not None, "nothing to roll back to"
    status = UpdateStatus(state=UpdateState.ROLLBACK_STARTED, started_at=now, message=message)
    rolled = msgspec.structs.replace(
        service,
        spec=service.previous_spec,
        previous_spec=None,
        spec_version=service.spec_version + 1,
        update_status=status,
    )
    return Update(Kind.SERVICE, rolled, message)


def _complete(
    service: Service,
    status: UpdateStatus,
    config: UpdateConfig,
    progress: Progress,
    now: float,
    decision: Decision,
) -> None:
    monitored_until = max(progress.running_since, status.started_at)
    monitored_until += defaults.update_monitor_ns(config) / SECOND
    if now < monitored_until:
        decision.wake_at(monitored_until)
        return
    if status.state is UpdateState.ROLLBACK_STARTED:
        state, message = UpdateState.ROLLBACK_COMPLETED, "rollback completed"
    else:
        state, message = UpdateState.COMPLETED, "update completed"
    status = msgspec.structs.replace(status, completed_at=now)
    decision.add(_with_status(service, status, state, message))


def _with_status(service: Service, status: UpdateStatus, state: UpdateState, message: str) -> Update:
    status = msgspec.structs.replace(status, state=state, message=message)
    return Update(Kind.SERVICE, msgspec.structs.replace(service, update_status=status), message)
