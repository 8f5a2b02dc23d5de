"""The replicated store: transactions that are proposed to the cluster, and the state they lead to.

Owns the order of things: a transaction reads the applied state, its writes are proposed as one command,
and `apply` makes them real on every manager in log order. Invariants: apply is deterministic, reads no
clock and never raises; an object is only written over the version that the writer read; a request takes
effect once and has one answer (raft.requests); an object's `meta.version` is the log index of the command
that wrote it. No I/O here; durability is the consensus' job.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Literal, Protocol, TypeVar, cast

import msgspec

from raft import codec, requests
from raft.codec import Change
from raft.dump import Dump, read_dump
from raft.errors import (
    AlreadyExists,
    InvalidArgument,
    MaybeCommitted,
    NotFound,
    OutOfSequence,
    RaftError,
    Unavailable,
    code_of,
)
from raft.objects.base import Kind, ObjectRecord
from raft.objects.cluster import CLUSTER_ID, Cluster, Config, Network, Secret
from raft.objects.node import Node
from raft.objects.request import Receipt, Request
from raft.objects.service import Service
from raft.objects.task import Task
from raft.requests import Ticket
from raft.tables import NAMED_KINDS, Tables, name_of
from raft.watch import WATCH_EVENTS_MAX, Event, Hub, Watch

T = TypeVar("T")

# Reruns of a transaction that lost against a concurrent one; from the third on they queue for a lock.
ATTEMPTS_MAX = 64
ATTEMPTS_UNLOCKED = 2
RELEASED_AT_ONCE = 500

# Changes nothing; where it stands in the log all managers have the same state, and can compare theirs.
CHECKPOINT = codec.encode_command(())

_KIND_OF: dict[type[ObjectRecord], Kind] = {cls: kind for kind, cls in codec.CLASS_OF.items()}


class Proposer(Protocol):
    """Whoever gets a command agreed upon by the managers (the consensus)."""

    async def propose(self, command: bytes) -> object:
        """Return what apply returned. Raises NotLeader or Unavailable (nothing written), MaybeCommitted."""

    async def read_barrier(self) -> None:
        """After this, what the state was at the call is known to have been the newest. Raises NotLeader,
        Unavailable."""


class Applied(msgspec.Struct, frozen=True):
    """The command was applied at this log index."""

    index: int


class Repeated(msgspec.Struct, frozen=True):
    """The command changed nothing: its request had been answered before."""

    receipt: Receipt


class Refused(msgspec.Struct, frozen=True):
    """The command changed nothing, on every manager alike.

    `sequence`: the writer had read an older version and may try again; `name`: a name was taken;
    `request`: its key is another call's or from the future; `forgotten`: nobody knows any more whether the
    request was answered before; `unreadable`: no manager of this version can decode the command.
    """

    reason: Literal["sequence", "name", "request", "forgotten", "unreadable"]
    message: str


class View:
    """The applied state, live: what it returns is valid until the caller's next await."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def get(self, kind: Kind, id: str) -> ObjectRecord | None:
        return self._tables.rows(kind).get(id)

    def all(self, kind: Kind) -> Iterable[ObjectRecord]:
        return self._rows(kind).values()

    def _rows(self, kind: Kind) -> Mapping[str, ObjectRecord]:
        return self._tables.rows(kind)

    @property
    def nodes(self) -> Mapping[str, Node]:
        return cast("Mapping[str, Node]", self._rows(Kind.NODE))

    @property
    def services(self) -> Mapping[str, Service]:
        return cast("Mapping[str, Service]", self._rows(Kind.SERVICE))

    @property
    def tasks(self) -> Mapping[str, Task]:
        return cast("Mapping[str, Task]", self._rows(Kind.TASK))

    @property
    def networks(self) -> Mapping[str, Network]:
        return cast("Mapping[str, Network]", self._rows(Kind.NETWORK))

    @property
    def secrets(self) -> Mapping[str, Secret]:
        return cast("Mapping[str, Secret]", self._rows(Kind.SECRET))

    @property
    def configs(self) -> Mapping[str, Config]:
        return cast("Mapping[str, Config]", self._rows(Kind.CONFIG))

    @property
    def cluster(self) -> Cluster | None:
        return cast("Cluster | None", self.get(Kind.CLUSTER, CLUSTER_ID))

    def tasks_of_service(self, service_id: str) -> list[Task]:
        return list(self._tables.tasks_of_service(service_id).values())

    def tasks_of_node(self, node_id: str) -> list[Task]:
        return list(self._tables.tasks_of_node(node_id).values())

    def tasks_of_slot(self, service_id: str, slot: int) -> list[Task]:
        return list(self._tables.tasks_of_slot(service_id, slot).values())

    def by_name(self, kind: Kind, name: str) -> ObjectRecord | None:
        """The object with that unique name; nodes and tasks have none."""
        assert kind in NAMED_KINDS, f"{kind} objects have no unique name"
        object_id = self._tables.id_of_name(kind, name)
        return None if object_id is None else self.get(kind, object_id)


