"""The layer above the engine, broken on purpose: outcomes, snapshots in threads, connections, an orderly end.

As in tests.sim.mutations, each takes one promise away for as long as its MonkeyPatch lives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from raft import wal
from raft.consensus import Consensus
from raft.errors import MaybeCommitted, Unavailable
from raft.snapshot import Snapshot
from raft.snapshot_keeper import SnapshotKeeper
from raft.stock import NOT_LEADER, SUCCESS
from raft.syncobj import Engine
from raft.transport import Links

Patch = pytest.MonkeyPatch
_resolver = Consensus._resolver
_outcome = Consensus._outcome
_take = SnapshotKeeper.take
_add_member = Consensus.add_member


def tells_a_lost_lead_as_not_written(patch: Patch) -> None:
    def resolver(self: Any, outcome: asyncio.Future[object]) -> Callable[[object, int], None]:
        resolve = _resolver(self, outcome)
        return lambda result, reason: resolve(result, reason if reason == SUCCESS else NOT_LEADER)

    patch.setattr(Consensus, "_resolver", resolver)


def tells_a_time_out_as_not_written(patch: Patch) -> None:
    async def outcome(self: Any, future: asyncio.Future[object]) -> object:
        try:
            return await _outcome(self, future)
        except MaybeCommitted as err:
            if isinstance(err.__cause__, TimeoutError):
                raise Unavailable("no majority") from err
            raise

    patch.setattr(Consensus, "_outcome", outcome)


def confirms_reads_by_its_own_belief(patch: Patch) -> None:
    async def read_barrier(self: Any) -> None:
        self._require_leader()

    patch.setattr(Consensus, "read_barrier", read_barrier)


def tells_of_members_that_nobody_has_confirmed(patch: Patch) -> None:
    async def add_member(self: Any, node_id: str, address: str) -> None:
        if self.members().get(node_id) != address:
            await _add_member(self, node_id, address)

    patch.setattr(Consensus, "add_member", add_member)


def tells_of_a_snapshot_before_it_is_durable(patch: Patch) -> None:
    async def take(self: Any, index: int, *args: Any) -> None:
        self._tell(lambda engine: engine.snapshot_stored(index))
        await _take(self, index, *args)

    patch.setattr(SnapshotKeeper, "take", take)


def installs_a_snapshot_before_it_is_durable(patch: Patch) -> None:
    async def install(self: Any, snapshot: Snapshot) -> None:
        self._replaced()
        self._prepared = self._machine.prepare(snapshot.pieces)
        self._tell(lambda engine: engine.install(snapshot))
        self._prepared = None
        await asyncio.to_thread(self._save, snapshot)

    patch.setattr(SnapshotKeeper, "install", install)


def sends_a_snapshot_that_was_replaced(patch: Patch) -> None:
    """What was read counts even when a newer one has replaced it meanwhile."""

    def replaced(self: Any) -> None:
        self._at_hand = None

    patch.setattr(SnapshotKeeper, "_replaced", replaced)


def reads_on_from_a_replaced_connection(patch: Patch) -> None:
    def accept(self: Any, node_id: str, reader: Any, writer: Any) -> None:
        self._inbound[node_id] = asyncio.create_task(self._read(node_id, reader, writer)), writer

    patch.setattr(Links, "accept", accept)


def does_not_tell_of_a_lost_connection(patch: Patch) -> None:
    """The engine goes on where the old connection was, though what it held is lost."""
    patch.setattr(Consensus, "on_disconnected", lambda *_: None)
    patch.setattr(Consensus, "on_connected", lambda *_: None)


def stops_without_an_answer(patch: Patch) -> None:
    patch.setattr(Engine, "abandon", lambda _: None)


def takes_damage_for_a_torn_end(patch: Patch) -> None:
    patch.setattr(wal, "has_frame_after", lambda *_: False)


MUTATIONS_ABOVE: dict[str, Callable[[Patch], None]] = {
    mutation.__name__: mutation
    for mutation in (
        tells_a_lost_lead_as_not_written,
        tells_a_time_out_as_not_written,
        confirms_reads_by_its_own_belief,
        tells_of_members_that_nobody_has_confirmed,
        tells_of_a_snapshot_before_it_is_durable,
        installs_a_snapshot_before_it_is_durable,
        sends_a_snapshot_that_was_replaced,
        reads_on_from_a_replaced_connection,
        does_not_tell_of_a_lost_connection,
        stops_without_an_answer,
        takes_damage_for_a_torn_end,
    )
}
