"""The clients: transactions of the store and linearizable reads, at whoever believes to lead; and the operators.

What each of them hears is told to the oracle at the moment at which it is heard.
"""

from __future__ import annotations

from raft.codec import decode_command
from raft.errors import MaybeCommitted, NotLeader, RaftError, Unavailable
from raft.objects.base import Annotations, Kind
from raft.objects.cluster import Config, ConfigSpec
from raft.store import Applied, Transaction
from tests.sim.cluster import Cluster
from tests.sim.manager import Manager
from tests.sim.plan import Request


class Clients:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._count = 0
        self.acknowledged = 0
        self.read = 0
        self.unknown = 0

    def begin(self, request: Request) -> bool:
        """False when nobody leads: the request is not made."""
        leaders = self._cluster.leaders()
        if not leaders:
            return False
        manager = leaders[request.choice % len(leaders)]
        step = self._write if request.kind == "write" else self._read
        manager.request(step(manager, request.key))
        return True

    async def _write(self, manager: Manager, key: str) -> None:
        def change(transaction: Transaction) -> None:
            self._count += 1
            old = transaction.get(Kind.CONFIG, key)
            # No two commands are equal, so that the oracle knows each by its bytes.
            data = self._count.to_bytes(4, "big") + bytes(self._count % 97)
            spec = ConfigSpec(annotations=Annotations(name=key), data=data)
            meta = {} if old is None else {"meta": old.meta}
            transaction.put(Config(id=key, spec=spec, **meta))  # type: ignore[arg-type]

        manager.store.attach(_Proposer(self, manager))
        try:
            await manager.store.update(change)
        except RaftError:
            """The proposer has told the oracle."""

    async def _read(self, manager: Manager, key: str) -> None:
        oracle = self._cluster.oracle
        floor = oracle.floor(key)
        try:
            await manager.consensus.read_barrier()
        except RaftError:
            return
        self.read += 1
        record = manager.store.view().get(Kind.CONFIG, key)
        oracle.on_read(key, floor, 0 if record is None else record.meta.version, manager.id)

    async def propose(self, manager: Manager, command: bytes) -> object:
        oracle = self._cluster.oracle
        try:
            result = await manager.consensus.propose(command)
        except (NotLeader, Unavailable):
            oracle.on_refused(command)
            raise
        except MaybeCommitted:
            self.unknown += 1
            raise
        if isinstance(result, Applied):
            self.acknowledged += 1
            oracle.on_acknowledged(command, result.index)
            oracle.on_known(decode_command(command).changes[0].id, result.index)
        return result


class _Proposer:
    """Stands between the store and its manager."""

    def __init__(self, clients: Clients, manager: Manager) -> None:
        self._clients = clients
        self._manager = manager

    async def propose(self, command: bytes) -> object:
        return await self._clients.propose(self._manager, command)

    async def read_barrier(self) -> None:
        raise AssertionError("the clients' transactions always write")


class Operators:
    """Change the members and hand the lead over."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.changes = 0

    def add(self, leader: Manager, joiner: Manager) -> None:
        """Start the node when it is new, and ask the leader to take it in."""
        self._cluster.wanted.add(joiner.id)
        if joiner.life == 0:
            joiner.start()
        leader.command(self._add(leader, joiner))

    def remove(self, leader: Manager, node_id: str) -> None:
        leader.command(self._remove(leader, node_id))

    def promote(self, manager: Manager) -> None:
        """Have a former member back: it begins without anything of its former life."""
        manager.crash()
        manager.lose_disk()
        self._cluster.wanted.add(manager.id)
        manager.start()

    def hand_over(self, leader: Manager) -> None:
        leader.command(self._hand_over(leader))

    async def _add(self, leader: Manager, joiner: Manager) -> None:
        try:
            await leader.consensus.add_member(joiner.id, joiner.address)
        except RaftError:
            return
        self._done("add", joiner.id)

    async def _remove(self, leader: Manager, node_id: str) -> None:
        self._cluster.wanted.discard(node_id)
        try:
            await leader.consensus.remove_member(node_id)
        except (RaftError, GeneratorExit) as error:
            # Not done, unknown, or the leader has crashed: the operators think better of it.
            self._cluster.wanted.add(node_id)
            if isinstance(error, GeneratorExit):
                raise
            return
        self._done("remove", node_id)

    async def _hand_over(self, leader: Manager) -> None:
        term = leader.consensus.term
        try:
            await leader.consensus.transfer_leadership()
        except RaftError:
            return
        self._cluster.oracle.on_handed_over(leader, term)

    def _done(self, kind: str, node_id: str) -> None:
        self.changes += 1
        self._cluster.oracle.on_members_changed(kind, node_id)