class Transaction(View):
    """A view whose writes are staged: its own reads see them, nobody else does until they are applied."""

    def __init__(self, tables: Tables, now: float) -> None:
        super().__init__(tables)
        self._now = now
        self._staged: dict[Kind, dict[str, ObjectRecord | None]] = {}
        self._answers = True

    @property
    def answers(self) -> bool:
        """Is the request, if there is one, done with this transaction?"""
        return self._answers

    def leave_unanswered(self) -> None:
        """Another transaction of the same request follows; this one may be repeated without harm."""
        self._answers = False

    def put(self, obj: ObjectRecord) -> None:
        """Create (meta.version 0) or update an object as it was read.

        Raises OutOfSequence when the object changed since it was read, AlreadyExists when its name is taken.
        """
        kind = _KIND_OF[type(obj)]
        stored = self._tables.rows(kind).get(obj.id)
        version = 0 if stored is None else stored.meta.version
        if obj.meta.version != version:
            raise OutOfSequence(
                f"update out of sequence: {kind} {obj.id} is at {version}, not {obj.meta.version}"
            )
        if kind in NAMED_KINDS:
            self._check_name(kind, obj)
        meta = msgspec.structs.replace(
            obj.meta, created_at=obj.meta.created_at or self._now, updated_at=self._now
        )
        self._staged.setdefault(kind, {})[obj.id] = msgspec.structs.replace(obj, meta=meta)

    def delete(self, kind: Kind, id: str) -> None:
        """Raises NotFound when there is no such object (in this transaction's eyes)."""
        if self.get(kind, id) is None:
            raise NotFound(f"{kind} {id} not found")
        staged = self._staged.setdefault(kind, {})
        if id in self._tables.rows(kind):
            staged[id] = None
        else:
            del staged[id]

    def changes(self) -> list[Change]:
        """What was staged, in order of kind and then of first write."""
        return [
            Change(kind, object_id, self._base(kind, object_id), record)
            for kind, staged in self._staged.items()
            for object_id, record in staged.items()
        ]

    def get(self, kind: Kind, id: str) -> ObjectRecord | None:
        staged = self._staged.get(kind)
        if staged is not None and id in staged:
            return staged[id]
        return super().get(kind, id)

    def tasks_of_service(self, service_id: str) -> list[Task]:
        return self._merged(super().tasks_of_service(service_id), lambda t: t.service_id == service_id)

    def tasks_of_node(self, node_id: str) -> list[Task]:
        return self._merged(super().tasks_of_node(node_id), lambda t: t.node_id == node_id)

    def tasks_of_slot(self, service_id: str, slot: int) -> list[Task]:
        return self._merged(
            super().tasks_of_slot(service_id, slot), lambda t: t.service_id == service_id and t.slot == slot
        )

    def by_name(self, kind: Kind, name: str) -> ObjectRecord | None:
        staged = self._staged.get(kind, {})
        for record in staged.values():
            if record is not None and name_of(record) == name:
                return record
        found = super().by_name(kind, name)
        return None if found is None or found.id in staged else found

    def _rows(self, kind: Kind) -> Mapping[str, ObjectRecord]:
        staged = self._staged.get(kind)
        if not staged:
            return super()._rows(kind)
        return dict(self._merged_rows(kind, staged))

    def _merged_rows(
        self, kind: Kind, staged: Mapping[str, ObjectRecord | None]
    ) -> Iterator[tuple[str, ObjectRecord]]:
        stored = self._tables.rows(kind)
        for object_id, record in stored.items():
            current = staged.get(object_id, record)
            if current is not None:
                yield object_id, current
        for object_id, added in staged.items():
            if added is not None and object_id not in stored:
                yield object_id, added

    def _merged(self, stored: list[Task], wanted: Callable[[Task], bool]) -> list[Task]:
        staged = cast("dict[str, Task | None]", self._staged.get(Kind.TASK))
        if not staged:
            return stored
        merged = [task for task in stored if task.id not in staged]
        merged.extend(task for task in staged.values() if task is not None and wanted(task))
        return merged

    def _base(self, kind: Kind, object_id: str) -> int:
        stored = self._tables.rows(kind).get(object_id)
        return 0 if stored is None else stored.meta.version

    def _check_name(self, kind: Kind, obj: ObjectRecord) -> None:
        name = name_of(obj)
        owner = self.by_name(kind, name)
        if owner is not None and owner.id != obj.id:
            raise AlreadyExists(_name_taken(kind, name))


