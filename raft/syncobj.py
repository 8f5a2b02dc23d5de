"""The Raft engine: PySyncObj with its unsafe halves replaced. No clock loop, socket or thread in here.

PySyncObj gives the election, the tick, the calculation of the commit index, the order of applying and the
sending of the log. Replaced are: everything that is received (log comparison, acknowledgements, votes),
durability (our log instead of its journal), snapshots, membership, and every use of pickle. Private methods
are overridden under their mangled names; `_check_stock` refuses any version but the one this was read for.

Invariants: nothing at or below the commit index is ever truncated; the commit index never passes what was
verified against the leader's log; no acknowledgement, vote or own count precedes the sync of what it
promises; acknowledgements count only for the term and member they belong to.

A host drives it: `receive` for each message, then `turn` once per burst and at least every 20 ms.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec
import pysyncobj.syncobj as stock
from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf
from pysyncobj.node import Node
from pysyncobj.transport import Transport
from pysyncobj.version import VERSION

from raft import membership
from raft.errors import FailedPrecondition, NotLeader, RaftError, Unavailable
from raft.log import Log
from raft.membership import Configuration, History
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
from raft.snapshot import Snapshot, SnapshotMeta
from raft.transfers import Incoming, Outgoing

logger = logging.getLogger(__name__)

STOCK_VERSION = "0.3.17"
PROPOSAL_ID_BYTES = 16
QUEUED_PROPOSALS_MAX = 10_000
STORAGE_RETRY_S = 1.0
BATCH_BYTES = 4 * 1024 * 1024

_REGULAR, _NO_OP, _MEMBERSHIP = b"\x00", b"\x01", b"\x02"
_FOLLOWER, _CANDIDATE, _LEADER = 0, 1, 2

_STOCK_METHODS = (
    "_checkCommandsToApply _onTick __applyLogEntries __connectedToAnyone __doApplyCommand __generateRaftTimeout "
    "__onBecomeLeader __onMessageReceived __onNodeConnected __onNodeDisconnected __sendAppendEntries "
    "__setCurrentTerm __setState __tryLogCompaction transferLeadership"
).split()
_STOCK_FIELDS = (
    "__raftLog __raftCurrentTerm __votedForNodeId __raftCommitIndex __raftLastApplied __raftElectionDeadline "
    "__raftState __raftLeader __raftNextIndex __raftMatchIndex __lastResponseTime __otherNodes __readonlyNodes "
    "__connectedNodes __votesCount __newAppendEntriesTime __needLoadDumpFile __commandsWaitingCommit __noopIDx "
    "__transferInProgress __serializer _poller"
).split()

Callback = Callable[[object, int], None]  # (result, FAIL_REASON)


def _check_stock() -> None:
    """Refuse to run on a PySyncObj whose inside is not the one that is overridden here."""
    assert VERSION == STOCK_VERSION, f"PySyncObj {VERSION} found: install pysyncobj=={STOCK_VERSION}"
    known = set(vars(SyncObj)) | set(SyncObj.__init__.__code__.co_names)
    wanted = {
        f"_SyncObj{name}" if name.startswith("__") else name for name in (*_STOCK_METHODS, *_STOCK_FIELDS)
    }
    assert wanted <= known, f"PySyncObj lacks {sorted(wanted - known)}: install pysyncobj=={STOCK_VERSION}"


_check_stock()


class Timings(msgspec.Struct, frozen=True):
    """Seconds. A follower that hears nothing for election_min..max asks for votes."""

    election_min_s: float = 0.5
    election_max_s: float = 1.0
    heartbeat_s: float = 0.1
    leader_fallback_s: float = 1.0


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


class _StockTransport(Transport):  # type: ignore[misc]
    """PySyncObj's messages leave through the engine's outbox; nothing arrives this way."""

    def __init__(self, send: Callable[[str, dict[str, Any]], None]) -> None:
        super().__init__(None, None, [])
        self._engine_send = send

    def send(self, node: Node, message: dict[str, Any]) -> bool:
        self._engine_send(node.id, message)
        return True


class _NoSerializer:
    """Stands where PySyncObj keeps its fork-and-pickle dumps."""

    def cancelTransmisstion(self, node: Node) -> None:
        """Called for every follower that is not connected."""


class _NoPoller:
    def poll(self, timeout: float) -> None:
        """Sockets are the host's."""


