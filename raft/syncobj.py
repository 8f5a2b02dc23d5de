"""The Raft engine: PySyncObj with its unsafe halves replaced. No clock loop, socket or thread in here.

This module owns the turn (tick, make durable, send), proposals, read barriers and compaction; voting and
replication are its bases, `raft.stock` is PySyncObj. A host drives it: `receive` for each message, then
`turn` once per burst of events and at least every 20 ms. Invariant: no acknowledgement, vote or own count
precedes the sync of what it promises.
"""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Iterable
from typing import Any

import msgspec

from raft.errors import FailedPrecondition, NotLeader, RaftError, Unavailable
from raft.log import Log
from raft.membership import Configuration
from raft.messages import (
    Ack,
    Alive,
    AnyMessage,
    Append,
    Message,
    PreVote,
    PreVoteAnswer,
    Removed,
    RequestVote,
    SnapshotChunk,
    TimeoutNow,
    VoteAnswer,
    from_stock,
)
from raft.replication import MEMBERSHIP, REGULAR, Host, Replication
from raft.snapshot import SnapshotMeta
from raft.stock import FOLLOWER, LEADER, LEADER_CHANGED, NOT_LEADER, SUCCESS, Callback, Node, Timings, node_of

logger = logging.getLogger(__name__)

PROPOSAL_ID_BYTES = 16
QUEUED_PROPOSALS_MAX = 10_000
STORAGE_RETRY_S = 1.0
# Large commands must not fill memory and disk before the interval, which counts entries, is over.
SNAPSHOT_BYTES = 32 * 1024 * 1024
KEPT_BYTES_MAX = 8 * 1024 * 1024
# In one turn, so that whoever comes back to thousands of entries goes on talking to the others meanwhile.
APPLIED_ENTRIES_MAX = 500
APPLIED_BYTES_MAX = 512 * 1024