class Store:
    """The cluster's objects on this manager. It is the state machine that the consensus drives."""

    def __init__(self, proposer: Proposer | None = None, clock: Callable[[], float] = time.time) -> None:
        self._proposer = proposer
        self._clock = clock
        self._tables = Tables()
        self._view = View(self._tables)
        self._index = 0
        self._hub = Hub()
        self._contended = asyncio.Lock()
        self._on_checkpoint: Callable[[Dump], None] = lambda dump: None

    @property
    def index(self) -> int:
        """Log index of the last command that was applied here."""
        return self._index

    def attach(self, proposer: Proposer | None) -> None:
        """Say where writes go; None while this node is not a manager."""
        self._proposer = proposer

    def on_checkpoint(self, callback: Callable[[Dump], None]) -> None:
        """Call back with the state at exactly the index of every CHECKPOINT command that is applied."""
        self._on_checkpoint = callback

    def view(self) -> View:
        return self._view

    def watch(self, kinds: Collection[Kind] | None = None, limit: int = WATCH_EVENTS_MAX) -> Watch:
        """Changes from the moment the watch is entered; start it before reading the view."""
        return self._hub.watch(kinds, limit)

    async def update(self, fn: Callable[[Transaction], T], request: Request | None = None) -> T:
        """Run `fn` on a transaction and return its result once the writes are applied.

        `fn` must be free of side effects: it runs again when a concurrent transaction won. Raises what `fn`
        raises, InvalidArgument above 200 changes or 1 MiB, AlreadyExists, OutOfSequence when it lost
        64 times, NotLeader and Unavailable (nothing was written), MaybeCommitted.

        With a `request`, all of its updates write once together and have one outcome: a later one returns
        what `fn` returned first (plain data: it is kept as msgpack), or raises the same refusal. A refusal
        and a result without writes are then also decided on the newest state there is.
        """
        for _ in range(ATTEMPTS_UNLOCKED):
            done, result = await self._attempt(fn, request)
            if done:
                return result
        async with self._contended:
            for _ in range(ATTEMPTS_MAX - ATTEMPTS_UNLOCKED):
                done, result = await self._attempt(fn, request)
                if done:
                    return result
        message = f"update out of sequence: lost against other writers {ATTEMPTS_MAX} times"
        raise MaybeCommitted(message) if request and request.repeated else OutOfSequence(message)

    async def _attempt(self, fn: Callable[[Transaction], T], request: Request | None) -> tuple[bool, T]:
        """(False, _) when a concurrent transaction won."""
        if request is not None:
            done, answer = await self._attempt_once(fn, request)
            return done, cast(T, answer)
        transaction = Transaction(self._tables, self._clock())
        result = fn(transaction)
        changes = transaction.changes()
        if not changes:
            return True, result
        outcome = await self._required_proposer().propose(codec.encode_command(changes))
        if isinstance(outcome, Refused) and outcome.reason != "sequence":
            raise _refusal(outcome)
        return isinstance(outcome, Applied), result

    async def _attempt_once(
        self, fn: Callable[[Transaction], object], request: Request
    ) -> tuple[bool, object]:
        receipt = requests.receipt_of(self._tables, request.key, request.fingerprint)
        if receipt is not None:
            return True, requests.answer(receipt)
        result, refusal, changes, command = self._staged(fn, request)
        if not changes and not request.repeated:
            await self._required_proposer().read_barrier()
        else:
            # An earlier attempt may yet arrive: when this one is refused, so must that one be.
            outcome = await self._required_proposer().propose(command)
            if isinstance(outcome, Repeated):
                return True, requests.answer(outcome.receipt)
            if isinstance(outcome, Refused):
                if outcome.reason == "sequence" or (outcome.reason == "name" and request.repeated):
                    return False, None
                raise _refusal(outcome, request)
        if refusal is not None:
            raise refusal
        return True, result

    def _staged(
        self, fn: Callable[[Transaction], object], request: Request
    ) -> tuple[object, RaftError | None, list[Change], bytes]:
        """The result or the refusal, and the command that makes it so."""
        transaction = Transaction(self._tables, self._clock())
        try:
            result = fn(transaction)
            changes = transaction.changes()
            ticket = _ticket(request, result, None) if transaction.answers else None
            return result, None, changes, codec.encode_command(changes, ticket)
        except RaftError as refusal:
            return None, refusal, [], codec.encode_command([], _ticket(request, None, refusal))

    def _required_proposer(self) -> Proposer:
        if self._proposer is None:
            raise Unavailable("this node is not a swarm manager")
        return self._proposer

    # ---- the state machine ----

    def apply(self, command: bytes, index: int) -> object:
        """Make one committed command real; returns Applied, or Repeated or Refused: it changed nothing."""
        self._index = index
        if command == CHECKPOINT:
            self._on_checkpoint(self.dump())
            return Applied(index)
        try:
            decoded = codec.decode_command(command)
        except InvalidArgument as err:
            return Refused("unreadable", str(err))
        changes, ticket = decoded.changes, decoded.ticket
        earlier = None if ticket is None else self._earlier(ticket, index)
        refused = earlier or self._conflict(changes)
        if refused is not None:
            return refused
        events = [self._write(change, index) for change in changes]
        if ticket is not None:
            requests.record(self._tables, ticket, index)
        self._hub.publish(events, index)
        return Applied(index)

    def _earlier(self, ticket: Ticket, index: int) -> Repeated | Refused | None:
        """Why a command of this request must not be carried out, now or ever."""
        try:
            receipt = requests.receipt_of(self._tables, ticket.key, ticket.fingerprint)
        except InvalidArgument as err:
            return Refused("request", str(err))
        if receipt is not None:
            return Repeated(receipt)
        if ticket.since >= index:
            return Refused("request", f"request key {ticket.key} is ahead of the log, which is at {index}")
        if requests.is_forgotten(self._tables, ticket.since):
            return Refused("forgotten", "")
        return None

    def _conflict(self, changes: list[Change]) -> Refused | None:
        for change in changes:
            stored = self._tables.rows(change.kind).get(change.id)
            version = 0 if stored is None else stored.meta.version
            if version != change.base:
                return Refused("sequence", f"update out of sequence: {change.kind} {change.id}")
        return self._name_conflict(changes)

    def _name_conflict(self, changes: list[Change]) -> Refused | None:
        written = {(change.kind, change.id) for change in changes}
        taken: set[tuple[Kind, str]] = set()
        for change in changes:
            if change.record is None or change.kind not in NAMED_KINDS:
                continue
            name = name_of(change.record)
            owner = self._tables.id_of_name(change.kind, name)
            # An owner that this command also writes gives the name up, or takes it a second time.
            if (owner is not None and (change.kind, owner) not in written) or (change.kind, name) in taken:
                return Refused("name", _name_taken(change.kind, name))
            taken.add((change.kind, name))
        return None

    def _write(self, change: Change, index: int) -> Event:
        if change.record is None:
            old = self._tables.remove(change.kind, change.id)
            return Event(action="delete", index=index, kind=change.kind, old=old)
        meta = msgspec.structs.replace(change.record.meta, version=index)
        new = msgspec.structs.replace(change.record, meta=meta)
        old = self._tables.put(change.kind, new)
        return Event(
            action="create" if old is None else "update", index=index, kind=change.kind, old=old, new=new
        )

    def dump(self) -> Dump:
        """A consistent, immutable picture; costs a copy of the tables' references."""
        return Dump(self._index, self._tables.copy_rows())

    @staticmethod
    def pieces(dump: Dump) -> Iterator[bytes]:
        """A dump as bytes, piece by piece. Meant for a thread: it touches frozen objects only."""
        return dump.pieces()

    @staticmethod
    def prepare(pieces: Iterable[bytes]) -> Prepared:
        """Decode a dump. Meant for a thread: nobody sees anything of it before it is adopted.

        Raises InvalidArgument when the bytes are no whole dump.
        """
        index, objects = read_dump(pieces)
        tables = Tables()
        for kind, record in objects:
            tables.put(kind, record)
        return Prepared(index, tables)

    def adopt(self, prepared: Prepared) -> None:
        """Replace everything by a prepared state, which gets the former one in exchange."""
        self._tables.exchange(prepared.tables)
        self._index = prepared.index
        self._hub.resync(prepared.index)

    @staticmethod
    def encode(dump: Dump) -> bytes:
        """A dump as one byte string."""
        return b"".join(dump.pieces())

    def load(self, data: bytes) -> None:
        """Replace everything by a dump. Raises InvalidArgument, and then nothing has changed."""
        self.adopt(self.prepare([data]))


