"""PySyncObj 0.3.17 as the rest of the engine sees it: its private fields by readable names, nothing unsafe.

PySyncObj gives the election, the tick, the calculation of the commit index, the order of applying and the
sending of the log. Its transport, journal, serializer and poller are replaced by empty or own ones here.
Private names are reached in their mangled form, in this module only and once each; any other version, or
one that lacks a name, is refused at import.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar, cast

import msgspec
import pysyncobj.syncobj
from pysyncobj.config import FAIL_REASON
from pysyncobj.node import Node as Node  # exported: nobody else imports pysyncobj
from pysyncobj.transport import Transport
from pysyncobj.version import VERSION

from raft.log import Log

STOCK_VERSION = "0.3.17"
# A command of this size would take PySyncObj's pickled path; the largest allowed one is a quarter of it.
BATCH_BYTES = 4 * 1024 * 1024

FOLLOWER, CANDIDATE, LEADER = 0, 1, 2
SUCCESS: int = FAIL_REASON.SUCCESS
NOT_LEADER: int = FAIL_REASON.NOT_LEADER
DISCARDED: int = FAIL_REASON.DISCARDED
LEADER_CHANGED: int = FAIL_REASON.LEADER_CHANGED

Callback = Callable[[object, int], None]  # (result, one of the reasons above)
T = TypeVar("T")

# Untyped code whose private methods are called and overridden; the names are checked below.
library: Any = pysyncobj.syncobj


class Timings(msgspec.Struct, frozen=True):
    """Seconds. A follower that hears nothing for election_min..max asks for votes."""

    election_min_s: float = 0.5
    election_max_s: float = 1.0
    heartbeat_s: float = 0.1
    leader_fallback_s: float = 1.0


class _Private(Generic[T]):
    """A private field of PySyncObj under another name."""

    names: list[str] = []

    def __init__(self, name: str) -> None:
        self._name = f"_SyncObj__{name}"
        _Private.names.append(self._name)

    def __get__(self, instance: object, owner: type) -> T:
        # None while PySyncObj's own constructor, which looks at every attribute, has not set the field yet.
        return cast(T, getattr(instance, self._name, None))

    def __set__(self, instance: object, value: T) -> None:
        setattr(instance, self._name, value)


class _OwnTransport(Transport):
    """PySyncObj's messages leave through the engine's outbox; nothing arrives this way."""

    def __init__(self, send: Callable[[str, dict[str, Any]], None]) -> None:
        super().__init__(None, None, [])  # type: ignore[no-untyped-call]
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


class Stock(library.SyncObj):  # type: ignore[misc]
    """Base of the engine. Subclasses must provide `_send_stock` and `_on_state_changed`."""

    _raft_log: _Private[Log] = _Private("raftLog")
    _term: _Private[int] = _Private("raftCurrentTerm")
    _voted_for: _Private[str | None] = _Private("votedForNodeId")
    _commit_index: _Private[int] = _Private("raftCommitIndex")
    _applied_index: _Private[int] = _Private("raftLastApplied")
    _election_deadline: _Private[float] = _Private("raftElectionDeadline")
    _state: _Private[int] = _Private("raftState")
    _leader: _Private[Node | None] = _Private("raftLeader")
    _next_index: _Private[dict[Node, int]] = _Private("raftNextIndex")
    _match_index: _Private[dict[Node, int]] = _Private("raftMatchIndex")
    _answered_at: _Private[dict[Node, float]] = _Private("lastResponseTime")
    _others: _Private[set[Node]] = _Private("otherNodes")
    _learner_nodes: _Private[set[Node]] = _Private("readonlyNodes")
    _connected: _Private[set[Node]] = _Private("connectedNodes")
    _votes_count: _Private[int] = _Private("votesCount")
    _transfer_in_progress: _Private[bool] = _Private("transferInProgress")
    _noop_index: _Private[int | None] = _Private("noopIDx")
    _waiting: _Private[defaultdict[int, list[tuple[int, Callback]]]] = _Private("commandsWaitingCommit")
    _next_heartbeat: _Private[float] = _Private("newAppendEntriesTime")
    _serializer: _Private[_NoSerializer] = _Private("serializer")
    _load_dump: _Private[bool] = _Private("needLoadDumpFile")

    def __init__(self, node_id: str, timings: Timings) -> None:
        self.node_id = node_id
        self._timings = timings
        transport = _OwnTransport(self._send_stock)
        super().__init__(
            node_of(node_id), [], _configuration(timings, self._on_state_changed), transport=transport
        )

    def _use(self, log: Log, applied_index: int) -> None:
        """Put our log in the place of PySyncObj's journal; before the first tick."""
        self._raft_log = log
        self._term = max(log.getCurrentTerm(), log[-1][2])
        self._voted_for = log.getVotedForNodeId()
        self._commit_index = self._applied_index = applied_index
        self._serializer = _NoSerializer()
        self._load_dump = False
        self._poller = _NoPoller()

    def _send_stock(self, node_id: str, message: dict[str, Any]) -> None:
        raise NotImplementedError

    def _on_state_changed(self, old: int, new: int) -> None:
        raise NotImplementedError

    def send_soon(self) -> None:
        """Append or heartbeat in the next turn, without waiting for the period."""
        self._next_heartbeat = 0.0

    def _set_term(self, term: int, voted_for: str | None) -> None:
        self._SyncObj__setCurrentTerm(term, voted_for)

    def _set_state(self, state: int) -> None:
        self._SyncObj__setState(state)

    def _random_timeout(self) -> float:
        return cast(float, self._SyncObj__generateRaftTimeout())

    def _become_leader(self) -> None:
        self._SyncObj__onBecomeLeader()

    def _send_log(self) -> None:
        self._SyncObj__sendAppendEntries()

    def _stock_become_leader(self) -> None:
        library.SyncObj._SyncObj__onBecomeLeader(self)

    def _stock_send_log(self) -> None:
        library.SyncObj._SyncObj__sendAppendEntries(self)

    def _now(self) -> float:
        return float(library.monotonicTime())

    def _SyncObj__onMessageReceived(self, node: Node, message: object) -> None:
        raise AssertionError("messages come in through receive(), never as PySyncObj's dictionaries")


