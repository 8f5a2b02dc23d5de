"""What must hold at every moment, whatever fails: the promises of Raft, and those made to the clients.

The oracle sees all nodes at once and remembers what was ever true. Every check is incremental: it looks at
what changed since the last one.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import msgspec

from raft import membership
from raft.log import Log
from raft.membership import Configuration
from raft.messages import Message, RequestVote, SnapshotChunk, VoteAnswer
from raft.replication import MEMBERSHIP, REGULAR
from raft.stock import LEADER
from raft.store import Store
from raft.syncobj import PROPOSAL_ID_BYTES

if TYPE_CHECKING:
    from tests.sim.cluster import Manager


class Violation(AssertionError):
    """`rule` is the short name of the broken promise."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(f"{rule}: {message}")
        self.rule = rule


def _leads(manager: Manager) -> bool:
    engine: Any = manager.engine
    return bool(engine._state == LEADER)


class WatchedLog(Log):
    """Remembers the lowest index at which it changed."""

    changed_from: int | None = None

    def add(self, command: bytes, idx: int, term: int) -> None:
        super().add(command, idx, term)
        self._note(idx)

    def deleteEntriesFrom(self, position: int) -> None:
        self._note(self[position][1])
        super().deleteEntriesFrom(position)

    def reset(self, index: int, term: int) -> None:
        super().reset(index, term)
        self._note(index)

    def _note(self, index: int) -> None:
        self.changed_from = index if self.changed_from is None else min(self.changed_from, index)


class Committed(msgspec.Struct, frozen=True):
    entry_term: int
    command: bytes
    term: int  # of the leader that committed it


