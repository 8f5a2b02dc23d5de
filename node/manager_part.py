"""What a manager node runs besides its agent: consensus, control API, dispatcher, certificate authority.

Made for one membership; `start` after the RPC listener has its handlers, `stop` once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from engine.config import LogOptions
from node.ca.service import CaService, CaState
from node.identity import NodeIdentity, SwarmFolder
from node.leaving import Standing
from node.lock_keeper import LockKeeper
from node.loop import SystemClock
from node.manager.absence import machine_answers
from node.manager.checkup import Checkup
from node.manager.dispatcher import Dispatcher
from node.manager.examination import Examiner
from node.manager.forward import leader_address, to_rpc
from node.manager.leader_calls import LeaderCalls
from node.manager.logbroker import LogBroker
from node.manager.logreader import LogReaderService, read_logs
from node.manager.manager import Manager
from node.manager.raft_settings import follow_settings
from node.membership_keeper import MembershipKeeper
from node.rpc import RpcClient, RpcServer
from node.swarm_events import SwarmEvents
from raft.consensus import Consensus, ConsensusConfig
from raft.errors import RaftError
from raft.objects.assignment import LogLine, ManagerAddress
from raft.objects.base import SECOND, new_id
from raft.objects.node import Availability, Node, NodeRole, NodeSpec
from raft.store import Store, Transaction
from raft.wal import WalDamaged

logger = logging.getLogger(__name__)

JOIN_TIMEOUT_S = 60.0
STANDING_TIMEOUT_S = 2.0


def consensus_config(folder: SwarmFolder, identity: NodeIdentity) -> ConsensusConfig:
    return ConsensusConfig(
        node_id=identity.node_id,
        address=identity.rpc_address,
        cluster_id=identity.cluster_id,
        state_dir=folder.raft,
        key=folder.data_key(),
    )


class ManagerPart:
    """`founding`: of a new cluster. `members`: where the other managers are, when this one joins them for the
    first time. Neither: it goes on from its log.

    Raises WalDamaged when there is none, and what Consensus.resume raises.
    """

    def __init__(
        self,
        folder: SwarmFolder,
        identity: NodeIdentity,
        client: RpcClient,
        *,
        founding: bool = False,
        members: Mapping[str, str] | None = None,
        known: Callable[[], Sequence[ManagerAddress]] = tuple,
        events: SwarmEvents | None = None,
    ) -> None:
        self._identity = identity
        self._client = client
        self._joins = members is not None
        clock = SystemClock()
        config = consensus_config(folder, identity)
        proposer = _LateProposer()
        self.store = Store(proposer)
        if founding:
            self.consensus = Consensus.bootstrap(config, self.store, client)
        elif members is not None:
            self.consensus = Consensus.join(config, self.store, client, members)
        elif Consensus.exists(folder.raft):
            self.consensus = Consensus.resume(config, self.store, client)
        else:
            raise WalDamaged(f"there is no log in {folder.raft}")
        proposer.target = self.consensus
        self._dispatcher = Dispatcher(
            self.store,
            clock,
            leader_address=lambda: leader_address(self.consensus),
            confirm=self._confirm,
            answers=lambda host: machine_answers(host, identity.port),
            own_node=identity.node_id,
        )
        self._logs = LogBroker(self.store, self._dispatcher)
        self._manager = Manager(
            identity.node_id,
            self.store,
            self.consensus,
            client,
            parts={"dispatcher": self._dispatcher.run},
        )
        self._authority = CaService(
            confirm=self._confirm,
            state=self._ca_state,
            admit=self._admit,
            role_of=self._role_of,
            managers=self.managers,
            now=clock.now,
        )
        self.control = self._manager.control
        self._membership = MembershipKeeper(
            identity,
            self.consensus,
            client,
            others=lambda: [
                *(members or {}).values(),
                *(m.address for m in known() if m.node_id != identity.node_id),
            ],
            add_here=self._manager.count_member,
        )
        self._lock_keeper = LockKeeper(self.store, folder.credentials.apply_lock, clock)
        self.leader_calls = LeaderCalls(identity.node_id, self.consensus, client)
        self._examiner = Examiner(config, self.store, self.consensus)
        self.checkup = Checkup(identity.node_id, self.consensus, client, self.leader_calls, self._examiner)
        self._events = events
        self._running: asyncio.Task[None] | None = None

    def register(self, server: RpcServer) -> None:
        self._manager.register(server)
        self._dispatcher.register(server)
        self._logs.register(server)
        self._authority.register(server)
        self.leader_calls.register(server)
        self._examiner.register(server)
        LogReaderService(self.store, self._logs, self.consensus).register(server)
        server.on_raft(self.consensus.accept)

    async def start(self) -> None:
        """Take part; a joiner asks the leader to be added and returns when it was."""
        await self.consensus.start()
        self._running = asyncio.create_task(self._run(), name="manager")
        self._running.add_done_callback(_say_why_it_ended)
        if self._joins:
            await self._membership.joined(JOIN_TIMEOUT_S)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._manager.run(), name="leadership")
            group.create_task(follow_settings(self.store, self.consensus), name="raft settings")
            group.create_task(self._membership.run(), name="membership")
            group.create_task(self._lock_keeper.run(), name="lock keeper")
            if self._events is not None:
                group.create_task(self._events.follow(self.store, self.consensus), name="events")

    async def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        await self.consensus.stop()

    async def left(self) -> None:
        """Wait until this node is no member of the managers' group any more."""
        changed = asyncio.Event()
        self.consensus.on_change(changed.set)
        while self._identity.node_id in self.consensus.members():
            await changed.wait()
            changed.clear()

    async def standing(self) -> Standing | None:
        """As the leader sees the managers; None when there is none to ask."""
        try:
            async with asyncio.timeout(STANDING_TIMEOUT_S):
                nodes = await self.control.list_nodes({})
        except (RaftError, TimeoutError):
            return None
        reachable = [node.manager.reachable for node in nodes if node.manager is not None]
        return Standing(reachable.count(True), reachable.count(False))

    def managers(self) -> tuple[ManagerAddress, ...]:
        return tuple(
            ManagerAddress(node_id=node_id, address=address)
            for node_id, address in self.consensus.members().items()
        )

    async def logs(self, kind: str, ref: str, options: LogOptions) -> AsyncIterator[LogLine]:
        """`kind`: service or task. Read through the leader, whose dispatcher has the agents' sessions."""
        async for line in read_logs(self.store, self._logs, self.consensus, self._client, kind, ref, options):
            yield line

    def _ca_state(self) -> CaState | None:
        cluster = self.store.view().cluster
        if cluster is None:
            return None
        return CaState(
            root=cluster.root_ca,
            cluster_id=cluster.cluster_id,
            validity_s=cluster.spec.node_cert_expiry_ns / SECOND,
            lock=cluster.lock,
        )

    async def _confirm(self) -> None:
        """After this the local state is the newest there is. Raises RpcError."""
        try:
            await self.consensus.read_barrier()
        except RaftError as error:
            raise to_rpc(error) from error

    async def _admit(self, role: NodeRole, availability: Availability) -> str:
        node = Node(id=new_id(), spec=NodeSpec(role=role, availability=availability), role=role)

        def add(tx: Transaction) -> None:
            tx.put(node)

        try:
            await self.store.update(add)
        except RaftError as error:
            raise to_rpc(error) from error
        return node.id

    def _role_of(self, node_id: str) -> NodeRole | None:
        node = self.store.view().nodes.get(node_id)
        return None if node is None else node.role


def _say_why_it_ended(running: asyncio.Task[None]) -> None:
    if not running.cancelled() and running.exception() is not None:
        logger.critical("this manager has stopped: start its daemon again", exc_info=running.exception())


class _LateProposer:
    """The store needs its proposer and the consensus its store: this breaks the circle."""

    target: Consensus

    async def propose(self, command: bytes) -> object:
        return await self.target.propose(command)

    async def read_barrier(self) -> None:
        await self.target.read_barrier()
