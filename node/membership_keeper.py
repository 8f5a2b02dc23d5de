"""Sees to it that the managers count this one, at the address that it has now.

A joiner asks to be added, a member that came back elsewhere for its address to be changed; both by the same
request to whoever leads. A member that hears no leader asks as well: a late request of its former life may have
had it taken out, and then nobody would tell it. Never asks for a node that was removed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from node.identity import NodeIdentity
from node.loop import Backoff, Clock, SystemClock
from node.manager.manager import JOIN_METHOD, JoinRequest
from node.rpc import RpcClient, RpcError
from raft.consensus import Consensus
from raft.errors import FailedPrecondition, RaftError

logger = logging.getLogger(__name__)

ASK_TIMEOUT_S = 60.0
RECHECK_S = 5.0
SILENT_S = 5.0  # without a leader: the others may not count this manager any more
SETTLE_S = 1.0  # after an answer: the entry that it speaks of may still be on its way to this node


class MembershipKeeper:
    """`others`: where managers are known to be. `add_here`: what to do when this manager itself leads."""

    def __init__(
        self,
        identity: NodeIdentity,
        consensus: Consensus,
        client: RpcClient,
        others: Callable[[], Sequence[str]],
        add_here: Callable[[str, str], Awaitable[None]],
        clock: Clock | None = None,
    ) -> None:
        self._identity = identity
        self._consensus = consensus
        self._client = client
        self._others = others
        self._add_here = add_here
        self._clock = clock or SystemClock()
        self._problem = ""
        self._counted = asyncio.Event()
        self._changed = asyncio.Event()
        consensus.on_change(self._changed.set)

    async def run(self) -> None:
        backoff = Backoff()
        while True:
            self._changed.clear()
            if self._counts():
                self._counted.set()
                backoff.reset()
                if await self._clock.wait(self._changed, RECHECK_S) or not self._is_left_out():
                    continue
            problem = await self._ask()
            if problem is None:
                await self._clock.wait(self._changed, SETTLE_S)
            else:
                self._problem = problem
                logger.info("not counted at %s yet: %s", self._identity.rpc_address, problem)
                await self._clock.sleep(backoff.next())

    async def joined(self, timeout_s: float) -> None:
        """Return when the managers count this node. Raises FailedPrecondition when they do not in that time."""
        if not await self._clock.wait(self._counted, timeout_s):
            raise FailedPrecondition(f"the managers did not add this node: {self._problem or 'no answer'}")

    def _counts(self) -> bool:
        identity = self._identity
        known = self._consensus.members().get(identity.node_id)
        return known == identity.rpc_address or self._consensus.is_removed

    def _is_left_out(self) -> bool:
        """Perhaps; whoever leads answers at once when it is not so."""
        return self._consensus.leader_heard_s_ago > SILENT_S and not self._consensus.is_removed

    async def _ask(self) -> str | None:
        """None when it was done, else why not."""
        identity = self._identity
        if self._consensus.is_leader:
            try:
                await self._add_here(identity.node_id, identity.rpc_address)
                return None
            except RaftError as error:
                return str(error)
        addresses = [address for address in (self._consensus.leader_address, *self._others()) if address]
        problem = "no other manager is known"
        for address in dict.fromkeys(addresses):
            answer = await self._ask_at(address)
            if answer is None:
                return None
            problem = f"{address} says: {answer}"
        return problem

    async def _ask_at(self, address: str, redirected: bool = False) -> str | None:
        request = msgspec.json.encode(JoinRequest(address=self._identity.rpc_address))
        try:
            await self._client.call(address, JOIN_METHOD, request, timeout=ASK_TIMEOUT_S)
        except RpcError as error:
            if error.code == "not_leader" and error.detail and not redirected:
                return await self._ask_at(error.detail, redirected=True)
            return error.message
        return None