class Oracle:
    def __init__(self, founded_at: int = 0) -> None:
        """`founded_at`: up to there the state is that of a former cluster."""
        self._founded_at = founded_at
        self.committed: dict[int, Committed] = {}
        self.index_of: dict[bytes, int] = {}  # of the committed commands, no two of which are equal
        self.terms: dict[int, str] = {}  # who led
        self._entries: dict[tuple[int, int], tuple[bytes, int]] = {}  # (index, term) -> command, term before
        self._states: dict[int, int] = {}
        self._votes: dict[tuple[str, int], str] = {}
        self._seen: dict[str, int] = {}  # up to where a node's commit index was compared
        self._touched: dict[str, Manager] = {}
        self._running: dict[str, Manager] = {}
        self._acknowledged: list[tuple[bytes, int]] = []
        self._refused: set[bytes] = set()
        self._floors: dict[str, int] = {}
        self._members_changed: list[tuple[str, str]] = []
        self._members_known: set[tuple[str, str]] = set()
        self._configurations: dict[int, Configuration] = {}  # those that are committed
        self._violation: Violation | None = None

    @property
    def membership_index(self) -> int:
        """Of the newest configuration that is committed."""
        return max(self._configurations, default=0)

    def violated(self, rule: str, message: str) -> None:
        """Remembered as well: whoever is in the middle of something here may swallow the exception."""
        self._violation = self._violation or Violation(rule, message)
        raise self._violation

    # ---- what happens ----

    def on_start(self, manager: Manager) -> None:
        self._seen[manager.id] = 0
        manager.log.changed_from = manager.log.base
        self._running[manager.id] = manager
        if manager.store.index:
            self.on_load(manager)
        self.touch(manager)

    def on_crash(self, manager: Manager) -> None:
        self._touched.pop(manager.id, None)
        del self._running[manager.id]

    def touch(self, manager: Manager) -> None:
        self._touched[manager.id] = manager

    def on_apply(self, manager: Manager, index: int) -> None:
        self._check_log(manager)
        self._check_commits(manager)
        self.compare_state(manager.id, manager.store, index)

    def on_load(self, manager: Manager) -> None:
        self.compare_state(manager.id, manager.store, manager.store.index)

    def on_send(self, manager: Manager, target: str, message: Message) -> None:
        if isinstance(message, VoteAnswer) and message.granted:
            self._voted(manager.id, message.term, target)
        elif isinstance(message, RequestVote):
            self._voted(manager.id, message.term, manager.id)
        elif isinstance(message, SnapshotChunk) and message.index < manager.log.base:
            self.violated("useless snapshot", f"{manager.id} sends {message.index}, what follows is dropped")

    def on_acknowledged(self, command: bytes, index: int) -> None:
        """The client heard that its write is done."""
        self._acknowledged.append((command, index))

    def on_refused(self, command: bytes) -> None:
        """The client heard that its write was not done, and never will be."""
        self._refused.add(command)
        if command in self.index_of:
            self.violated("false refusal", f"of what is committed at {self.index_of[command]}")

    def on_members_changed(self, kind: str, node_id: str) -> None:
        """Whoever asked to `add` or `remove` that node heard that it is done."""
        self._members_changed.append((kind, node_id))

    def on_expelled(self, node_id: str, since: int, leader_id: str) -> None:
        """That leader answers that the node is no member; the configuration at `since` was the newest when it
        was asked."""
        asked_later = [c for index, c in self._configurations.items() if index >= since]
        if all(node_id in configuration.members for configuration in asked_later):
            self.violated("false expulsion", f"{leader_id} says that {node_id} is no member")

    def on_handed_over(self, manager: Manager, term: int) -> None:
        """Whoever asked that manager, which led in `term`, to hand over heard that another one leads."""
        if max(self.terms) <= term:
            self.violated(
                "false success", f"{manager.id} has handed over in term {term}, and nobody followed"
            )

    def floor(self, key: str) -> int:
        """The newest version of that key that anybody knows of: a read that begins now must not be older."""
        return self._floors.get(key, 0)

    def on_known(self, key: str, version: int) -> None:
        self._floors[key] = max(self.floor(key), version)

    def on_read(self, key: str, floor: int, version: int, node_id: str) -> None:
        if version < floor:
            self.violated("stale read", f"{node_id} answers {key} at {version}, known before: {floor}")
        if version > self._founded_at and version not in self.committed:
            self.violated("dirty read", f"{node_id} answers {key} at {version}, which nobody has committed")
        self.on_known(key, version)

    # ---- what must hold ----

    def check(self) -> None:
        if self._violation is not None:
            raise self._violation
        for manager in self._touched.values():
            self._check_log(manager)
            self._check_commits(manager)
            if _leads(manager):
                self._check_leader(manager)
                self._check_matches(manager)
        self._touched.clear()
        for command, index in self._acknowledged:
            if self.index_of.get(command) != index:
                found = self.index_of.get(command)
                self.violated("false success", f"entry {index} was acknowledged, committed: {found}")
        self._acknowledged.clear()
        for change in self._members_changed:
            if change not in self._members_known:
                self.violated("false success", f"{change[0]} {change[1]} is done, but not committed")
        self._members_changed.clear()

    def _check_log(self, manager: Manager) -> None:
        log = manager.log
        start, log.changed_from = log.changed_from, None
        if start is None:
            return
        self._seen[manager.id] = min(self._seen[manager.id], start - 1)
        base = self.committed.get(log.base)
        if base is not None and base.entry_term != log[0][2]:
            self.violated("lost commit", f"{manager.id} begins after {log.base} with another term")
        for position in range(max(1, start - log.base), len(log)):
            command, index, term = log[position]
            value = command, log[position - 1][2]
            if self._entries.setdefault((index, term), value) != value:
                self.violated("log matching", f"entry {index} of term {term} differs on {manager.id}")

    def _check_commits(self, manager: Manager) -> None:
        engine = manager.engine
        log, commit, term = manager.log, engine.commit_index(), engine.term()
        if commit > log.last:
            self.violated("lost commit", f"{manager.id} committed {commit}, its log ends at {log.last}")
        for index in range(max(self._seen[manager.id], log.base) + 1, commit + 1):
            command, _, entry_term = log[index - log.base]
            known = self.committed.get(index)
            if known is None:
                if _leads(manager) and log.term_at(commit) != term:
                    self.violated("older term", f"{manager.id} commits {commit} in term {term} by counting")
                self._commit(index, Committed(entry_term, command, term))
            elif not self.is_committed(index, entry_term, command):
                self.violated("lost commit", f"{manager.id} has another entry {index} than was committed")
        self._seen[manager.id] = max(self._seen[manager.id], commit)

    def _commit(self, index: int, entry: Committed) -> None:
        self.committed[index] = entry
        if entry.command[:1] == REGULAR:
            command = entry.command[1 + PROPOSAL_ID_BYTES :]
            if command in self.index_of:
                self.violated("written twice", f"at {self.index_of[command]} and at {index}")
            if command in self._refused:
                self.violated("false refusal", f"of what became entry {index}")
            self.index_of[command] = index
        elif entry.command[:1] == MEMBERSHIP:
            configuration = membership.decode(entry.command[1:])
            self._configurations[index] = configuration
            self._members_known.update(("add", node_id) for node_id in configuration.members)
            self._members_known.update(("remove", node_id) for node_id in configuration.removed)

    def _check_leader(self, manager: Manager) -> None:
        """Who begins to lead was elected, alone, and has everything that was committed before its term."""
        term = manager.engine.term()
        if self.terms.get(term) == manager.id:
            return
        if term in self.terms:
            self.violated("two leaders", f"{self.terms[term]} and {manager.id} lead in term {term}")
        self.terms[term] = manager.id
        members = manager.engine.configuration.members
        votes = sum(self._votes.get((node_id, term)) == manager.id for node_id in members)
        if len(members) > 1 and votes < manager.engine.configuration.quorum:
            self.violated("not elected", f"{manager.id} leads in term {term} with {votes} votes")
        for index, entry in self.committed.items():
            missing = index > manager.log.base and manager.log.term_at(index) != entry.entry_term
            if entry.term < term and missing:
                self.violated("lost commit", f"{manager.id} leads in term {term} without entry {index}")

    def _check_matches(self, leader: Manager) -> None:
        """A follower has what its leader believes that it has."""
        engine: Any = leader.engine
        for node, match in engine._match_index.items():
            follower = self._running.get(node.id)
            if follower is None or follower.engine.term() != engine.term():
                continue
            if match <= leader.log.base or match <= follower.log.base:
                continue
            if follower.log.term_at(match) != leader.log.term_at(match):
                self.violated("false match", f"{leader.id} believes that {node.id} has entry {match}")

    def _voted(self, node_id: str, term: int, candidate: str) -> None:
        if self._votes.setdefault((node_id, term), candidate) != candidate:
            self.violated("two votes", f"{node_id} in term {term}")

    def compare_state(self, node_id: str, store: Store, index: int) -> None:
        digest = zlib.crc32(store.encode(store.dump()))
        if self._states.setdefault(index, digest) != digest:
            self.violated("states differ", f"{node_id} at entry {index}")

    def is_committed(self, index: int, term: int, command: bytes) -> bool:
        known = self.committed.get(index)
        return known is not None and (known.entry_term, known.command) == (term, command)
