"""Which nodes are alive: a deadline per node, moved by everything that is heard from it.

Pure bookkeeping over a monotonic time that the caller passes in. Invariant: a node is reported dead once,
and only after its whole grace passed while this manager was itself able to listen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

MISSED_HEARTBEATS = 3
HEARTBEAT_JITTER = 0.1
CLOSED_GRACE_S = 2.0
RESTART_GRACE_S = 20.0
DEAF_S_MAX = 20.0
# Nodes that were never heard from since a restore: their agents try all managers that they knew in turn, with
# pauses of up to 8 s, and their tasks run meanwhile.
UNKNOWN_GRACE_S = 60.0


def silence_s_max(heartbeat_s: float) -> float:
    """How long a node with an open session may be silent."""
    return MISSED_HEARTBEATS * heartbeat_s * (1 + HEARTBEAT_JITTER)


class Ear:
    """Whether this manager can hear at all: its own node's agent has a session as every other's.

    A manager that has just come to lead, or whose machine is starved, may hear nobody in time, itself included:
    then the others are not to blame, for DEAF_S_MAX at most.
    """

    def __init__(self, node_id: str, now: float) -> None:
        """`node_id`: of this manager, empty when it has no agent."""
        self._node_id = node_id
        self._deaf_since = now

    def opened(self, node_id: str) -> None:
        if node_id == self._node_id:
            self._deaf_since = math.inf

    def closed(self, node_id: str, now: float) -> None:
        if node_id == self._node_id:
            self._deaf_since = now

    def is_deaf(self, now: float) -> bool:
        return bool(self._node_id) and 0 <= now - self._deaf_since < DEAF_S_MAX


class Liveness:
    """Deadlines by node id. A node without one is not watched (down already, or removed)."""

    def __init__(self) -> None:
        self._deadlines: dict[str, float] = {}

    def expect(self, node_id: str, by: float) -> None:
        """The node has to be heard from by then."""
        self._deadlines[node_id] = by

    def forget(self, node_id: str) -> None:
        self._deadlines.pop(node_id, None)

    def next_deadline(self) -> float:
        return min(self._deadlines.values(), default=math.inf)

    def shift(self, seconds: float) -> None:
        """This manager was not running for so long: nobody is to blame for that time."""
        self._deadlines = {node_id: by + seconds for node_id, by in self._deadlines.items()}

    def expired(self, now: float) -> Iterable[str]:
        """Nodes whose time is over; they are forgotten."""
        dead = [node_id for node_id, by in self._deadlines.items() if by <= now]
        for node_id in dead:
            del self._deadlines[node_id]
        return dead
