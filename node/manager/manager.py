"""A manager: the store, the control API, and what only the leader runs.

Owns the terms of leadership: when this manager becomes leader, all leader-only parts start in one task
group; when it is not any more, they are cancelled and waited for before anything else starts. Invariant:
the parts of two terms never overlap on one manager.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import msgspec

from node.loop import Backoff, Clock, SystemClock
from node.manager.control.base import Leadership
from node.manager.controlapi import ControlApi
from node.manager.forward import (
    ControlProxy,
    RpcCaller,
    RpcHandlers,
    leader_address,
    register_control,
    to_rpc,
)
from node.manager.leader import LeaderLoop
from node.manager.roles import Membership, RoleManager
from node.rpc import MANAGERS, Identity, RpcError
from raft.errors import NotLeader, RaftError
from raft.store import Store

log = logging.getLogger(__name__)

JOIN_METHOD = "control.join_managers"
# Shorter than the caller waits: what it gave up must not be done when it has gone on by another way.
EXPEL_TIMEOUT_S = 20.0

LeaderPart = Callable[[], Awaitable[None]]


class Consensus(Membership, Protocol):
    """The managers' group as this module uses it."""

    def on_change(self, callback: Callable[[], None]) -> object:
        """Call back whenever leadership or membership changed."""


class JoinRequest(msgspec.Struct, frozen=True):
    """A manager's request to be counted at `address` (host:port); it is who its certificate says it is.

    With `lost_log` the opposite: it begins without a log, and asks that nothing it did before counts. Answered
    by Expelled; then it asks to be added.
    """

    address: str
    lost_log: bool = False


class Expelled(msgspec.Struct, frozen=True):
    """The next life of that manager votes in no term up to `term`, as if it had voted for `leader_id`."""

    term: int
    leader_id: str


class Manager:
    """`parts`: what else runs on the leader only (the dispatcher, the log broker): each until cancelled."""

    def __init__(
        self,
        node_id: str,
        store: Store,
        consensus: Consensus,
        client: RpcCaller,
        *,
        parts: Mapping[str, LeaderPart],
        clock: Clock | None = None,
    ) -> None:
        self._node_id = node_id
        self._clock = clock or SystemClock()
        self._consensus = consensus
        self._changed = asyncio.Event()
        self.api = ControlApi(store, consensus, self._clock.now)
        self.control = ControlProxy(node_id, self.api, consensus, client, self._clock)
        self._leader = LeaderLoop(store, self._clock)
        self._roles = RoleManager(store, consensus, self._clock)
        self._parts: dict[str, LeaderPart] = {
            "leader loop": self._leader.run,
            "roles": self._roles.run,
            **parts,
        }
        consensus.on_change(self._on_change)

    def register(self, server: RpcHandlers) -> None:
        """Answer the other managers."""
        register_control(server, self.api, self._consensus)
        server.handle(JOIN_METHOD, self._join, roles=MANAGERS)

    async def run(self) -> None:
        """Lead whenever this manager is the leader, until cancelled."""
        backoff = Backoff()
        while True:
            self._changed.clear()
            if not self._consensus.is_leader:
                await self._changed.wait()
                continue
            log.info("this manager leads")
            try:
                await self._term()
                backoff.reset()
            except* NotLeader:
                await self._clock.sleep(backoff.next())  # a part noticed it before this loop did
            except* Exception as failed:
                pause = backoff.next()
                log.exception(
                    "a part of the leader failed, all start again in %.1f s", pause, exc_info=failed
                )
                await self._clock.sleep(pause)
            log.info("this manager's term is over")

    async def _term(self) -> None:
        """Run all parts until this manager is not the leader any more, or one of them fails."""
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(_named(name, part)) for name, part in self._parts.items()]
            while self._consensus.is_leader:
                await self._changed.wait()
                self._changed.clear()
            for task in running:
                task.cancel()

    def _on_change(self) -> None:
        self._changed.set()
        self._roles.wake()

    async def count_member(self, node_id: str, address: str) -> None:
        """On the leader: add that manager, or change its address. Raises RaftError."""
        await self._roles.add(node_id, address)

    async def _join(self, caller: Identity | None, payload: bytes) -> bytes:
        if not self._consensus.is_leader:
            raise RpcError("not_leader", "this manager is not the leader", leader_address(self._consensus))
        assert caller is not None, "the server admits managers only"
        try:
            request = msgspec.json.decode(payload, type=JoinRequest)
            if request.lost_log:
                async with asyncio.timeout(EXPEL_TIMEOUT_S):
                    term = await self._roles.expel(caller.node_id)
                return msgspec.json.encode(Expelled(term, self._node_id))
            await self._roles.add(caller.node_id, request.address)
        except msgspec.ValidationError as error:
            raise RpcError("invalid_argument", str(error)) from error
        except RaftError as error:
            raise to_rpc(error) from error
        except TimeoutError as error:
            raise RpcError("unavailable", "the managers are busy with another change: try again") from error
        return b"{}"


async def _named(name: str, part: LeaderPart) -> None:
    """A part must run until it is cancelled; one that returns would leave the leader lame in silence."""
    await part()
    raise RuntimeError(f"{name} ended by itself")


__all__ = ["Consensus", "Expelled", "JoinRequest", "Leadership", "LeaderPart", "Manager"]
