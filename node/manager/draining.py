"""Tasks that are to stop, held back until no node sends them traffic any more.

Owns the order of a shutdown: first out of DNS and load balancing everywhere, then the stop signal. Pure
bookkeeping over what the nodes acknowledge. Invariant: no stop is held back longer than `DRAIN_S_MAX`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping

import msgspec

# Longer than a silent node has until it counts as down: only slow nodes are waited for.
DRAIN_S_MAX = 5.0


class _Held(msgspec.Struct):
    deadline: float
    waiting_for: dict[str, int]  # node id -> network map version it has to acknowledge


class Draining:
    """Times are monotonic seconds that the caller passes in."""

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}

    @property
    def held(self) -> Collection[str]:
        """Ids of the tasks whose stop must not be sent yet."""
        return self._held.keys()

    def hold(self, task_id: str, waiting_for: Mapping[str, int], now: float) -> None:
        """Hold the stop of this task until these nodes have programmed these versions."""
        if waiting_for:
            self._held[task_id] = _Held(now + DRAIN_S_MAX, dict(waiting_for))

    def acknowledged(self, node_id: str, version: float) -> set[str]:
        """Tasks that may be stopped now. A node that is gone acknowledges everything (infinity)."""
        for held in self._held.values():
            if node_id in held.waiting_for and held.waiting_for[node_id] <= version:
                del held.waiting_for[node_id]
        return self._release(lambda held: not held.waiting_for)

    def expired(self, now: float) -> set[str]:
        """Tasks that have been held back for long enough."""
        return self._release(lambda held: held.deadline <= now)

    def next_deadline(self) -> float:
        return min((held.deadline for held in self._held.values()), default=math.inf)

    def _release(self, may_stop: Callable[[_Held], bool]) -> set[str]:
        released = {task_id for task_id, held in self._held.items() if may_stop(held)}
        for task_id in released:
            del self._held[task_id]
        return released
