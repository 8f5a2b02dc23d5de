"""One agent's session on the leader: what still has to be sent to it, and the sending.

Owns the order of messages: session information, then assignments, then log subscriptions. What to send is
worked out from the store at the moment of sending, so a slow agent gets fewer, larger differences and
nothing queues up. Invariant: only `run_sender` writes to the stream.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection

from node.manager.assignments import AssignmentSet, AssignmentTracker, assignments_of
from node.rpc import RpcError, Stream
from raft.codec import to_json
from raft.objects.assignment import (
    Assignments,
    Goodbye,
    Leave,
    LogSubscribe,
    LogUnsubscribe,
    ManagerMessage,
    NetworkMap,
    SessionMessage,
)
from raft.store import View

LOG_REQUESTS_MAX = 1000


class AgentSession:
    """`network_version`: the last network map version that the node has programmed."""

    def __init__(self, session_id: str, node_id: str, stream: Stream, now: float) -> None:
        self.id = session_id
        self.node_id = node_id
        self.heard_at = now
        self.network_version = 0
        self.goodbye: Goodbye | None = None  # what the agent said at its end
        self._stream = stream
        self._tracker = AssignmentTracker()
        self._wake = asyncio.Event()
        self._info: SessionMessage | None = None
        self._log_requests: deque[LogSubscribe | LogUnsubscribe] = deque()
        self._leave: Leave | None = None
        self._started = False
        self._stale = True

    def assignments_changed(self) -> None:
        self._stale = True
        self._wake.set()

    def information_changed(self) -> None:
        self._wake.set()

    def request_logs(self, request: LogSubscribe | LogUnsubscribe) -> None:
        """Raises RpcError when the agent does not take them fast enough."""
        if len(self._log_requests) >= LOG_REQUESTS_MAX:
            raise RpcError("unavailable", f"node {self.node_id} does not answer")
        self._log_requests.append(request)
        self._wake.set()

    def leave(self, reason: str) -> None:
        """Tell the agent that its node is no part of the cluster, then close."""
        self._leave = Leave(reason=reason)
        self._wake.set()

    async def close(self) -> None:
        await self._stream.close()

    async def run_sender(
        self,
        view: Callable[[], View],
        information: Callable[[AgentSession], SessionMessage],
        network_map: Callable[[str], NetworkMap],
        held: Callable[[], Collection[str]],
    ) -> None:
        """Until the agent has been told to leave. Raises RpcError when the stream is closed."""
        while True:
            await self._send_information(information)
            if self._leave is not None:
                await self._send(self._leave)
                return
            if self._stale:
                self._stale = False
                current = assignments_of(view(), self.node_id, held())
                message = self._next_assignments(current, network_map(self.node_id))
                if message is not None:
                    await self._send(message)
            while self._log_requests:
                await self._send(self._log_requests.popleft())
            await self._wake.wait()
            self._wake.clear()

    def _next_assignments(self, current: AssignmentSet, network_map: NetworkMap) -> Assignments | None:
        if self._started:
            return self._tracker.difference(current, network_map)
        self._started = True
        return self._tracker.complete(current, network_map)

    async def _send_information(self, information: Callable[[AgentSession], SessionMessage]) -> None:
        current = information(self)
        if current != self._info:
            self._info = current
            await self._send(current)

    async def _send(self, message: ManagerMessage) -> None:
        await self._stream.send(to_json(message))
