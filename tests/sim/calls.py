"""Calls between the nodes outside of Raft's connections: how a node without a log asks to be taken in again.

The production LostLog and MembershipKeeper ask, the production Manager._join answers. A request or an answer may
be lost, late or repeated; whoever answers may crash in the middle of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from node.manager.manager import JOIN_METHOD, JoinRequest
from node.manager.manager import Manager as NodeManager
from node.manager.roles import RoleManager
from node.rpc import MANAGER, Identity, RpcError
from raft.errors import FailedPrecondition

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster
    from tests.sim.manager import Manager

Outcome = bytes | RpcError


class Caller:
    """Takes the place of node.rpc.RpcClient on one node."""

    def __init__(self, manager: Manager, cluster: Cluster) -> None:
        self._manager = manager
        self._cluster = cluster

    async def call(self, address: str, method: str, payload: bytes, *, timeout: float) -> bytes:
        assert method == JOIN_METHOD
        loop = self._manager.loop
        answered: asyncio.Future[Outcome] = loop.create_future()

        def answer(outcome: Outcome) -> None:
            if not loop.is_dead:
                loop.call_soon(_resolve, answered, outcome)

        target = next(m for m in self._cluster.managers.values() if m.address == address)
        arrive = partial(self._arrive, target, payload, answer)
        self._cluster.network.post((self._manager.id, target.id), payload, arrive)
        try:
            async with asyncio.timeout(timeout):
                outcome = await answered
        except TimeoutError as err:
            raise RpcError("maybe_committed", f"{address} does not answer") from err
        if isinstance(outcome, RpcError):
            raise outcome
        return outcome

    def _arrive(self, target: Manager, payload: bytes, answer: Callable[[Outcome], None]) -> None:
        network, back = self._cluster.network, (target.id, self._manager.id)

        def reply(outcome: Outcome) -> None:
            data = outcome if isinstance(outcome, bytes) else str(outcome).encode()
            network.post(back, data, partial(answer, outcome))

        if target.up:
            target.command(_serve(target.host, self._manager.id, payload, reply))
        else:
            reply(RpcError("unavailable", f"{target.id} is down"))


def _resolve(answered: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not answered.done():
        answered.set_result(outcome)


async def _serve(host: Host, caller: str, payload: bytes, reply: Callable[[Outcome], None]) -> None:
    try:
        reply(await host.join(caller, payload))
    except RpcError as error:
        reply(error)


class Host(NodeManager):
    """The answering side of the production manager, and nothing else of it."""

    def __init__(self, manager: Manager, cluster: Cluster) -> None:
        self._node_id = manager.id
        self._consensus = manager.consensus
        self._roles = _Roles(manager, cluster)
        self._cluster = cluster

    async def join(self, caller: str, payload: bytes) -> bytes:
        """Raises RpcError."""
        oracle = self._cluster.oracle
        since = oracle.membership_index
        answer = await self._join(Identity(caller, MANAGER, ""), payload)
        if msgspec.json.decode(payload, type=JoinRequest).lost_log:
            oracle.on_expelled(caller, since, self._node_id)
        return answer


class _Roles(RoleManager):
    """Who is to be a manager, the operators say."""

    def __init__(self, manager: Manager, cluster: Cluster) -> None:
        super().__init__(manager.store, manager.consensus)
        self._wanted = cluster.wanted

    def _require_manager(self, node_id: str) -> None:
        if node_id not in self._wanted:
            raise FailedPrecondition(f"node {node_id} is not a manager; promote it first")
