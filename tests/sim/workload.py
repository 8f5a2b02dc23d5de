"""The clients: transactions of the store and linearizable reads, at whoever believes to lead.

The store's coroutines are driven by hand; a request's outcome is told to the oracle at the moment at which
the engine gives it.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any

from raft.codec import decode_command
from raft.errors import MaybeCommitted, NotLeader, RaftError
from raft.objects.base import Annotations, Kind
from raft.objects.cluster import Config, ConfigSpec
from raft.stock import DISCARDED, NOT_LEADER, SUCCESS
from raft.store import Applied, Transaction
from raft.syncobj import PROPOSAL_ID_BYTES
from tests.sim.cluster import Cluster, Manager
from tests.sim.plan import Request


class Clients:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._count = 0
        self.acknowledged = 0
        self.read = 0

    def begin(self, request: Request) -> bool:
        """False when nobody leads: the request is not made."""
        leaders = self._cluster.leaders()
        if not leaders:
            return False
        manager = leaders[request.choice % len(leaders)]
        step = self._write if request.kind == "write" else self._read
        manager.do(lambda: step(manager, request.key))
        return True

    def next_id(self) -> bytes:
        self._count += 1
        return self._count.to_bytes(PROPOSAL_ID_BYTES, "big")

    def _write(self, manager: Manager, key: str) -> None:
        data = bytes(self._count % 97)

        def change(transaction: Transaction) -> None:
            old = transaction.get(Kind.CONFIG, key)
            spec = ConfigSpec(annotations=Annotations(name=key), data=data)
            meta = {} if old is None else {"meta": old.meta}
            transaction.put(Config(id=key, spec=spec, **meta))  # type: ignore[arg-type]

        manager.store.attach(_Proposer(self, manager))
        _resume(manager, manager.store.update(change), None)

    def _read(self, manager: Manager, key: str) -> None:
        if not manager.engine.is_leader():
            return
        oracle = self._cluster.oracle
        floor = oracle.floor(key)

        def confirmed(_: object, reason: int) -> None:
            if reason == SUCCESS:
                self.read += 1
                record = manager.store.view().get(Kind.CONFIG, key)
                oracle.on_read(key, floor, 0 if record is None else record.meta.version, manager.id)

        manager.engine.barrier(confirmed)

    def succeeded(self, proposal_id: bytes, key: str, index: int) -> None:
        self.acknowledged += 1
        self._cluster.oracle.on_acknowledged(proposal_id, index)
        self._cluster.oracle.on_known(key, index)

    def refused(self, proposal_id: bytes) -> None:
        self._cluster.oracle.on_refused(proposal_id)


class _Proposer:
    def __init__(self, clients: Clients, manager: Manager) -> None:
        self._clients = clients
        self._manager = manager

    async def propose(self, command: bytes) -> object:
        if not self._manager.engine.is_leader():
            raise NotLeader("not the leader")
        return await _Outcome(self._clients, self._manager, command)

    async def read_barrier(self) -> None:
        raise AssertionError("the clients' transactions always write")


class _Outcome:
    """Awaited by the store; `begin` is called once its coroutine has come to rest."""

    def __init__(self, clients: Clients, manager: Manager, command: bytes) -> None:
        self._clients = clients
        self._manager = manager
        self._key = decode_command(command).changes[0].id
        self._command = command
        self._id = clients.next_id()
        self._result: object = None

    def __await__(self) -> Generator[_Outcome, None, object]:
        yield self
        if isinstance(self._result, RaftError):
            raise self._result
        return self._result

    def begin(self, update: Coroutine[Any, Any, None]) -> None:
        def done(result: object, reason: int) -> None:
            self._done(result, reason)
            self._manager.do(lambda: _resume(self._manager, update, None))

        self._manager.engine.propose(self._id, self._command, done)

    def _done(self, result: object, reason: int) -> None:
        if reason == SUCCESS:
            if isinstance(result, Applied):
                self._clients.succeeded(self._id, self._key, result.index)
            self._result = result
        elif reason in (NOT_LEADER, DISCARDED):
            self._clients.refused(self._id)
            self._result = NotLeader("not the leader")
        else:
            self._result = MaybeCommitted("the leadership was lost")


def _resume(manager: Manager, update: Coroutine[Any, Any, None], value: object) -> None:
    """Run the transaction up to its next wait for an outcome, or to its end."""
    try:
        outcome = update.send(value)
        outcome.begin(update)
    except (StopIteration, RaftError):
        update.close()
