"""The managers' agreement: propose a command, know who leads, change who belongs.

Runs the engine (raft.syncobj) on the event loop: one turn per burst of events and one every 20 ms, with
the disk sync of all that the burst brought inside the turn. Snapshots are encoded and written in threads.
Outcomes are told apart: NotLeader and Unavailable mean that nothing was written, MaybeCommitted that
nobody knows yet. Nothing outside this package knows which library elects the leader.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from raft import snapshot as snapshots
from raft.codec import COMMAND_BYTES_MAX
from raft.config import ConsensusConfig as ConsensusConfig  # for those who make one
from raft.config import log_owner, snapshot_dir, wal_dir
from raft.errors import FailedPrecondition, InvalidArgument, MaybeCommitted, NotLeader, RaftError, Unavailable
from raft.files import OS_FILES, Files
from raft.framing import WrongKey
from raft.log import Log
from raft.membership import Configuration
from raft.messages import PROTOCOL_VERSION, AnyMessage, Hello, Message
from raft.replication import MEMBERSHIP
from raft.salvage import check_key
from raft.snapshot import Snapshot, SnapshotMeta
from raft.snapshot_keeper import SnapshotKeeper
from raft.state_machine import StateMachine as StateMachine  # for those who implement it
from raft.stock import DISCARDED, NOT_LEADER, SUCCESS
from raft.syncobj import PROPOSAL_ID_BYTES, Engine
from raft.transport import Dialer, Links
from raft.wal import Wal, WalDamaged

logger = logging.getLogger(__name__)

TICK_S = 0.02
PROPOSE_TIMEOUT_S = 10.0
BARRIER_TIMEOUT_S = 5.0
HAND_OVER_TIMEOUT_S = 2.0
JOINER_CONTACT_TIMEOUT_S = 5.0
JOINER_STALLED_S = 10.0
CAUGHT_UP_ENTRIES = 100
POLL_S = 0.005


_EMPTY = SnapshotMeta(index=0, term=0, configuration=Configuration(), size=0, crc32=0)


class Consensus:
    """One manager's part. Made by bootstrap, join or resume; then `start`, and `stop` once."""

    def __init__(
        self, config: ConsensusConfig, machine: StateMachine, dialer: Dialer, log: Log, base: Snapshot | None
    ) -> None:
        self._config = config
        self._machine = machine
        self._dialer = dialer
        self._log = log
        self._base = base
        self._snapshots = SnapshotKeeper(config, machine, log, self._tell_engine)
        self._listeners: list[Callable[[], None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._changing_members = asyncio.Lock()
        self._undecided: set[asyncio.Future[object]] = set()  # their proposers wait no longer
        self._turn_scheduled = False
        self._failure: Exception | None = None
        self._running = False

    # ---- making one ----

    @classmethod
    def bootstrap(cls, config: ConsensusConfig, machine: StateMachine, dialer: Dialer) -> Consensus:
        """First manager of a new cluster. Raises FailedPrecondition when there is state already."""
        log = open_new_log(config)
        log.setCurrentTerm(1, config.node_id)
        configuration = Configuration({config.node_id: config.address})
        log.add(MEMBERSHIP + configuration.encode(), 1, 1)
        log.sync()
        return cls(config, machine, dialer, log, None)

    @classmethod
    def join(
        cls, config: ConsensusConfig, machine: StateMachine, dialer: Dialer, members: Mapping[str, str]
    ) -> Consensus:
        """A manager to be: listens, receives the log, votes once a leader has added it (`add_member` there).

        `members` is where the others are known to be; the replicated configuration replaces it.
        """
        if config.node_id in members:
            raise InvalidArgument(f"node {config.node_id} is a member already: resume it")
        return cls(config, machine, dialer, open_new_log(config), None)

    @classmethod
    def resume(cls, config: ConsensusConfig, machine: StateMachine, dialer: Dialer) -> Consensus:
        """Go on from WAL and snapshot. Raises WalDamaged, framing.Damaged, framing.WrongKey, OSError."""
        try:
            base = snapshots.load_latest(snapshot_dir(config), config.key, config.files)
            # Before one is made: what is missing must still be missing at the next attempt.
            if base is not None and not config.files.paths(wal_dir(config), "wal-*.log"):
                raise WalDamaged(f"there is a snapshot at entry {base.meta.index}, but no log")
            log = _open(config)
        except WrongKey as error:
            check_key(config)
            raise WalDamaged(f"{error}; it opens other files, so this one is damaged") from error
        try:
            index = 0 if base is None else base.meta.index
            if log.base > index:
                raise WalDamaged(f"the log begins after entry {log.base}, the snapshot ends at {index}")
            if base is not None:
                machine.adopt(machine.prepare(base.pieces))
        except BaseException:
            log.close()
            raise
        return cls(config, machine, dialer, log, base)

    @staticmethod
    def exists(state_dir: Path, files: Files = OS_FILES) -> bool:
        """Is there state to resume from?"""
        kinds = (("wal", "wal-*.log"), ("snapshots", "snapshot-*.snap"))
        return any(files.paths(state_dir / folder, pattern) for folder, pattern in kinds)

    async def start(self) -> None:
        """A single manager leads when this returns; the others when a majority has agreed."""
        config = self._config
        self._loop = asyncio.get_running_loop()
        hello = Hello(0, PROTOCOL_VERSION, config.cluster_id, config.node_id, config.address)
        self._links = Links(hello, self._dialer, self)
        self._engine = Engine(
            config.node_id,
            self,
            self._log,
            _EMPTY if self._base is None else self._base.meta,
            config.timings,
            config.snapshot_interval,
            config.keep_entries,
        )
        self._base = None
        self._running = True
        self._turn()
        self._timer = self._loop.call_later(TICK_S, self._on_timer)

    async def stop(self) -> None:
        """Stop taking part. What was not acknowledged may or may not be committed by the others."""
        if not self._running:
            self._log.close()
            return
        self._running = False
        self._timer.cancel()
        self._engine.abandon()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._links.close()
        self._log.close()

    # ---- state ----

    @property
    def is_leader(self) -> bool:
        """Leads, and has applied everything of former terms."""
        return self._running and self._failure is None and self._engine.is_leader()

    @property
    def leader_id(self) -> str | None:
        return self._engine.leader_id()

    @property
    def leader_address(self) -> str:
        """host:port of the leader, "" when none is known."""
        return self.members().get(self.leader_id or "", "")

    @property
    def term(self) -> int:
        return self._engine.term()

    @property
    def applied_index(self) -> int:
        return self._engine.applied_index()

    @property
    def is_removed(self) -> bool:
        """The others said that this node is a manager no longer."""
        return self._engine.is_removed()

    @property
    def commit_index(self) -> int:
        return self._engine.commit_index()

    @property
    def leader_heard_s_ago(self) -> float:
        """Seconds since a leader was heard, 0 while this manager leads, infinite when never since the start."""
        return self._engine.leader_heard_s_ago()

    @property
    def failure(self) -> Exception | None:
        """Why this manager takes no part: a broken invariant (for good), or its disk (until it heals)."""
        return self._failure or self._engine.storage_error()

    def members(self) -> dict[str, str]:
        """Node id -> host:port, as of the latest configuration."""
        return dict(self._engine.configuration.members)

    def removed(self) -> tuple[str, ...]:
        """Ids of former members, which may never be members again."""
        return self._engine.configuration.removed

    def reachable(self, node_id: str) -> bool:
        """Is there a connection to that manager (itself: always)?"""
        return node_id == self._config.node_id or self._engine.is_connected(node_id)

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call back, on the event loop, after leadership, term or membership have changed."""
        self._listeners.append(callback)

    def configure(self, snapshot_interval: int, keep_entries: int, keep_snapshots: int) -> None:
        """Entries between snapshots, entries kept behind one, older snapshots kept beside it; from now on."""
        self._engine.configure(snapshot_interval, keep_entries)
        self._snapshots.keep_older = keep_snapshots

    # ---- writing and reading ----

    async def propose(self, command: bytes) -> object:
        """Get a command committed and applied; returns what apply returned.

        Raises NotLeader (with the leader's address) and Unavailable when it was certainly not written,
        MaybeCommitted after 10 s or when the leadership was lost meanwhile, InvalidArgument above 1 MiB.
        After MaybeCommitted nothing is accepted until the fate of that command is known here: whoever tries
        again has then seen what became of it.
        """
        if len(command) > COMMAND_BYTES_MAX:
            raise InvalidArgument(f"command has {len(command)} bytes, the limit is {COMMAND_BYTES_MAX}")
        self._require_leader()
        if self._undecided:
            raise Unavailable("no majority has confirmed an earlier write yet: wait, or look at the managers")
        outcome = self._loop.create_future()
        self._engine.propose(os.urandom(PROPOSAL_ID_BYTES), command, self._resolver(outcome))
        self._wake()
        return await self._outcome(outcome)

    async def read_barrier(self) -> None:
        """After this, the local state contains everything that was acknowledged before the call.

        Raises NotLeader, Unavailable when no majority confirms within 5 s.
        """
        self._require_leader()
        outcome = self._loop.create_future()
        self._engine.barrier(self._resolver(outcome))
        self._wake()
        try:
            async with asyncio.timeout(BARRIER_TIMEOUT_S):
                await outcome
        except TimeoutError as err:
            raise Unavailable("no majority of the managers answers") from err

    # ---- membership ----

    async def add_member(self, node_id: str, address: str) -> None:
        """Bring a joiner up to date, then make it count; or change the address of a member.

        Raises Unavailable when it cannot be reached or does not catch up (nothing has changed then),
        FailedPrecondition when another change is under way or the node was removed before, NotLeader.
        """
        async with self._changing_members:
            self._require_leader()
            configuration = self._engine.configuration
            wanted = configuration.with_member(node_id, address)
            # The latest one may be that of an earlier call which nobody has confirmed.
            if wanted == self._engine.committed_configuration():
                return
            if node_id in configuration.members:
                await self._change(wanted)
                return
            self._engine.add_learner(node_id, address)
            try:
                await self._catch_up(node_id, address)
                await self._change(self._engine.configuration.with_member(node_id, address))
            finally:
                if node_id not in self.members():
                    self._engine.drop_learner(node_id)

    async def remove_member(self, node_id: str) -> None:
        """Take a manager out; the leader hands over first and then raises NotLeader naming the new one.

        Raises FailedPrecondition when the rest would have no quorum, InvalidArgument for a stranger.
        """
        async with self._changing_members:
            self._require_leader()
            wanted = self._engine.configuration.without_member(node_id)
            self._require_quorum(wanted, f"can't remove node {node_id}")
            if node_id == self._config.node_id:
                await self.transfer_leadership()
                raise NotLeader("leadership was handed over", self.leader_address)
            await self._change(wanted)

    async def expel_member(self, node_id: str) -> int:
        """For a manager that has lost its log, or begins without one: by a quorum of the others it is no member
        when this returns, and free to be added (docs/adr/0010-lost-log.md).

        Returns a term in which, and before which, it must not vote. Raises FailedPrecondition when the others
        have no quorum or another change is under way, NotLeader, Unavailable, MaybeCommitted.
        """
        async with self._changing_members:
            self._require_leader()
            configuration = self._engine.configuration
            wanted = configuration.without_trace_of(node_id)
            if wanted != configuration:
                self._require_quorum(
                    wanted, f"manager {node_id} has lost its log and can't be taken in again"
                )
                await self._change(wanted)
            elif not self._engine.membership_is_settled():
                raise FailedPrecondition("another change of the managers is in progress: try again")
            else:
                # A leader that was deposed does not know who was added since.
                await self.read_barrier()
            # An acknowledgement of its former life that is still on the way must not meet its next one.
            self._links.disconnect(node_id)
            return self.term

    async def transfer_leadership(self) -> None:
        """Hand over to the follower that is furthest. Raises Unavailable when none takes over in 2 s."""
        self._require_leader()
        self._engine.hold_proposals(True)
        try:
            async with asyncio.timeout(HAND_OVER_TIMEOUT_S):
                asked = False
                while self._engine.is_leader():
                    asked = asked or self._engine.offer_leadership()
                    self._wake()
                    await asyncio.sleep(POLL_S)
                while self.leader_id is None:  # noqa: ASYNC110 (bounded by the timeout around it)
                    await asyncio.sleep(POLL_S)
        except TimeoutError as err:
            raise Unavailable("no other manager could take over the leadership") from err
        finally:
            self._engine.hold_proposals(False)
            self._wake()

    def _require_quorum(self, wanted: Configuration, refusal: str) -> None:
        reachable = sum(self.reachable(member) for member in wanted.members)
        if reachable < wanted.quorum:
            raise FailedPrecondition(
                f"{refusal}: only {reachable} of the {len(wanted.members)} managers "
                f"left are reachable and {wanted.quorum} are needed, so the quorum would be lost"
            )

    async def _catch_up(self, node_id: str, address: str) -> None:
        deadline = self._loop.time() + JOINER_CONTACT_TIMEOUT_S
        furthest = -1
        while True:
            self._require_leader()
            match, last = self._engine.progress(node_id)
            heard = self._engine.heard_from(node_id)
            if heard and match + CAUGHT_UP_ENTRIES >= last:
                return
            if heard and (match > furthest or self._engine.transfer_moves(node_id)):
                furthest = match
                deadline = self._loop.time() + JOINER_STALLED_S
            if self._loop.time() > deadline:
                problem = "does not catch up" if heard else "cannot be reached"
                raise Unavailable(f"manager {node_id} at {address} {problem}: check its port and address")
            await asyncio.sleep(POLL_S)

    async def _change(self, wanted: Configuration) -> None:
        outcome = self._loop.create_future()
        self._engine.change_configuration(wanted, self._resolver(outcome))
        self._wake()
        await self._outcome(outcome)

    # ---- connections ----

    def accept(self, node_id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """An inbound connection whose peer has proved to be `node_id`, a manager of this cluster."""
        if not self._running:
            writer.close()
            return
        self._links.accept(node_id, reader, writer)

    def on_message(self, node_id: str, message: AnyMessage) -> None:
        self._guarded(lambda: self._engine.receive(node_id, message))

    def on_connected(self, node_id: str) -> None:
        self._guarded(lambda: self._engine.connected(node_id))

    def on_disconnected(self, node_id: str) -> None:
        self._guarded(lambda: self._engine.disconnected(node_id))

    def on_inbound_lost(self, node_id: str) -> None:
        self._guarded(lambda: self._engine.leader_connection_lost(node_id))

    # ---- what the engine asks (syncobj.Host) ----

    def send(self, node_id: str, message: Message) -> None:
        self._links.send(node_id, message)

    def congested(self, node_id: str) -> bool:
        return self._links.congested(node_id)

    def set_peers(self, addresses: dict[str, str]) -> None:
        self._links.set_peers(addresses)

    def apply(self, command: bytes, index: int) -> object:
        return self._machine.apply(command, index)

    def load(self, snapshot: Snapshot) -> None:
        self._snapshots.adopt()

    def start_snapshot(self, index: int, term: int, configuration: Configuration) -> None:
        self._spawn(self._snapshots.take(index, term, configuration, self._machine.dump()))

    def start_install(self, snapshot: Snapshot) -> None:
        self._spawn(self._snapshots.install(snapshot))

    def snapshot(self) -> Snapshot | None:
        if self._snapshots.must_be_read():
            self._spawn(self._snapshots.read())
        return self._snapshots.latest(self._loop.time())

    def changed(self) -> None:
        for callback in self._listeners:
            self._loop.call_soon(callback)

    # ---- turns ----

    def _on_timer(self) -> None:
        if not self._running or self._failure is not None:
            return
        self._snapshots.forget_unused(self._loop.time())
        self._turn()
        self._timer = self._loop.call_later(TICK_S, self._on_timer)

    def _wake(self) -> None:
        """Have a turn at the end of this burst of events."""
        if not self._turn_scheduled and self._running:
            self._turn_scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_scheduled = False
        if self._running and self._failure is None:
            self._guarded(self._engine.turn, wake=False)
            if self._engine.has_more_to_apply():
                self._wake()

    def _guarded(self, step: Callable[[], object], wake: bool = True) -> None:
        """A broken invariant must stop this manager before it does harm, and must be seen."""
        if not self._running or self._failure is not None:
            return
        try:
            step()
        except Exception as err:
            logger.critical("consensus stopped on this manager", exc_info=True)
            self._failure = err
            self._engine.abandon()
            self.changed()
            return
        if wake:
            self._wake()

    def _tell_engine(self, step: Callable[[Engine], object]) -> None:
        self._guarded(lambda: step(self._engine))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- outcomes ----

    def _require_leader(self) -> None:
        if self._failure is not None:
            raise Unavailable(f"this manager has stopped: {self._failure}")
        if not self._running:
            raise Unavailable("this manager is stopped")
        if not self._engine.is_leader():
            raise self._not_leader()

    def _not_leader(self) -> NotLeader:
        leader = self.leader_address
        if leader:
            return NotLeader(f"this manager is not the leader, {leader} is", leader)
        return NotLeader("the swarm does not have a leader: wait, or check that a majority of managers is up")

    def _resolver(self, outcome: asyncio.Future[object]) -> Callable[[object, int], None]:
        def resolve(result: object, reason: int) -> None:
            if outcome in self._undecided:
                self._undecided.discard(outcome)
                return
            if outcome.done():
                return
            if reason == SUCCESS and isinstance(result, RaftError):
                outcome.set_exception(result)
            elif reason == SUCCESS:
                outcome.set_result(result)
            elif reason in (NOT_LEADER, DISCARDED):
                outcome.set_exception(self._not_leader())
            else:
                outcome.set_exception(
                    MaybeCommitted("the leadership was lost while writing: look whether it was done")
                )

        return resolve

    async def _outcome(self, outcome: asyncio.Future[object]) -> object:
        try:
            async with asyncio.timeout(PROPOSE_TIMEOUT_S):
                return await asyncio.shield(outcome)
        except TimeoutError as err:
            raise MaybeCommitted(
                f"no majority confirmed the write within {PROPOSE_TIMEOUT_S:g} s: look whether it was done"
            ) from err
        finally:
            if not outcome.done():
                self._undecided.add(outcome)


def _open(config: ConsensusConfig) -> Log:
    wal, state = Wal.open(wal_dir(config), config.key, log_owner(config), config.files)
    return Log(wal, state)


def open_new_log(config: ConsensusConfig) -> Log:
    """Raises FailedPrecondition when the folder holds state, OSError."""
    if Consensus.exists(config.state_dir, config.files):
        raise FailedPrecondition(f"{config.state_dir} holds the state of a manager already")
    return _open(config)