class Engine(Replication):
    def __init__(
        self,
        node_id: str,
        host: Host,
        log: Log,
        base: SnapshotMeta,
        timings: Timings,
        snapshot_interval: int,
        keep_entries: int,
    ) -> None:
        """`base`: what the state machine already contains, index 0 when that is nothing."""
        self._snapshot_interval = snapshot_interval
        self._keep_entries = keep_entries
        self._snapshotting = False
        self._applied_bytes = 0  # since the last snapshot
        self._commit_reached = (
            0  # while a part of what is committed is applied, PySyncObj knows of that part only
        )
        self._queue: deque[tuple[bytes, Callback]] = deque()
        self._barriers: list[tuple[int, int, Callback]] = []
        self._holding_proposals = False
        self._storage_retry_at = 0.0
        self._reported: object = None
        super().__init__(node_id, host, log, base, timings)

    # ---- what the host asks ----

    def is_leader(self) -> bool:
        """Leader, and everything of former terms is applied: the state is the newest there is."""
        return (
            self._state == LEADER and self._noop_index is not None and self._applied_index >= self._noop_index
        )

    def term(self) -> int:
        return self._term

    def is_removed(self) -> bool:
        """The others took this node out of the cluster, as far as it knows."""
        return self._was_removed() or self.node_id in self.committed_configuration().removed

    def storage_error(self) -> OSError | None:
        return self._storage_error

    def commit_index(self) -> int:
        return max(self._commit_index, self._commit_reached)

    def applied_index(self) -> int:
        return self._applied_index

    def has_more_to_apply(self) -> bool:
        """There is work for another turn at once."""
        return self._applied_index < self._commit_index and self._storage_error is None

    def propose(self, proposal_id: bytes, command: bytes, callback: Callback) -> None:
        """Queue for the next turn. Raises Unavailable when too many wait already, or the disk is failing."""
        assert len(proposal_id) == PROPOSAL_ID_BYTES
        if self._storage_error is not None:
            raise Unavailable(f"this manager cannot write its log: {self._storage_error}")
        if len(self._queue) >= QUEUED_PROPOSALS_MAX:
            raise Unavailable(f"{QUEUED_PROPOSALS_MAX} writes are waiting: try again later")
        self._queue.append((REGULAR + proposal_id + command, callback))

    def barrier(self, callback: Callback) -> None:
        """Call back once a majority confirmed, after now, that this node leads, and all that was committed
        by now is applied."""
        self._round += 1
        self._barriers.append((self._round, self._commit_index, callback))
        self.send_soon()

    def change_configuration(self, wanted: Configuration, callback: Callback) -> None:
        """Append a new configuration; it is in force at once. Raises FailedPrecondition when another change
        is not committed yet, NotLeader."""
        if not self.is_leader():
            raise NotLeader("this manager is not the leader")
        if not self.membership_is_settled():
            raise FailedPrecondition(
                "another change of the managers is in progress: try again when it is done"
            )
        self._append(MEMBERSHIP + wanted.encode(), callback)

    def membership_is_settled(self) -> bool:
        """The latest configuration is committed."""
        return self._history.index <= self._commit_index

    def leader_heard_s_ago(self) -> float:
        """Since a leader was heard, or this node was known to lead; infinite when never."""
        return 0.0 if self._state == LEADER else self._now() - self._leader_heard_at

    def configure(self, snapshot_interval: int, keep_entries: int) -> None:
        """Entries between snapshots, and how many are kept behind one; from now on."""
        self._snapshot_interval = snapshot_interval
        self._keep_entries = keep_entries

    def offer_leadership(self) -> bool:
        """Ask the follower that is furthest to take over; False when none has the whole log yet."""
        answers: list[int] = []
        self.transferLeadership(callback=lambda _, reason: answers.append(reason))
        return answers == [SUCCESS]

    def hold_proposals(self, hold: bool) -> None:
        """While leadership is handed over nothing new is appended; it waits, or fails with the leadership."""
        self._holding_proposals = hold

    def abandon(self) -> None:
        """Take part no longer: everything that waits gets an answer."""
        self._set_state(FOLLOWER)
        self._leader = None
        self._checkCommandsToApply()
        self._answer_barriers()

    def snapshot_stored(self, index: int | None) -> None:
        """The host is done; None when it failed: tried again after as many entries as before."""
        self._snapshotting = False
        if index is None:
            self._last_snapshot = self._applied_index
            return
        self._last_snapshot = max(self._last_snapshot, index)
        # A follower that is getting an older snapshot must find the log that follows it.
        if index > self._log.base:
            keep_from = self._log.keep_from(index, self._keep_entries, KEPT_BYTES_MAX)
            self._log.compact(min(keep_from, self._outgoing.lowest_index(default=index)))
        self._history.prune(self._log.base)

    def snapshot_lost(self) -> None:
        """The stored snapshot cannot be read: make another one at once."""
        self._applied_bytes = SNAPSHOT_BYTES

    # ---- one turn ----

    def turn(self) -> None:
        """Tick, make durable, send. Called after every burst of events and by a timer."""
        if self._storage_error is not None and not self._retry_storage():
            return
        while True:
            # The tick counts this node as having everything that is in its log.
            if self._state == LEADER and not self._sync():
                return
            last = self._log.last
            self.doTick(0)
            if self._state == LEADER and self._log.last > last:
                self._send_log()
            if not self._flush():
                break
            self._answer_barriers()
            # Alone, our own sync is the majority; nobody's acknowledgement will come and drive the commit.
            leads_alone = self._state == LEADER and self._is_sole_member()
            if not (leads_alone and self._commit_index < self._log.last):
                break
        self._report()

    def _flush(self) -> bool:
        """Sync, then let the messages go. The log itself may travel while our own disk writes: the leader
        counts itself only in the next tick (Ongaro's thesis, 10.2.1)."""
        outbox, self._outbox = self._outbox, []
        may_precede = not self._log.vote_dirty and all(
            isinstance(m, Append | Alive | SnapshotChunk) for _, m in outbox
        )
        if may_precede:
            self._send_all(outbox)
        if not self._sync():
            return False
        if not may_precede:
            self._send_all(outbox)
        return True

    def _send_all(self, outbox: Iterable[tuple[str, Message]]) -> None:
        for node_id, message in outbox:
            self._host.send(node_id, message)

    def _sync(self) -> bool:
        try:
            self._log.sync()
        except OSError as err:
            logger.error("raft log cannot be written, this manager does not take part: %s", err)
            self._storage_error = err
            self._storage_retry_at = self._now() + STORAGE_RETRY_S
            self._leader = None
            self._set_state(FOLLOWER)
            self._outbox.clear()
            self._checkCommandsToApply()
            self._answer_barriers()
            self._report()
            return False
        return True

    def _retry_storage(self) -> bool:
        if self._now() < self._storage_retry_at:
            return False
        self._storage_error = None
        if not self._sync():
            return False
        logger.info("raft log can be written again, this manager takes part")
        self._election_deadline = self._now() + self._random_timeout()
        return True

    def _report(self) -> None:
        state = (self.is_leader(), self.leader_id(), self.term(), self.configuration, self.is_removed())
        if state != self._reported:
            self._reported = state
            self._host.changed()

    def _answer_barriers(self) -> None:
        if not self._barriers:
            return
        if self._state != LEADER:
            barriers, self._barriers = self._barriers, []
            for _, _, callback in barriers:
                callback(None, NOT_LEADER)
            return
        confirmed = self._confirmed_round()
        waiting = self._barriers
        self._barriers = []
        for barrier in waiting:
            round, index, callback = barrier
            if round <= confirmed and index <= self._applied_index:
                callback(None, SUCCESS)
            else:
                self._barriers.append(barrier)

    def _confirmed_round(self) -> int:
        """The newest round that a majority has answered."""
        rounds = [self._rounds_acked.get(node.id, 0) for node in self._others]
        rounds.append(self._round)
        return sorted(rounds, reverse=True)[self.configuration.quorum - 1]

    # ---- what PySyncObj's tick calls ----

    def _SyncObj__onBecomeLeader(self) -> None:
        self._rounds_acked.clear()
        self._outgoing.clear()
        self._stock_become_leader()
        if self._is_sole_member():
            self._sync()  # the tick that goes on from here counts this node at once

    def _checkCommandsToApply(self) -> None:
        if self._state != LEADER:
            while self._queue:
                self._queue.popleft()[1](None, NOT_LEADER)
            return
        while self._queue and not self._holding_proposals:
            self._append(*self._queue.popleft())

    def _append(self, command: bytes, callback: Callback) -> None:
        index, term = self._log.last + 1, self._term
        self._log.add(command, index, term)
        self._waiting[index].append((term, callback))
        self._note_configuration(command, index)
        self.send_soon()

    def _SyncObj__applyLogEntries(self) -> bool:
        """PySyncObj applies up to the commit index; here, not more than what one turn may take."""
        commit = self._commit_reached = self._commit_index
        last, size = self._applied_index, 0
        while last < commit and last - self._applied_index < APPLIED_ENTRIES_MAX and size < APPLIED_BYTES_MAX:
            last += 1
            size += len(self._log[last - self._log.base][0])
        self._commit_index = last
        try:
            return self._stock_apply()
        finally:
            self._commit_index = commit

    def _SyncObj__doApplyCommand(self, command: bytes) -> object:
        index = self._applied_index + 1
        kind = command[:1]
        if kind == MEMBERSHIP:
            self._configuration_committed()
            return None
        if kind != REGULAR:
            return None
        self._applied_bytes += len(command)
        try:
            return self._host.apply(command[1 + PROPOSAL_ID_BYTES :], index)
        except Exception as err:
            # The same on every manager, and it must not keep the entries behind it from being applied.
            logger.exception("entry %d could not be applied", index)
            return RaftError(f"entry {index} could not be applied: {err}")

    def _SyncObj__tryLogCompaction(self) -> None:
        applied = self._applied_index
        due = (
            applied - self._last_snapshot >= self._snapshot_interval or self._applied_bytes >= SNAPSHOT_BYTES
        )
        if not due or self._snapshotting or self._installing or applied <= self._log.base:
            return
        term = self._log.term_at(applied)
        assert term is not None
        self._snapshotting = True
        self._applied_bytes = 0
        self._host.start_snapshot(applied, term, self._history.at(applied))

    def _on_state_changed(self, old: int, new: int) -> None:
        if old == LEADER:
            self._leadership_lost()

    def _leadership_lost(self) -> None:
        """What was appended may yet be committed by the next leader: its proposers cannot know."""
        waiting = self._waiting
        self._waiting = defaultdict(list)
        for index in sorted(waiting):
            for _, callback in waiting[index]:
                callback(None, LEADER_CHANGED)
        self._holding_proposals = False
        self._outgoing.clear()
        for node_id in list(self._learners):
            self.drop_learner(node_id)

    def _send_stock(self, node_id: str, message: dict[str, Any]) -> None:
        self._send(node_id, from_stock(message, self._round, transfer=self._transfer_election))

    # ---- what is received ----

    def receive(self, node_id: str, message: AnyMessage) -> None:
        """One message of an authenticated manager of this cluster."""
        if self._storage_error is not None:
            return
        if node_id in self.committed_configuration().removed:
            if isinstance(message, Removed):
                return
            # It may have been taken in again since, and be the one that leads or must lead. Votes our log decides.
            # A leader is heard when we have the entry that took it in: only it can tell us that this is committed.
            leads = isinstance(message, Append | SnapshotChunk | Alive) and message.term >= self._term
            leads = leads and node_id in self.configuration.members
            if not leads:
                self._send(node_id, self._removal())
            if not leads and not isinstance(message, PreVote | RequestVote):
                return
            if isinstance(message, RequestVote):
                # A leader may have asked it to take over when it was a member; that is over.
                message = msgspec.structs.replace(message, transfer=False)
        if isinstance(message, Append | SnapshotChunk | Alive):
            # The leader may be a member that our own, older configuration does not know yet.
            self._receive_from_leader(node_of(node_id), message)
        elif isinstance(message, Removed):
            self._receive_removed(node_id, message)
        elif isinstance(message, PreVote):
            self._receive_pre_vote(node_of(node_id), message)
        elif isinstance(message, RequestVote):
            self._receive_request_vote(node_of(node_id), message)
        elif node_id in self.configuration.members or node_id in self._learners:
            self._receive_from_member(node_of(node_id), message)

    def _receive_from_member(self, node: Node, message: AnyMessage) -> None:
        if message.term > self._term:
            self._step_down(message.term)
        if isinstance(message, PreVoteAnswer):
            self._receive_pre_vote_answer(node, message)
        elif isinstance(message, VoteAnswer):
            self._receive_vote(node, message)
        elif isinstance(message, Ack):
            self._receive_ack(node, message)
        elif isinstance(message, TimeoutNow):
            self._receive_timeout_now(node, message)
