"""What a manager asks of the leader before it looks at its own state: which index is confirmed, a checkpoint.

Answered here when this manager leads, over RPC otherwise; asked again while there is no leader, since
neither call changes anything. Invariant: a state at or above a confirmed index contains every write that was
acknowledged before the call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from node.loop import Clock, SystemClock
from node.manager.control.base import Leadership
from node.manager.forward import RpcCaller, RpcHandlers, from_rpc, leader_address, to_rpc
from node.rpc import MANAGERS, Identity, RpcError
from raft.errors import MaybeCommitted, NotLeader, RaftError, Unavailable
from raft.store import CHECKPOINT, Applied

CONFIRMED = "cluster.confirmed_index"
CHECKPOINTED = "cluster.checkpoint"
CALL_TIMEOUT_S = 15.0
LEADER_WAIT_S = 10.0
POLL_S = 0.01

_NO_LEADER = "the swarm does not have a leader: see that more than half of the managers are up"

_AGAIN = (NotLeader, Unavailable, MaybeCommitted)


class Log(Leadership, Protocol):
    """The consensus as far as indexes go."""

    @property
    def applied_index(self) -> int: ...

    async def propose(self, command: bytes) -> object: ...

    async def read_barrier(self) -> None: ...


class LeaderCalls:
    """`node_id` is this manager's."""

    def __init__(self, node_id: str, log: Log, client: RpcCaller, clock: Clock | None = None) -> None:
        self._node_id = node_id
        self._log = log
        self._client = client
        self._clock = clock or SystemClock()

    def register(self, server: RpcHandlers) -> None:
        for method, here in ((CONFIRMED, self._confirm), (CHECKPOINTED, self._checkpoint)):
            server.handle(method, _handler(here), roles=MANAGERS)

    async def confirmed_index(self) -> int:
        """Wait until this manager's state contains all that was acknowledged before the call; returns the
        index that the leader confirmed. Raises Unavailable."""
        index = await self._at_leader(CONFIRMED, self._confirm)
        await self.applied(index)
        return index

    async def checkpoint(self) -> int:
        """The index of a new CHECKPOINT in the log. Raises Unavailable."""
        return await self._at_leader(CHECKPOINTED, self._checkpoint)

    async def applied(self, index: int) -> None:
        """Wait until this manager has applied the entry at `index`. Raises Unavailable after 10 s."""
        deadline = self._clock.monotonic() + LEADER_WAIT_S
        while self._log.applied_index < index:
            if self._clock.monotonic() >= deadline:
                raise Unavailable(
                    f"this manager has applied entry {self._log.applied_index} and does not reach {index}: "
                    "try another manager"
                )
            await self._clock.sleep(POLL_S)

    async def _confirm(self) -> int:
        await self._log.read_barrier()
        return self._log.applied_index

    async def _checkpoint(self) -> int:
        outcome = await self._log.propose(CHECKPOINT)
        assert isinstance(outcome, Applied), "a command without changes cannot be refused"
        return outcome.index

    async def _at_leader(self, method: str, here: Callable[[], Awaitable[int]]) -> int:
        deadline = self._clock.monotonic() + LEADER_WAIT_S
        while True:
            problem: RaftError = Unavailable(_NO_LEADER)
            try:
                if self._log.is_leader:
                    return await here()
                address = leader_address(self._log)
                if address and self._log.leader_id != self._node_id:
                    answer = await self._client.call(address, method, b"", timeout=CALL_TIMEOUT_S)
                    return msgspec.json.decode(answer, type=int)
            except RpcError as error:
                problem = from_rpc(error)
            except _AGAIN as error:
                problem = error
            if not isinstance(problem, _AGAIN):
                raise problem
            if self._clock.monotonic() >= deadline:
                raise Unavailable(str(problem)) from problem
            await self._clock.sleep(POLL_S)


def _handler(here: Callable[[], Awaitable[int]]) -> Callable[[Identity | None, bytes], Awaitable[bytes]]:
    async def handle(_caller: Identity | None, _payload: bytes) -> bytes:
        try:
            return msgspec.json.encode(await here())
        except RaftError as error:
            raise to_rpc(error) from error

    return handle
