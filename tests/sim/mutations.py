"""Raft, broken on purpose: each mutation takes one promise away, and the simulation has to notice.

A mutation patches the production classes for as long as its MonkeyPatch lives.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from raft.consensus import Consensus
from raft.log import Log
from raft.membership import Configuration
from raft.messages import Append, SnapshotChunk, VoteAnswer
from raft.replication import MEMBERSHIP, Replication
from raft.stock import CANDIDATE, NOT_LEADER, SUCCESS, Node, Stock
from raft.store import Applied, Store
from raft.syncobj import Engine
from raft.voting import Voting
from tests.sim.disk import DiskFile

Patch = pytest.MonkeyPatch
Engines = Any  # the methods below become the engine's and reach for its private parts

_receive_append = Replication._receive_append
_receive_chunk = Replication._receive_chunk
_on_tick = Voting._onTick
_log_init = Log.__init__
_append = Engine._append
_leadership_lost = Engine._leadership_lost
_compaction = Engine._SyncObj__tryLogCompaction  # type: ignore[attr-defined]
_apply = Store.apply
_consensus_init = Consensus.__init__


def votes_twice_in_a_term(patch: Patch) -> None:
    patch.setattr(Stock, "_voted_for", property(lambda _: None, lambda _, value: None))


def votes_for_anybody(patch: Patch) -> None:
    """Also for a candidate whose log is behind."""
    patch.setattr(Voting, "_is_up_to_date", lambda *_: True)


def counts_votes_as_the_stock_class(patch: Patch) -> None:
    """A vote that arrives twice counts twice."""

    def receive_vote(self: Engines, node: Node, message: VoteAnswer) -> None:
        if message.granted and message.term == self._term and self._state == CANDIDATE:
            self._votes_count += 1
            if self._votes_count > len(self.configuration.members) / 2:
                self._become_leader()

    patch.setattr(Voting, "_receive_vote", receive_vote)


def acknowledges_before_the_sync(patch: Patch) -> None:
    def flush(self: Engines) -> bool:
        outbox, self._outbox = self._outbox, []
        self._send_all(outbox)
        return bool(self._sync())

    patch.setattr(Engine, "_flush", flush)


def never_syncs_the_log(patch: Patch) -> None:
    patch.setattr(DiskFile, "sync_data", lambda _: None)


def does_not_compare_the_previous_term(patch: Patch) -> None:
    def receive_append(self: Engines, node: Node, message: Append) -> None:
        term = self._log.term_at(message.prev_index)
        if term is not None:
            message = msgspec.structs.replace(message, prev_term=term)
        _receive_append(self, node, message)

    patch.setattr(Replication, "_receive_append", receive_append)


def truncates_what_matches(patch: Patch) -> None:
    """As PySyncObj: everything after the previous entry goes, whatever it is."""

    def receive_append(self: Engines, node: Node, message: Append) -> None:
        matches = self._log.term_at(message.prev_index) == message.prev_term
        if matches and self._log.base <= message.prev_index < self._log.last:
            self._log.deleteEntriesFrom(message.prev_index + 1 - self._log.base)
        _receive_append(self, node, message)

    patch.setattr(Replication, "_receive_append", receive_append)


def commits_what_was_not_verified(patch: Patch) -> None:
    def receive_append(self: Engines, node: Node, message: Append) -> None:
        self._commit_index = max(self._commit_index, min(message.commit_index, self._log.last))
        _receive_append(self, node, message)

    patch.setattr(Replication, "_receive_append", receive_append)


def commits_older_terms_by_counting(patch: Patch) -> None:
    def on_tick(self: Engines, timeToWait: float = 0.0) -> None:
        if self._state == 2:
            matches = sorted([self._log.last, *(self._match_index[node] for node in self._others)])
            self._commit_index = max(self._commit_index, matches[len(matches) - self.configuration.quorum])
        _on_tick(self, timeToWait)

    patch.setattr(Voting, "_onTick", on_tick)


def loses_term_and_vote_at_a_restart(patch: Patch) -> None:
    def init(self: Any, wal: Any, state: Any) -> None:
        state.term, state.voted_for = 0, None
        _log_init(self, wal, state)

    patch.setattr(Log, "__init__", init)


def reads_without_asking_a_majority(patch: Patch) -> None:
    patch.setattr(Engine, "barrier", lambda _, callback: callback(None, SUCCESS))


def acknowledges_a_snapshot_before_it_is_installed(patch: Patch) -> None:
    def receive_chunk(self: Engines, node: Node, message: SnapshotChunk) -> None:
        was_installing = self._installing
        _receive_chunk(self, node, message)
        if self._installing and not was_installing:
            self._ack(node, message.round, next_index=message.index + 1, success=True)

    patch.setattr(Replication, "_receive_chunk", receive_chunk)


def acknowledges_before_the_commit(patch: Patch) -> None:
    def append(self: Engines, command: bytes, callback: Any) -> None:
        _append(self, command, lambda *_: None)
        callback(Applied(self._log.last), SUCCESS)

    patch.setattr(Engine, "_append", append)


def acknowledges_when_it_loses_the_lead(patch: Patch) -> None:
    def leadership_lost(self: Engines) -> None:
        for index, waiting in list(self._waiting.items()):
            for _, callback in waiting:
                callback(Applied(index), SUCCESS)
        self._waiting.clear()
        _leadership_lost(self)

    patch.setattr(Engine, "_leadership_lost", leadership_lost)


def calls_the_unknown_not_written(patch: Patch) -> None:
    def leadership_lost(self: Engines) -> None:
        for waiting in list(self._waiting.values()):
            for _, callback in waiting:
                callback(None, NOT_LEADER)
        self._waiting.clear()
        _leadership_lost(self)

    patch.setattr(Engine, "_leadership_lost", leadership_lost)


def compacts_before_the_snapshot_is_stored(patch: Patch) -> None:
    def compaction(self: Engines) -> None:
        before = self._snapshotting
        _compaction(self)
        if self._snapshotting and not before:
            self._log.compact(self._applied_index)

    patch.setattr(Engine, "_SyncObj__tryLogCompaction", compaction)


def applies_differently_on_one_node(patch: Patch) -> None:
    """The result depends on something that is not in the log: here on the local clock."""

    def apply(self: Any, command: bytes, index: int) -> object:
        result = _apply(self, command, index)
        for kind, rows in self._tables.copy_rows().items():
            for record in rows:
                if record.meta.version == index:
                    meta = msgspec.structs.replace(record.meta, updated_at=self._clock())
                    self._tables.put(kind, msgspec.structs.replace(record, meta=meta))
        return result

    patch.setattr(Store, "apply", apply)


def votes_only_as_a_member(patch: Patch) -> None:
    """By its own configuration, which may lack the entry that makes it a member."""
    patch.setattr(Voting, "_may_vote", lambda self: self.node_id in self.configuration.members)


def changes_members_two_at_a_time(patch: Patch) -> None:
    """Neither the engine nor whoever asks it waits for the change before."""

    def init(self: Any, *args: Any) -> None:
        _consensus_init(self, *args)
        self._changing_members = contextlib.nullcontext()

    def change(self: Engines, wanted: Configuration, callback: Any) -> None:
        self._append(MEMBERSHIP + wanted.encode(), callback)

    patch.setattr(Consensus, "__init__", init)
    patch.setattr(Engine, "change_configuration", change)


MUTATIONS: dict[str, Callable[[Patch], None]] = {
    mutation.__name__: mutation
    for mutation in (
        votes_twice_in_a_term,
        votes_for_anybody,
        counts_votes_as_the_stock_class,
        acknowledges_before_the_sync,
        never_syncs_the_log,
        does_not_compare_the_previous_term,
        truncates_what_matches,
        commits_what_was_not_verified,
        commits_older_terms_by_counting,
        loses_term_and_vote_at_a_restart,
        reads_without_asking_a_majority,
        acknowledges_a_snapshot_before_it_is_installed,
        acknowledges_before_the_commit,
        acknowledges_when_it_loses_the_lead,
        calls_the_unknown_not_written,
        compacts_before_the_snapshot_is_stored,
        applies_differently_on_one_node,
        votes_only_as_a_member,
        changes_members_two_at_a_time,
    )
}
