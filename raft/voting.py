"""Who may lead: pre-votes, votes and the hand-over of leadership.

PySyncObj starts the election; this module decides when it may, and counts. Invariants: a vote counts once
per member and for its term only; a node that heard a leader within the shortest election timeout helps
nobody to replace it, unless the leader itself asked; only members stand and are counted. Voting is open to
nodes outside of their own configuration as well: the candidate's log may be newer than theirs.
"""

from __future__ import annotations

import logging
import math

from raft.log import Log
from raft.membership import Configuration, History
from raft.messages import (
    Message,
    PreVote,
    PreVoteAnswer,
    RequestVote,
    TimeoutNow,
    VoteAnswer,
)
from raft.snapshot import SnapshotMeta
from raft.stock import CANDIDATE, FOLLOWER, LEADER, Node, Stock, Timings

logger = logging.getLogger(__name__)


class Voting(Stock):
    def __init__(self, node_id: str, log: Log, base: SnapshotMeta, timings: Timings) -> None:
        self._log = log
        self._history = History(base.index, base.configuration)
        self._outbox: list[tuple[str, Message]] = []
        self._votes: tuple[int, set[str]] = (0, set())
        self._prevotes: tuple[int, set[str]] = (0, set())
        self._election_allowed_in = 0  # the term that a pre-vote was won for
        self._transfer_election = False
        self._leader_heard_at = -math.inf
        self._removed_at = -1  # the index of the entry that took this node out, as it was told
        self._storage_error: OSError | None = None
        super().__init__(node_id, timings)

    @property
    def configuration(self) -> Configuration:
        """The members as of the latest entry, committed or not."""
        return self._history.current

    def committed_configuration(self) -> Configuration:
        """What is certain: only by this may anybody be told that it was removed."""
        return self._history.at(self._commit_index)

    def _was_removed(self) -> bool:
        """It was told so, and no later entry says otherwise."""
        return self._removed_at >= self._history.index_at(self._commit_index)

    def leader_id(self) -> str | None:
        leader = self._leader
        return None if leader is None else leader.id

    def leader_connection_lost(self, node_id: str) -> None:
        """The leader's connection to us ended: do not wait for the whole election timeout."""
        if self.leader_id() != node_id or self._state == LEADER:
            return
        self._leader_heard_at = -math.inf
        soon = self._now() + self._random_timeout() - 0.8 * self._timings.election_min_s
        self._election_deadline = min(self._election_deadline, soon)

    def _onTick(self, timeToWait: float = 0.0) -> None:
        self._guard_election()
        self._transfer_election = self._transfer_in_progress
        super()._onTick(timeToWait)

    def _guard_election(self) -> None:
        """PySyncObj starts an election when its deadline has passed; let it come to that only when this
        node may vote and a majority said in a pre-vote that it would follow."""
        now = self._now()
        if self._state == LEADER:
            return
        if not self._may_stand():
            self._election_deadline = now + self._timings.election_max_s
            return
        if self._election_deadline >= now:
            return
        next_term = self._term + 1
        if self._is_sole_member() or self._transfer_in_progress or self._election_allowed_in == next_term:
            return
        self._election_deadline = now + self._random_timeout() / 2
        self._leader = None
        self._prevotes = (next_term, {self.node_id})
        for node in self._others:
            self._send(node.id, PreVote(next_term, self._log.last, self._log[-1][2]))

    def _receive_pre_vote(self, node: Node, message: PreVote) -> None:
        granted = (
            message.term > self._term
            and self._may_vote()
            and not self._leader_is_alive()
            and self._is_up_to_date(message.last_term, message.last_index)
        )
        self._send(node.id, PreVoteAnswer(self._term, message.term, granted))

    def _receive_pre_vote_answer(self, node: Node, message: PreVoteAnswer) -> None:
        asked, voters = self._prevotes
        if not message.granted or message.asked != asked or asked != self._term + 1:
            return
        voters.add(node.id)
        if self._is_majority(voters) and self._state != LEADER:
            self._election_allowed_in = asked
            self._election_deadline = 0.0

    def _receive_request_vote(self, node: Node, message: RequestVote) -> None:
        if not self._may_vote() or (self._leader_is_alive() and not message.transfer):
            return
        if message.term > self._term:
            self._step_down(message.term)
        granted = (
            message.term == self._term
            and self._state != LEADER
            and self._voted_for in (None, node.id)
            and self._is_up_to_date(message.last_term, message.last_index)
        )
        if granted:
            self._set_term(message.term, node.id)
            self._election_deadline = self._now() + self._random_timeout()
        self._send(node.id, VoteAnswer(self._term, granted))

    def _receive_vote(self, node: Node, message: VoteAnswer) -> None:
        term = self._term
        if not message.granted or message.term != term or self._state != CANDIDATE:
            return
        if self._votes[0] != term:
            self._votes = (term, {self.node_id})
        self._votes[1].add(node.id)
        self._votes_count = len(self._votes[1])
        if self._is_majority(self._votes[1]):
            self._become_leader()

    def _receive_timeout_now(self, node: Node, message: TimeoutNow) -> None:
        if message.term == self._term and node == self._leader:
            self._election_deadline = 0.0
            self._transfer_in_progress = True

    def _step_down(self, term: int) -> None:
        self._set_term(term, None)
        self._set_state(FOLLOWER)
        self._leader = None

    def _may_vote(self) -> bool:
        """Whoever asks counts the votes by its own configuration. A node that does not have the entry that
        makes it a member yet, or does not know the candidate, may be the one whose vote is needed (Ongaro's
        thesis, 4.2.2)."""
        return not self._was_removed() and self._storage_error is None

    def _may_stand(self) -> bool:
        return self.node_id in self.configuration.members and self._may_vote()

    def _is_sole_member(self) -> bool:
        return set(self.configuration.members) == {self.node_id}

    def _is_majority(self, node_ids: set[str]) -> bool:
        return len(node_ids & set(self.configuration.members)) >= self.configuration.quorum

    def _leader_is_alive(self) -> bool:
        """Has this node heard of a leader (or is it one) within the shortest election timeout?"""
        if self._state == LEADER:
            return True
        return self._now() - self._leader_heard_at < self._timings.election_min_s

    def _is_up_to_date(self, last_term: int, last_index: int) -> bool:
        return (last_term, last_index) >= (self._log[-1][2], self._log.last)

    def _send(self, node_id: str, message: Message) -> None:
        self._outbox.append((node_id, message))