class Engine(SyncObj):  # type: ignore[misc]
    # PySyncObj's fields under their mangled names, as far as they are used here.
    _SyncObj__raftLog: Log
    _SyncObj__raftCurrentTerm: int
    _SyncObj__votedForNodeId: str | None
    _SyncObj__raftCommitIndex: int
    _SyncObj__raftLastApplied: int
    _SyncObj__raftElectionDeadline: float
    _SyncObj__raftState: int
    _SyncObj__raftLeader: Node | None
    _SyncObj__raftNextIndex: dict[Node, int]
    _SyncObj__raftMatchIndex: dict[Node, int]
    _SyncObj__lastResponseTime: dict[Node, float]
    _SyncObj__otherNodes: set[Node]
    _SyncObj__readonlyNodes: set[Node]
    _SyncObj__connectedNodes: set[Node]
    _SyncObj__transferInProgress: bool
    _SyncObj__noopIDx: int | None

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
        self.node_id = node_id
        self._host = host
        self._log = log
        self._timings = timings
        self._snapshot_interval = snapshot_interval
        self._keep_entries = keep_entries
        self._outbox: list[tuple[str, Message]] = []
        self._queue: deque[tuple[bytes, Callback]] = deque()
        self._learners: dict[str, str] = {}
        self._votes: tuple[int, set[str]] = (0, set())
        self._prevotes: tuple[int, set[str]] = (0, set())
        self._election_allowed_in = 0  # the term that a pre-vote was won for
        self._leader_heard_at = -math.inf
        self._round = 0
        self._rounds_acked: dict[str, int] = {}
        self._barriers: list[tuple[int, int, Callback]] = []
        self._outgoing = Outgoing()
        self._incoming = Incoming()
        self._installing = False
        self._snapshotting = False
        self._last_snapshot = base.index
        self._holding_proposals = False
        self._storage_error: OSError | None = None
        self._storage_retry_at = 0.0
        self._removed = False
        self._reported: object = None
        self._transfer_election = False
        self._announced: dict[str, str] = {}
        self._history = History(base.index, base.configuration)
        super().__init__(
            Node(node_id),
            [],
            _stock_conf(timings, self._on_state_changed),
            transport=_StockTransport(self._send_stock),
        )
        self._inject(base)

    def _inject(self, base: SnapshotMeta) -> None:
        """Put our log and what it says in the place of PySyncObj's, before the first tick."""
        if base.index:
            self._log.reset(base.index, base.term)
        self._SyncObj__raftLog = self._log
        self._SyncObj__raftCurrentTerm = max(self._log.getCurrentTerm(), self._log[-1][2])
        self._SyncObj__votedForNodeId = self._log.getVotedForNodeId()
        self._SyncObj__raftCommitIndex = self._SyncObj__raftLastApplied = base.index
        self._SyncObj__serializer = _NoSerializer()
        self._SyncObj__needLoadDumpFile = False
        self._poller = _NoPoller()
        for command, index, _ in self._log[1:]:
            if command.startswith(_MEMBERSHIP) and index > base.index:
                self._history.push(index, membership.decode(command[1:]))
        self._adopt_configuration()
        self._SyncObj__raftElectionDeadline = self._now() + self._SyncObj__generateRaftTimeout()
        if self._is_sole_member():
            self._SyncObj__raftElectionDeadline = 0.0

    # ---- what the host asks ----

    @property
    def configuration(self) -> Configuration:
        """The members as of the latest entry, committed or not."""
        return self._history.current

    def is_leader(self) -> bool:
        """Leader, and everything of former terms is applied: the state is the newest there is."""
        return (
            self._SyncObj__raftState == _LEADER
            and self._SyncObj__noopIDx is not None
            and self._SyncObj__raftLastApplied >= self._SyncObj__noopIDx
        )

    def leader_id(self) -> str | None:
        leader = self._SyncObj__raftLeader
        return None if leader is None else leader.id

    def term(self) -> int:
        return self._SyncObj__raftCurrentTerm

    def is_removed(self) -> bool:
        return self._removed

    def storage_error(self) -> OSError | None:
        return self._storage_error

    def commit_index(self) -> int:
        return self._SyncObj__raftCommitIndex

    def applied_index(self) -> int:
        return self._SyncObj__raftLastApplied

    def send_soon(self) -> None:
        """In the next turn, without waiting for the heartbeat."""
        self._SyncObj__newAppendEntriesTime = 0

    def propose(self, proposal_id: bytes, command: bytes, callback: Callback) -> None:
        """Queue for the next turn. Raises Unavailable when too many wait already, or the disk is failing."""
        assert len(proposal_id) == PROPOSAL_ID_BYTES
        if self._storage_error is not None:
            raise Unavailable(f"this manager cannot write its log: {self._storage_error}")
        if len(self._queue) >= QUEUED_PROPOSALS_MAX:
            raise Unavailable(f"{QUEUED_PROPOSALS_MAX} writes are waiting: try again later")
        self._queue.append((_REGULAR + proposal_id + command, callback))

    def barrier(self, callback: Callback) -> None:
        """Call back once a majority confirmed, after now, that this node leads, and all that was committed
        by now is applied."""
        self._round += 1
        self._barriers.append((self._round, self._SyncObj__raftCommitIndex, callback))
        self._SyncObj__newAppendEntriesTime = 0

    def change_configuration(self, wanted: Configuration, callback: Callback) -> None:
        """Append a new configuration; it is in force at once. Raises FailedPrecondition when another change
        is not committed yet, NotLeader."""
        if not self.is_leader():
            raise NotLeader("this manager is not the leader")
        if self._history.index > self._SyncObj__raftCommitIndex:
            raise FailedPrecondition(
                "another change of the managers is in progress: try again when it is done"
            )
        self._append(_MEMBERSHIP + wanted.encode(), callback)

    def add_learner(self, node_id: str, address: str) -> None:
        """Send the log to a node that does not count yet. Leader only."""
        node = Node(node_id)
        self._learners[node_id] = address
        if node not in self._SyncObj__otherNodes:
            self._SyncObj__readonlyNodes.add(node)
            self._SyncObj__raftNextIndex[node] = self._log.last + 1
            self._SyncObj__raftMatchIndex[node] = 0
            self._rounds_acked.pop(node_id, None)
        self._announce_peers()

    def drop_learner(self, node_id: str) -> None:
        if self._learners.pop(node_id, None) is None:
            return
        node = Node(node_id)
        self._SyncObj__readonlyNodes.discard(node)
        if node not in self._SyncObj__otherNodes:
            self._forget(node)
        self._announce_peers()

    def progress(self, node_id: str) -> tuple[int, int]:
        """(entries the follower is known to have, entries of the log)."""
        return self._SyncObj__raftMatchIndex.get(Node(node_id), 0), self._log.last

    def heard_from(self, node_id: str) -> bool:
        """Has the follower answered this leader at all?"""
        return node_id in self._rounds_acked

    def transfer_moves(self, node_id: str) -> bool:
        """Has the follower acknowledged a part of a snapshot lately?"""
        return self._outgoing.moves(node_id, self._now())

    def is_connected(self, node_id: str) -> bool:
        return Node(node_id) in self._SyncObj__connectedNodes

    def offer_leadership(self) -> bool:
        """Ask the follower that is furthest to take over; False when none has the whole log yet."""
        answers: list[int] = []
        self.transferLeadership(callback=lambda _, reason: answers.append(reason))
        return answers == [FAIL_REASON.SUCCESS]

    def abandon(self) -> None:
        """Take part no longer: everything that waits gets an answer."""
        self._SyncObj__setState(_FOLLOWER)
        self._SyncObj__raftLeader = None
        self._checkCommandsToApply()
        self._answer_barriers()

    def hold_proposals(self, hold: bool) -> None:
        """While leadership is handed over nothing new is appended; it waits, or fails with the leadership."""
        self._holding_proposals = hold

    def connected(self, node_id: str) -> None:
        node = Node(node_id)
        self._SyncObj__onNodeConnected(node)
        if node in self._SyncObj__raftMatchIndex:
            # What was on the old connection may be lost.
            self._SyncObj__raftNextIndex[node] = self._SyncObj__raftMatchIndex[node] + 1
        self._outgoing.end(node_id)
        self._SyncObj__newAppendEntriesTime = 0

    def disconnected(self, node_id: str) -> None:
        self._SyncObj__onNodeDisconnected(Node(node_id))
        self._outgoing.end(node_id)

    def leader_connection_lost(self, node_id: str) -> None:
        """The leader's connection to us ended: do not wait for the whole election timeout."""
        if self.leader_id() != node_id or self._SyncObj__raftState == _LEADER:
            return
        self._leader_heard_at = -math.inf
        soon = self._now() + self._SyncObj__generateRaftTimeout() - 0.8 * self._timings.election_min_s
        self._SyncObj__raftElectionDeadline = min(self._SyncObj__raftElectionDeadline, soon)

    # ---- one turn ----

    def turn(self) -> None:
        """Tick, make durable, send. Called after every burst of events and by a timer."""
        if self._storage_error is not None and not self._retry_storage():
            return
        while True:
            # The tick counts this node as having everything that is in its log.
            if self._SyncObj__raftState == _LEADER and not self._sync():
                return
            last = self._log.last
            self.doTick(0)
            if self._SyncObj__raftState == _LEADER and self._log.last > last:
                self._SyncObj__sendAppendEntries()
            if not self._flush():
                break
            self._answer_barriers()
            # Alone, our own sync is the majority; nobody's acknowledgement will come and drive the commit.
            if not (self._is_sole_member() and self._SyncObj__raftCommitIndex < self._log.last):
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
            self._SyncObj__raftLeader = None
            self._SyncObj__setState(_FOLLOWER)
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
        self._SyncObj__raftElectionDeadline = self._now() + self._SyncObj__generateRaftTimeout()
        return True

    def _report(self) -> None:
        state = (self.is_leader(), self.leader_id(), self.term(), self.configuration, self._removed)
        if state != self._reported:
            self._reported = state
            self._host.changed()

    def _answer_barriers(self) -> None:
        if not self._barriers:
            return
        if self._SyncObj__raftState != _LEADER:
            barriers, self._barriers = self._barriers, []
            for _, _, callback in barriers:
                callback(None, FAIL_REASON.NOT_LEADER)
            return
        confirmed = self._confirmed_round()
        waiting = self._barriers
        self._barriers = []
        for barrier in waiting:
            round, index, callback = barrier
            if round <= confirmed and index <= self._SyncObj__raftLastApplied:
                callback(None, FAIL_REASON.SUCCESS)
            else:
                self._barriers.append(barrier)

    def _confirmed_round(self) -> int:
        """The newest round that a majority has answered."""
        rounds = [self._rounds_acked.get(node.id, 0) for node in self._SyncObj__otherNodes]
        rounds.append(self._round)
        return sorted(rounds, reverse=True)[self.configuration.quorum - 1]

    # ---- PySyncObj's tick, with our conditions around it ----

    def _onTick(self, timeToWait: float = 0.0) -> None:
        self._guard_election()
        self._transfer_election = self._SyncObj__transferInProgress
        super()._onTick(timeToWait)

    def _guard_election(self) -> None:
        """PySyncObj starts an election when its deadline has passed; let it come to that only when this
        node may vote and a majority said in a pre-vote that it would follow."""
        now = self._now()
        if self._SyncObj__raftState == _LEADER:
            return
        if not self._may_vote():
            self._SyncObj__raftElectionDeadline = now + self._timings.election_max_s
            return
        if self._SyncObj__raftElectionDeadline >= now:
            return
        next_term = self._SyncObj__raftCurrentTerm + 1
        if (
            self._is_sole_member()
            or self._SyncObj__transferInProgress
            or self._election_allowed_in == next_term
        ):
            return
        self._SyncObj__raftElectionDeadline = now + self._SyncObj__generateRaftTimeout() / 2
        self._SyncObj__raftLeader = None
        self._prevotes = (next_term, {self.node_id})
        for node in self._SyncObj__otherNodes:
            self._send(node.id, PreVote(next_term, self._log.last, self._log[-1][2]))

    def _SyncObj__onBecomeLeader(self) -> None:
        self._rounds_acked.clear()
        self._outgoing.clear()
        super()._SyncObj__onBecomeLeader()
        if self._is_sole_member():
            self._sync()  # the tick that goes on from here counts this node at once

    def _SyncObj__sendAppendEntries(self) -> None:
        """PySyncObj sends the log; followers that need a snapshot first, or cannot take more, are not its."""
        connected = self._SyncObj__connectedNodes
        peers = self._SyncObj__otherNodes | self._SyncObj__readonlyNodes
        behind = {n for n in peers & connected if self._SyncObj__raftNextIndex[n] <= self._log.base}
        congested = {n for n in peers & connected if self._host.congested(n.id)}
        for node in behind - congested:
            self._send_snapshot(node)
        self._SyncObj__connectedNodes = connected - behind - congested
        try:
            super()._SyncObj__sendAppendEntries()
        finally:
            self._SyncObj__connectedNodes = connected

    def _send_snapshot(self, node: Node) -> None:
        snapshot = self._host.snapshot()
        chunks = []
        if snapshot is not None:
            chunks = self._outgoing.chunks(node.id, snapshot, self.term(), self._round, self._now())
        for message in chunks or [Alive(self.term(), self._round)]:
            self._send(node.id, message)

    def _checkCommandsToApply(self) -> None:
        if self._SyncObj__raftState != _LEADER:
            while self._queue:
                self._queue.popleft()[1](None, FAIL_REASON.NOT_LEADER)
            return
        while self._queue and not self._holding_proposals:
            self._append(*self._queue.popleft())

    def _append(self, command: bytes, callback: Callback) -> None:
        index, term = self._log.last + 1, self._SyncObj__raftCurrentTerm
        self._log.add(command, index, term)
        self._SyncObj__commandsWaitingCommit[index].append((term, callback))
        self._note_configuration(command, index)
        self._SyncObj__newAppendEntriesTime = 0

    def _SyncObj__doApplyCommand(self, command: bytes) -> object:
        index = self._SyncObj__raftLastApplied + 1
        kind = command[:1]
        if kind == _MEMBERSHIP:
            self._configuration_committed()
            return None
        if kind != _REGULAR:
            return None
        try:
            return self._host.apply(command[1 + PROPOSAL_ID_BYTES :], index)
        except Exception as err:
            # The same on every manager, and it must not keep the entries behind it from being applied.
            logger.exception("entry %d could not be applied", index)
            return RaftError(f"entry {index} could not be applied: {err}")

    def _SyncObj__tryLogCompaction(self) -> None:
        applied = self._SyncObj__raftLastApplied
        if self._snapshotting or self._installing or applied - self._last_snapshot < self._snapshot_interval:
            return
        term = self._log.term_at(applied)
        assert term is not None
        self._snapshotting = True
        self._host.start_snapshot(applied, term, self._history.at(applied))

    def snapshot_stored(self, index: int | None) -> None:
        """The host is done; None when it failed: tried again after as many entries as before."""
        self._snapshotting = False
        if index is None:
            self._last_snapshot = self._SyncObj__raftLastApplied
            return
        self._last_snapshot = max(self._last_snapshot, index)
        # A follower that is getting an older snapshot must find the log that follows it.
        self._log.compact(min(index - self._keep_entries, self._outgoing.lowest_index(default=index)))
        self._history.prune(self._log.base)

    def _on_state_changed(self, old: int, new: int) -> None:
        if old == _LEADER:
            self._leadership_lost()

    def _leadership_lost(self) -> None:
        """What was appended may yet be committed by the next leader: its proposers cannot know."""
        waiting = self._SyncObj__commandsWaitingCommit
        self._SyncObj__commandsWaitingCommit = defaultdict(list)
        for index in sorted(waiting):
            for _, callback in waiting[index]:
                callback(None, FAIL_REASON.LEADER_CHANGED)
        self._holding_proposals = False
        self._outgoing.clear()
        for node_id in list(self._learners):
            self.drop_learner(node_id)

    # ---- what is received ----

    def receive(self, node_id: str, message: AnyMessage) -> None:
        """One message of an authenticated manager of this cluster."""
        if self._storage_error is not None:
            return
        if node_id in self.configuration.removed:
            if not isinstance(message, Removed):
                self._send(node_id, Removed(self.term()))
            return
        if isinstance(message, Append | SnapshotChunk | Alive):
            # The leader may be a member that our own, older configuration does not know yet.
            self._receive_from_leader(Node(node_id), message)
        elif isinstance(message, Removed):
            self._receive_removed(node_id)
        elif node_id in self.configuration.members or node_id in self._learners:
            self._receive_from_member(Node(node_id), message)

    def _receive_from_member(self, node: Node, message: AnyMessage) -> None:
        if isinstance(message, PreVote):
            self._receive_pre_vote(node, message)
        elif isinstance(message, RequestVote):
            self._receive_request_vote(node, message)
        else:
            if message.term > self._SyncObj__raftCurrentTerm:
                self._step_down(message.term)
            if isinstance(message, PreVoteAnswer):
                self._receive_pre_vote_answer(node, message)
            elif isinstance(message, VoteAnswer):
                self._receive_vote(node, message)
            elif isinstance(message, Ack):
                self._receive_ack(node, message)
            elif isinstance(message, TimeoutNow):
                self._receive_timeout_now(node, message)

    def _step_down(self, term: int) -> None:
        self._SyncObj__setCurrentTerm(term, None)
        self._SyncObj__setState(_FOLLOWER)
        self._SyncObj__raftLeader = None

    def _receive_pre_vote(self, node: Node, message: PreVote) -> None:
        granted = (
            message.term > self._SyncObj__raftCurrentTerm
            and self._may_vote()
            and not self._leader_is_alive()
            and self._is_up_to_date(message.last_term, message.last_index)
        )
        self._send(node.id, PreVoteAnswer(self._SyncObj__raftCurrentTerm, message.term, granted))

    def _receive_pre_vote_answer(self, node: Node, message: PreVoteAnswer) -> None:
        asked, voters = self._prevotes
        if not message.granted or message.asked != asked or asked != self._SyncObj__raftCurrentTerm + 1:
            return
        voters.add(node.id)
        if self._is_majority(voters) and self._SyncObj__raftState != _LEADER:
            self._election_allowed_in = asked
            self._SyncObj__raftElectionDeadline = 0.0

    def _receive_request_vote(self, node: Node, message: RequestVote) -> None:
        if not self._may_vote() or (self._leader_is_alive() and not message.transfer):
            return
        if message.term > self._SyncObj__raftCurrentTerm:
            self._step_down(message.term)
        granted = (
            message.term == self._SyncObj__raftCurrentTerm
            and self._SyncObj__raftState != _LEADER
            and self._SyncObj__votedForNodeId in (None, node.id)
            and self._is_up_to_date(message.last_term, message.last_index)
        )
        if granted:
            self._SyncObj__setCurrentTerm(message.term, node.id)
            self._SyncObj__raftElectionDeadline = self._now() + self._SyncObj__generateRaftTimeout()
        self._send(node.id, VoteAnswer(self._SyncObj__raftCurrentTerm, granted))

    def _receive_vote(self, node: Node, message: VoteAnswer) -> None:
        term = self._SyncObj__raftCurrentTerm
        if not message.granted or message.term != term or self._SyncObj__raftState != _CANDIDATE:
            return
        if self._votes[0] != term:
            self._votes = (term, {self.node_id})
        self._votes[1].add(node.id)
        self._SyncObj__votesCount = len(self._votes[1])
        if self._is_majority(self._votes[1]):
            self._SyncObj__onBecomeLeader()

    def _receive_timeout_now(self, node: Node, message: TimeoutNow) -> None:
        if message.term == self._SyncObj__raftCurrentTerm and node == self._SyncObj__raftLeader:
            self._SyncObj__raftElectionDeadline = 0.0
            self._SyncObj__transferInProgress = True

    def _receive_removed(self, node_id: str) -> None:
        if node_id in self.configuration.members and not self._removed:
            logger.warning("this manager was removed from the cluster, says %s", node_id)
            self._removed = True

    def _receive_ack(self, node: Node, message: Ack) -> None:
        if self._SyncObj__raftState != _LEADER or message.term != self._SyncObj__raftCurrentTerm:
            return
        if node not in self._SyncObj__raftMatchIndex:
            return
        self._SyncObj__lastResponseTime[node] = self._now()
        self._rounds_acked[node.id] = max(self._rounds_acked.get(node.id, 0), message.round)
        match = self._SyncObj__raftMatchIndex[node]
        next_index = self._SyncObj__raftNextIndex[node]
        if message.success:
            match = max(match, min(message.next_index - 1, self._log.last))
            self._SyncObj__raftMatchIndex[node] = match
            self._SyncObj__raftNextIndex[node] = max(next_index, match + 1)
            if match >= self._log.base:
                self._outgoing.end(node.id)
        elif message.reset:
            # Back only as far as the follower asks, and never below what it has acknowledged.
            self._SyncObj__raftNextIndex[node] = max(match + 1, min(message.next_index, next_index))
            self._SyncObj__newAppendEntriesTime = 0
        elif self._outgoing.acknowledge(node.id, message.received, self._now()):
            self._SyncObj__newAppendEntriesTime = 0

    def _receive_from_leader(self, node: Node, message: Append | SnapshotChunk | Alive) -> None:
        if message.term < self._SyncObj__raftCurrentTerm:
            # The stale leader learns the term from this and steps down.
            self._ack(node, message.round)
            return
        if message.term > self._SyncObj__raftCurrentTerm:
            self._SyncObj__setCurrentTerm(message.term, None)
            self._SyncObj__transferInProgress = False
        elif self._SyncObj__raftState == _LEADER:
            logger.critical(
                "%s also claims to lead in term %d: its message is dropped", node.id, message.term
            )
            return
        self._SyncObj__setState(_FOLLOWER)
        self._SyncObj__raftLeader = node
        self._leader_heard_at = self._now()
        if not self._SyncObj__transferInProgress:
            self._SyncObj__raftElectionDeadline = self._now() + self._SyncObj__generateRaftTimeout()
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
        commit = max(self._SyncObj__raftCommitIndex, min(message.commit_index, verified))
        self._SyncObj__raftCommitIndex = commit
        self._ack(node, message.round, next_index=max(verified, commit) + 1, success=True)

    def _retry_from(self, prev_index: int, term: int | None) -> int:
        """Where the leader should try next: behind our end, or before the whole term that differs."""
        if term is None:
            return self._log.last + 1
        return max(self._SyncObj__raftCommitIndex + 1, self._log.first_of_term(prev_index))

    def _truncate(self, first: int) -> None:
        if first > self._log.last:
            return
        assert first > self._SyncObj__raftCommitIndex, f"the leader contradicts committed entry {first}"
        self._log.deleteEntriesFrom(first - self._log.base)
        if self._history.index >= first:
            self._history.truncate(first - 1)
            self._adopt_configuration()

    def _receive_chunk(self, node: Node, message: SnapshotChunk) -> None:
        commit = self._SyncObj__raftCommitIndex
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
        if snapshot is None or snapshot.meta.index <= self._SyncObj__raftCommitIndex:
            return
        meta = snapshot.meta
        try:
            self._host.load(snapshot.data)
        except RaftError:
            logger.exception("snapshot at %d could not be loaded", meta.index)
            return
        self._log.reset(meta.index, meta.term)
        self._SyncObj__raftCommitIndex = self._SyncObj__raftLastApplied = self._last_snapshot = meta.index
        self._history = History(meta.index, meta.configuration)
        for command, index, _ in self._log[1:]:
            self._note_configuration(command, index)
        self._adopt_configuration()
        leader = self._SyncObj__raftLeader
        if leader is not None and self._SyncObj__raftState != _LEADER:
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
        self._send(node.id, Ack(self._SyncObj__raftCurrentTerm, round, next_index, success, reset, received))

    def _SyncObj__onMessageReceived(self, node: Node, message: object) -> None:
        raise AssertionError("messages come in through receive(), never as PySyncObj's dictionaries")

    # ---- membership ----

    def _note_configuration(self, command: bytes, index: int) -> None:
        if command.startswith(_MEMBERSHIP):
            self._history.push(index, membership.decode(command[1:]))
            self._adopt_configuration()

    def _adopt_configuration(self) -> None:
        """Make PySyncObj's idea of the other members that of the latest configuration."""
        members = self.configuration.members
        others = {Node(node_id) for node_id in members if node_id != self.node_id}
        gone = self._SyncObj__otherNodes - others
        for node in others - self._SyncObj__otherNodes:
            self._learners.pop(node.id, None)
            self._SyncObj__readonlyNodes.discard(node)
            self._SyncObj__raftNextIndex.setdefault(node, self._log.last + 1)
            self._SyncObj__raftMatchIndex.setdefault(node, 0)
            self._SyncObj__lastResponseTime[node] = self._now()
        self._SyncObj__otherNodes = others
        for node in gone:
            if self._SyncObj__raftState == _LEADER:
                # It goes on receiving until it has been told.
                self._learners[node.id] = self._announced.get(node.id, "")
                self._SyncObj__readonlyNodes.add(node)
            else:
                self._forget(node)
        self._announce_peers()

    def _configuration_committed(self) -> None:
        if self._SyncObj__raftState != _LEADER:
            return
        for node_id in [n for n in self._learners if n in self.configuration.removed]:
            self._host.send(node_id, Removed(self.term()))
            self.drop_learner(node_id)

    def _forget(self, node: Node) -> None:
        self._SyncObj__raftNextIndex.pop(node, None)
        self._SyncObj__raftMatchIndex.pop(node, None)
        self._SyncObj__lastResponseTime.pop(node, None)
        self._rounds_acked.pop(node.id, None)
        self._outgoing.end(node.id)

    def _announce_peers(self) -> None:
        peers = {**self._learners, **self.configuration.members}
        peers.pop(self.node_id, None)
        if peers != self._announced:
            self._announced = peers
            self._host.set_peers(peers)

    # ---- small questions ----

    def _now(self) -> float:
        return float(stock.monotonicTime())

    def _send(self, node_id: str, message: Message) -> None:
        self._outbox.append((node_id, message))

    def _send_stock(self, node_id: str, message: dict[str, Any]) -> None:
        self._send(node_id, from_stock(message, self._round, transfer=self._transfer_election))

    def _may_vote(self) -> bool:
        return (
            self.node_id in self.configuration.members and not self._removed and self._storage_error is None
        )

    def _is_sole_member(self) -> bool:
        return set(self.configuration.members) == {self.node_id}

    def _is_majority(self, node_ids: set[str]) -> bool:
        return len(node_ids & set(self.configuration.members)) >= self.configuration.quorum

    def _leader_is_alive(self) -> bool:
        """Has this node heard of a leader (or is it one) within the shortest election timeout?"""
        if self._SyncObj__raftState == _LEADER:
            return True
        return self._now() - self._leader_heard_at < self._timings.election_min_s

    def _is_up_to_date(self, last_term: int, last_index: int) -> bool:
        return (last_term, last_index) >= (self._log[-1][2], self._log.last)


def _stock_conf(timings: Timings, on_state_changed: Callable[[int, int], None]) -> SyncObjConf:
    return SyncObjConf(
        autoTick=False,
        raftMinTimeout=timings.election_min_s,
        raftMaxTimeout=timings.election_max_s,
        appendEntriesPeriod=timings.heartbeat_s,
        leaderFallbackTimeout=timings.leader_fallback_s,
        connectionTimeout=max(3.5, timings.election_max_s),
        appendEntriesUseBatch=True,
        appendEntriesBatchSizeBytes=BATCH_BYTES,
        dynamicMembershipChange=False,
        useFork=False,
        onStateChanged=on_state_changed,
    )