def node_of(node_id: str) -> Node:
    return Node(node_id)  # type: ignore[no-untyped-call]


_OVERRIDDEN = (
    "_checkCommandsToApply",
    "_onTick",
    "_SyncObj__doApplyCommand",
    "_SyncObj__onBecomeLeader",
    "_SyncObj__onMessageReceived",
    "_SyncObj__sendAppendEntries",
    "_SyncObj__tryLogCompaction",
)
_CALLED = (
    "_SyncObj__generateRaftTimeout",
    "_SyncObj__setCurrentTerm",
    "_SyncObj__setState",
    "_poller",
    "doTick",
    "transferLeadership",
)


def check(version: str, names: Iterable[str]) -> None:
    """Refuse a PySyncObj whose inside is not the one that this was written for; also under `python -O`.

    `names`: what its class and its constructor know. Raises ImportError.
    """
    if version != STOCK_VERSION:
        raise ImportError(
            f"found PySyncObj {version}, but the managers' consensus is built on the inside of {STOCK_VERSION}: "
            f"run `pip install pysyncobj=={STOCK_VERSION}`"
        )
    missing = {*_Private.names, *_OVERRIDDEN, *_CALLED}.difference(names)
    if missing:
        raise ImportError(
            f"found PySyncObj {version}, but it lacks {', '.join(sorted(missing))}: it is not the published one, "
            f"run `pip install --force-reinstall --no-deps pysyncobj=={STOCK_VERSION}`"
        )


check(VERSION, {*vars(library.SyncObj), *library.SyncObj.__init__.__code__.co_names})


def _configuration(timings: Timings, on_state_changed: Callable[[int, int], None]) -> Any:
    return library.SyncObjConf(
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
