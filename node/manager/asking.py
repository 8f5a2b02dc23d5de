"""Asking whoever leads until there is an answer: waits through elections, and never asks for two effects.

A write is asked again under the same request, which takes effect once (raft.objects.request), so a lost answer is
no reason to give up before the deadline. Invariant: MaybeCommitted means that an attempt may have been
written and that nobody could say so in time; any other error of a write, that this call wrote nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from node.loop import Backoff, Clock
from node.manager.control.base import Leadership
from raft import errors
from raft.objects.request import Request

DEADLINE_S = 30.0
# Nothing is under way and nobody leads, or the leader cannot write: a user would rather hear of it.
LEADER_WAIT_S = 5.0
LEADER_POLL_S = 0.05

NO_LEADER = (
    "The swarm does not have a leader. It's possible that too few managers are online. "
    "Make sure more than half of the managers are online."
)

# address "" is this manager. Raises raft.errors: MaybeCommitted when no answer came within the seconds.
Attempt = Callable[[str, Request | None, float], Awaitable[Any]]


class LeaderFailed(errors.MaybeCommitted):
    """The leader failed in a way that nobody foresaw: asked again it would fail again."""


class _NoLeader(errors.Unavailable):
    pass


def leader_address(leadership: Leadership) -> str:
    """host:port of the leader, or "" while there is none."""
    leader = leadership.leader_id
    return leadership.members().get(leader, "") if leader else ""


class Asker:
    """`node_id`: this manager's."""

    def __init__(self, node_id: str, leadership: Leadership, clock: Clock) -> None:
        self._node_id = node_id
        self._leadership = leadership
        self._clock = clock

    async def ask(self, attempt: Attempt, request: Request | None) -> Any:
        """`request` None: a read. Raises raft.errors, Unavailable and MaybeCommitted as the module says."""
        try:
            return await _Call(self._leadership, self._node_id, self._clock, attempt, request).answer()
        except (errors.NotLeader, errors.Unavailable) as error:
            raise errors.Unavailable(f"nothing was written: {error}" if request else str(error)) from error


class _Call:
    """One call's attempts. `doubt`: why an attempt of this call may have been written, if one may."""

    def __init__(
        self,
        leadership: Leadership,
        node_id: str,
        clock: Clock,
        attempt: Attempt,
        request: Request | None,
    ) -> None:
        self._leadership = leadership
        self._node_id = node_id
        self._clock = clock
        self._attempt = attempt
        self._request = request
        self._doubt = ""
        self._deadline = clock.monotonic() + DEADLINE_S
        self._refused_since: float | None = None

    async def answer(self) -> Any:
        backoff = Backoff(first=0.05, most=0.5)
        redirect = ""
        while True:
            last: errors.RaftError
            redirected = bool(redirect)
            try:
                address = redirect or await self._leader()
                redirect = ""
                return await self._at(address)
            except (_NoLeader, LeaderFailed, errors.Forgotten) as error:
                raise self._given_up(error) from error
            except errors.NotLeader as error:
                redirect, last = error.leader, error
                self._refused_since = None
            except errors.MaybeCommitted as error:
                last = self._note_doubt(error)
                self._refused_since = None
            except errors.Unavailable as error:
                last = self._note_refusal(error)
            pause_s = 0.0 if redirect and not redirected else backoff.next()
            if self._clock.monotonic() + pause_s >= self._deadline:
                raise self._given_up(last)
            await self._clock.sleep(pause_s)

    async def _at(self, address: str) -> Any:
        """One attempt; given up when another manager leads meanwhile, since no answer may ever come."""
        timeout_s = max(0.0, self._deadline - self._clock.monotonic())
        asking = asyncio.ensure_future(self._attempt(address, self._request, timeout_s))
        leader = self._leadership.leader_id
        try:
            while not asking.done():
                await asyncio.wait({asking}, timeout=LEADER_POLL_S)
                now = self._leadership.leader_id
                if not asking.done() and now not in (None, leader) and self._address() != address:
                    raise errors.MaybeCommitted(
                        f"{address or 'this manager'} leads no more and did not answer"
                    )
            return asking.result()
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    def _address(self) -> str:
        return "" if self._leadership.leader_id == self._node_id else leader_address(self._leadership)

    async def _leader(self) -> str:
        """The leader's address, "" for this manager. Waits a little through an election."""
        patient_until = self._deadline if self._doubt else self._clock.monotonic() + LEADER_WAIT_S
        while not self._leadership.is_leader:
            # This manager may be elected and yet have terms of its predecessors to apply.
            address = leader_address(self._leadership)
            if address and self._leadership.leader_id != self._node_id:
                return address
            if self._clock.monotonic() >= patient_until:
                raise _NoLeader(NO_LEADER)
            await self._clock.sleep(LEADER_POLL_S)
        return ""

    def _note_doubt(self, error: errors.MaybeCommitted) -> errors.RaftError:
        if self._request is None:
            return errors.Unavailable(str(error))
        self._doubt = str(error)
        self._request = msgspec.structs.replace(self._request, repeated=True)
        return error

    def _note_refusal(self, error: errors.Unavailable) -> errors.RaftError:
        now = self._clock.monotonic()
        if self._refused_since is None:
            self._refused_since = now
        if not self._doubt and now - self._refused_since >= LEADER_WAIT_S:
            raise error
        return error

    def _given_up(self, last: errors.RaftError) -> errors.RaftError:
        if isinstance(last, LeaderFailed | errors.Forgotten):
            last = self._note_doubt(last)
        if self._request is None or not self._doubt:
            return last
        return errors.MaybeCommitted(f"may have been written: {self._doubt}", self._request.key)
