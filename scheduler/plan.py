"""One pass of the leader: orchestrate, allocate and place, as one list of changes.

Owns the order of the stages. Each stage sees what the earlier ones decided, so that a new service's tasks
are created, given addresses and given nodes in a single transaction.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from raft.objects.service import ServiceMode
from scheduler import global_mode, housekeeping, replicated, update
from scheduler.actions import NEVER, Action, NewId, View
from scheduler.allocator import allocate
from scheduler.placement import place
from scheduler.staging import Staging


@dataclass(frozen=True, slots=True)
class Plan:
    """Actions in commit order, and for each service looked at when to look again (Unix s, or NEVER)."""

    actions: list[Action]
    dues: dict[str, float]


def decide(view: View, now: float, new_id: NewId, dirty: Collection[str] | None = None) -> Plan:
    """What is to be changed now. `dirty`: ids of the services to look at; None: all of them."""
    staging = Staging(view)
    dues = {}
    for service_id in sorted(dirty if dirty is not None else _all_services(view)):
        dues[service_id] = _orchestrate(service_id, staging, now, new_id)
    staging.stage(allocate(staging, now).actions)
    staging.stage(place(staging, now).actions)
    return Plan(staging.merged(), dues)


def _all_services(view: View) -> set[str]:
    """Also those that are gone and have left tasks behind."""
    return set(view.services) | {task.service_id for task in view.tasks.values()}


def _orchestrate(service_id: str, staging: Staging, now: float, new_id: NewId) -> float:
    """Stage one service's decisions; returns when to look at it again."""
    due = NEVER
    staging.stage(housekeeping.tidy_service(service_id, staging).actions)
    service = staging.services.get(service_id)
    if service is None or service.pending_delete:
        return due
    reconcile = global_mode.reconcile if service.spec.mode is ServiceMode.GLOBAL else replicated.reconcile
    for step in (reconcile, update.advance):
        decision = step(staging.services[service_id], staging, now, new_id)
        staging.stage(decision.actions)
        due = min(due, decision.due)
    return due
