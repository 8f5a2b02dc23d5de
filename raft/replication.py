"""How the log gets to the others and comes from the leader: appends, acknowledgements, snapshots, members.

Invariants: nothing at or below the commit index is truncated, and only from the first entry whose term
differs; the commit index never passes what was verified against the leader's log; an acknowledgement counts
only for the term and the member it belongs to, and only forward; a snapshot is acknowledged when it is
durable and loaded.
"""

from __future__ import annotations

import logging
from typing import Protocol

from raft import membership
from raft.errors import RaftError
from raft.log import Log
from raft.membership import Configuration, History
from raft.messages import Ack, Alive, Append, Message, Removed, SnapshotChunk
from raft.snapshot import Snapshot, SnapshotMeta
from raft.stock import FOLLOWER, LEADER, Node, Timings, node_of
from raft.transfers import Incoming, Outgoing
from raft.voting import Voting

logger = logging.getLogger(__name__)

# First byte of an entry's command; PySyncObj appends the no-op itself.
REGULAR, NO_OP, MEMBERSHIP = b"\x00", b"\x01", b"\x02"


class Host(Protocol):
    """What the engine needs from outside: the network, the state machine, and a place for slow work."""

    def send(self, node_id: str, message: Message) -> None:
        """Send or drop; never blocks, never fails."""

    def congested(self, node_id: str) -> bool:
        """So much is waiting to be sent there that more would only pile up."""

    def set_peers(self, addresses: dict[str, str]) -> None:
        """Keep connections to exactly these nodes."""

    def apply(self, command: bytes, index: int) -> object: ...

    def load(self, data: bytes) -> None: ...

    def start_snapshot(self, index: int, term: int, configuration: Configuration) -> None:
        """Store the machine's state of this moment, then call `snapshot_stored`."""

    def start_install(self, snapshot: Snapshot) -> None:
        """Store the leader's snapshot durably, then call `install`."""

    def snapshot(self) -> Snapshot | None:
        """The latest stored one; None while it is being read."""

    def changed(self) -> None:
        """Leadership, term or membership are not what they were."""