class Prepared:
    """A state that was read and waits to be adopted; afterwards, the state that it replaced."""

    def __init__(self, index: int, tables: Tables) -> None:
        self.index = index
        self.tables = tables

    def release(self) -> Iterator[None]:
        """Let go of the objects, a batch at each step. Meant for a thread: to free 100,000 objects takes
        a tenth of a second, which the event loop must not spend at once."""
        parts = self.tables.parts()
        self.tables = Tables()
        while parts:
            del parts[-RELEASED_AT_ONCE:]
            yield


class LocalProposer:
    """Applies at once, without a cluster: for simulations of the loops above the store, and their tests."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._index = store.index
        store.attach(self)

    async def propose(self, command: bytes) -> object:
        # Consensus always yields; code that forgets that its view has moved must fail here as well.
        await asyncio.sleep(0)
        self._index += 1
        return self._store.apply(command, self._index)

    async def read_barrier(self) -> None:
        await asyncio.sleep(0)


def _ticket(request: Request, result: object, refusal: RaftError | None) -> Ticket:
    kept = None if refusal is None else (code_of(refusal), str(refusal))
    return Ticket(request.key, request.since, request.fingerprint, msgspec.msgpack.encode(result), kept)


def _refusal(outcome: Refused, request: Request | None = None) -> RaftError:
    if outcome.reason == "forgotten" and request is not None:
        return requests.forgotten(request)
    return (AlreadyExists if outcome.reason == "name" else InvalidArgument)(outcome.message)


def _name_taken(kind: Kind, name: str) -> str:
    return f"name conflicts with an existing object: {kind} {name} already exists"