class Replication(Voting):
    def __init__(self, node_id: str, host: Host, log: Log, base: SnapshotMeta, timings: Timings) -> None:
        self._host = host
        self._learners: dict[str, str] = {}
        self._announced: dict[str, str] = {}
        self._round = 0
        self._rounds_acked: dict[str, int] = {}
        self._outgoing = Outgoing()
        self._incoming = Incoming()
        self._installing = False
        self._last_snapshot = base.index
        super().__init__(node_id, log, base, timings)
        if base.index:
            log.reset(base.index, base.term)
        self._use(log, base.index)
        for command, index, _ in log[1:]:
            if command.startswith(MEMBERSHIP):
                self._history.push(index, membership.decode(command[1:]))
        self._adopt_configuration()
        alone = self._is_sole_member()
        self._election_deadline = 0.0 if alone else self._now() + self._random_timeout()

    # ---- the leader's side ----

    def _SyncObj__sendAppendEntries(self) -> None:
        """PySyncObj sends the log; followers that need a snapshot first, or cannot take more, are not its."""
        connected = self._connected
        peers = self._others | self._learner_nodes
        behind = {n for n in peers & connected if self._next_index[n] <= self._log.base}
        congested = {n for n in peers & connected if self._host.congested(n.id)}
        for node in behind - congested:
            self._send_snapshot(node)
        self._connected = connected - behind - congested
        try:
            self._stock_send_log()
        finally:
            self._connected = connected

    def _send_snapshot(self, node: Node) -> None:
        snapshot = self._host.snapshot()
        chunks: list[SnapshotChunk] = []
        if snapshot is not None:
            chunks = self._outgoing.chunks(node.id, snapshot, self._term, self._round, self._now())
        for chunk in chunks:
            self._send(node.id, chunk)
        if not chunks:
            self._send(node.id, Alive(self._term, self._round))

    def _receive_ack(self, node: Node, message: Ack) -> None:
        if self._state != LEADER or message.term != self._term:
            return
        if node not in self._match_index:
            return
        self._answered_at[node] = self._now()
        self._rounds_acked[node.id] = max(self._rounds_acked.get(node.id, 0), message.round)
        match = self._match_index[node]
        next_index = self._next_index[node]
        if message.success:
            match = max(match, min(message.next_index - 1, self._log.last))
            self._match_index[node] = match
            self._next_index[node] = max(next_index, match + 1)
            if match >= self._log.base:
                self._outgoing.end(node.id)
        elif message.reset:
            # Back only as far as the follower asks, and never below what it has acknowledged.
            self._next_index[node] = max(match + 1, min(message.next_index, next_index))
            self.send_soon()
        elif self._outgoing.acknowledge(node.id, message.received, self._now()):
            self.send_soon()

    def connected(self, node_id: str) -> None:
        node = node_of(node_id)
        self._connected.add(node)
        if node in self._match_index:
            # What was on the old connection may be lost.
            self._next_index[node] = self._match_index[node] + 1
        self._outgoing.end(node_id)
        self.send_soon()

    def disconnected(self, node_id: str) -> None:
        self._connected.discard(node_of(node_id))
        self._outgoing.end(node_id)

    def is_connected(self, node_id: str) -> bool:
        return node_of(node_id) in self._connected

    def progress(self, node_id: str) -> tuple[int, int]:
        """(entries the follower is known to have, entries of the log)."""
        return self._match_index.get(node_of(node_id), 0), self._log.last

    def heard_from(self, node_id: str) -> bool:
        """Has the follower answered this leader at all?"""
        return node_id in self._rounds_acked

    def transfer_moves(self, node_id: str) -> bool:
        """Has the follower acknowledged a part of a snapshot lately?"""
        return self._outgoing.moves(node_id, self._now())

    # ---- the follower's side ----

    def _receive_from_leader(self, node: Node, message: Append | SnapshotChunk | Alive) -> None:
        if message.term < self._term:
            # The stale leader learns the term from this and steps down.
            self._ack(node, message.round)
            return
        if message.term > self._term:
            self._set_term(message.term, None)
            self._transfer_in_progress = False
        elif self._state == LEADER:
            logger.critical(
                "%s also claims to lead in term %d: its message is dropped", node.id, message.term
            )
            return
        self._set_state(FOLLOWER)
        self._leader = node
        self._leader_heard_at = self._now()
        self._election_allowed_in = 0
        if not self._transfer_in_progress:
            self._election_deadline = self._now() + self._random_timeout()
        if isinstance(message, Append):
            self._receive_append(node, message)
        elif isinstance(message, SnapshotChunk):
            self._receive_chunk(node, message)
        else:
            self._ack(node, message.round)

    def _receive_append(self, node: Node, message: Append) -> None:
        prev_index, entries = message.prev_index, message.entries
        if prev_index < self._log.base:
            # Our snapshot contains these; what is committed is the same everywhere.
            entries = entries[self._log.base - prev_index :]
            prev_index = self._log.base
        else:
            term = self._log.term_at(prev_index)
            if term != message.prev_term:
                self._ack(node, message.round, next_index=self._retry_from(prev_index, term), reset=True)
                return
        verified = prev_index
        for command, index, term in entries:
            if self._log.term_at(index) != term:
                self._truncate(index)
                self._log.add(command, index, term)
                self._note_configuration(command, index)
            verified = index
        commit = max(self._commit_index, min(message.commit_index, verified))
        self._commit_index = commit
        self._ack(node, message.round, next_index=max(verified, commit) + 1, success=True)

    def _retry_from(self, prev_index: int, term: int | None) -> int:
        """Where the leader should try next: behind our end, or before the whole term that differs."""
        if term is None:
            return self._log.last + 1
        return max(self._commit_index + 1, self._log.first_of_term(prev_index))

    def _truncate(self, first: int) -> None:
        if first > self._log.last:
            return
        assert first > self._commit_index, f"the leader contradicts committed entry {first}"
        self._log.deleteEntriesFrom(first - self._log.base)
        if self._history.index >= first:
            self._history.truncate(first - 1)
            self._adopt_configuration()

    def _receive_chunk(self, node: Node, message: SnapshotChunk) -> None:
        commit = self._commit_index
        if message.index <= commit:
            self._ack(node, message.round, next_index=commit + 1, success=True)
            return
        if not self._installing:
            snapshot = self._incoming.take(node.id, message)
            received = self._incoming.received
            if snapshot is not None:
                received = message.size
                self._installing = True
                self._host.start_install(snapshot)
            self._ack(node, message.round, received=received)
        else:
            self._ack(node, message.round)

    def install(self, snapshot: Snapshot | None) -> None:
        """The host stored the leader's snapshot; None when that failed: the leader will send it again."""
        self._installing = False
        if snapshot is None or snapshot.meta.index <= self._commit_index or self._state == LEADER:
            return
        meta = snapshot.meta
        try:
            self._host.load(snapshot.data)
        except RaftError:
            logger.exception("snapshot at %d could not be loaded", meta.index)
            return
        self._log.reset(meta.index, meta.term)
        self._commit_index = self._applied_index = self._last_snapshot = meta.index
        self._history = History(meta.index, meta.configuration)
        for command, index, _ in self._log[1:]:
            self._note_configuration(command, index)
        self._adopt_configuration()
        leader = self._leader
        if leader is not None and self._state != LEADER:
            self._ack(leader, 0, next_index=meta.index + 1, success=True)

    def _ack(
        self,
        node: Node,
        round: int,
        *,
        next_index: int = 0,
        success: bool = False,
        reset: bool = False,
        received: int = 0,
    ) -> None:
        self._send(node.id, Ack(self._term, round, next_index, success, reset, received))

    # ---- members and learners ----

    def add_learner(self, node_id: str, address: str) -> None:
        """Send the log to a node that does not count yet. Leader only."""
        node = node_of(node_id)
        self._learners[node_id] = address
        if node not in self._others:
            self._learner_nodes.add(node)
            self._next_index[node] = self._log.last + 1
            self._match_index[node] = 0
            self._rounds_acked.pop(node_id, None)
        self._announce_peers()

    def drop_learner(self, node_id: str) -> None:
        if self._learners.pop(node_id, None) is None:
            return
        node = node_of(node_id)
        self._learner_nodes.discard(node)
        if node not in self._others:
            self._forget(node)
        self._announce_peers()

    def _note_configuration(self, command: bytes, index: int) -> None:
        if command.startswith(MEMBERSHIP):
            self._history.push(index, membership.decode(command[1:]))
            self._adopt_configuration()

    def _adopt_configuration(self) -> None:
        """Make PySyncObj's idea of the other members that of the latest configuration."""
        members = self.configuration.members
        others = {node_of(node_id) for node_id in members if node_id != self.node_id}
        gone = self._others - others
        for node in others - self._others:
            self._learners.pop(node.id, None)
            self._learner_nodes.discard(node)
            self._next_index.setdefault(node, self._log.last + 1)
            self._match_index.setdefault(node, 0)
            self._answered_at[node] = self._now()
        self._others = others
        for node in gone:
            if self._state == LEADER and node.id in self.configuration.removed:
                # It goes on receiving until it has been told.
                self._learners[node.id] = self._announced.get(node.id, "")
                self._learner_nodes.add(node)
            else:
                self._forget(node)
        self._announce_peers()

    def _configuration_committed(self) -> None:
        if self._state != LEADER:
            return
        for node_id in [n for n in self._learners if n in self.configuration.removed]:
            self._host.send(node_id, self._removal())
            self.drop_learner(node_id)

    def _removal(self) -> Removed:
        return Removed(self._term, self._history.index_at(self._commit_index))

    def _receive_removed(self, node_id: str, message: Removed) -> None:
        if node_id in self.configuration.members:
            before = self._was_removed()
            self._removed_at = max(self._removed_at, message.index)
            if self._was_removed() and not before:
                logger.warning("this manager was removed from the cluster, says %s", node_id)
            if self._was_removed() and self._state == LEADER:
                # Elected by others who do not know it yet: what it did would be no part of the cluster.
                self._set_state(FOLLOWER)
                self._leader = None

    def _forget(self, node: Node) -> None:
        self._next_index.pop(node, None)
        self._match_index.pop(node, None)
        self._answered_at.pop(node, None)
        self._rounds_acked.pop(node.id, None)
        self._outgoing.end(node.id)

    def _announce_peers(self) -> None:
        peers = {**self._learners, **self.configuration.members}
        peers.pop(self.node_id, None)
        if peers != self._announced:
            self._announced = peers
            self._host.set_peers(peers)
