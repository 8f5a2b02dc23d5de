"""What a manager node runs besides its agent: consensus, control API, dispatcher, certificate authority.

Made for one membership; `start` after the RPC listener has its handlers, `stop` once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping

import msgspec

from engine.config import LogOptions
from node.ca.service import CaService, CaState
from node.identity import NodeIdentity, SwarmFolder
from node.loop import SystemClock
from node.manager.compaction import follow_spec
from node.manager.dispatcher import Dispatcher
from node.manager.forward import leader_address
from node.manager.logbroker import LogBroker
from node.manager.logreader import LogReaderService, read_logs
from node.manager.manager import JOIN_METHOD, JoinRequest, Manager
from node.rpc import RpcClient, RpcError, RpcServer
from raft.consensus import Consensus, ConsensusConfig
from raft.errors import FailedPrecondition
from raft.objects.assignment import LogLine, ManagerAddress
from raft.objects.base import SECOND, new_id
from raft.objects.node import Availability, Node, NodeRole, NodeSpec
from raft.store import Store, Transaction

logger = logging.getLogger(__name__)

JOIN_RETRY_S = 0.5
JOIN_TIMEOUT_S = 60.0


class ManagerPart:
    """`members`: where the other managers are, when this one joins them; empty for a new cluster."""

    def __init__(
        self,
        folder: SwarmFolder,
        identity: NodeIdentity,
        client: RpcClient,
        members: Mapping[str, str],
    ) -> None:
        self._identity = identity
        self._client = client
        self._members = dict(members)
        clock = SystemClock()
        config = ConsensusConfig(
            node_id=identity.node_id,
            address=identity.rpc_address,
            cluster_id=identity.cluster_id,
            state_dir=folder.raft,
            key=folder.data_key(),
        )
        proposer = _LateProposer()
        self.store = Store(proposer)
        self._resumed = Consensus.exists(folder.raft)
        if self._resumed:
            self.consensus = Consensus.resume(config, self.store, client)
        elif members:
            self.consensus = Consensus.join(config, self.store, client, members)
        else:
            self.consensus = Consensus.bootstrap(config, self.store, client)
        proposer.target = self.consensus
        self._dispatcher = Dispatcher(
            self.store, clock, leader_address=lambda: leader_address(self.consensus)
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
            state=self._ca_state,
            admit=self._admit,
            role_of=self._role_of,
            managers=self.managers,
            now=clock.now,
        )
        self.control = self._manager.control
        self._running: list[asyncio.Task[None]] = []

    def register(self, server: RpcServer) -> None:
        self._manager.register(server)
        self._dispatcher.register(server)
        self._logs.register(server)
        self._authority.register(server)
        LogReaderService(self.store, self._logs, self.consensus).register(server)
        server.on_raft(self.consensus.accept)

    async def start(self) -> None:
        """Take part; a joiner asks the leader to be added and returns when it was."""
        await self.consensus.start()
        self._running = [
            asyncio.create_task(self._manager.run(), name="manager"),
            asyncio.create_task(follow_spec(self.store, self.consensus), name="compaction"),
        ]
        if self._members and not self._resumed:
            await self._ask_to_be_added()

    async def stop(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self.consensus.stop()

    async def left(self) -> None:
        """Wait until this node is no member of the managers' group any more."""
        changed = asyncio.Event()
        self.consensus.on_change(changed.set)
        while self._identity.node_id in self.consensus.members():
            await changed.wait()
            changed.clear()

    def managers(self) -> tuple[ManagerAddress, ...]:
        return tuple(
            ManagerAddress(node_id=node_id, address=address)
            for node_id, address in self.consensus.members().items()
        )

    async def logs(self, kind: str, ref: str, options: LogOptions) -> AsyncIterator[LogLine]:
        """`kind`: service or task. Read through the leader, whose dispatcher has the agents' sessions."""
        async for line in read_logs(self.store, self._logs, self.consensus, self._client, kind, ref, options):
            yield line

    async def _ask_to_be_added(self) -> None:
        payload = msgspec.json.encode(JoinRequest(address=self._identity.rpc_address))
        deadline = asyncio.get_running_loop().time() + JOIN_TIMEOUT_S
        candidates = list(self._members.values())
        while True:
            address = candidates[0]
            try:
                await self._client.call(address, JOIN_METHOD, payload, timeout=JOIN_TIMEOUT_S)
                return
            except RpcError as error:
                logger.info("not added as a manager yet by %s: %s", address, error)
                if asyncio.get_running_loop().time() > deadline:
                    raise FailedPrecondition(
                        f"the managers did not add this node: {error.message}"
                    ) from error
                if error.code == "not_leader" and error.detail:
                    candidates.insert(0, error.detail)
                else:
                    candidates.append(candidates.pop(0))
                await asyncio.sleep(JOIN_RETRY_S)

    def _ca_state(self) -> CaState | None:
        cluster = self.store.view().cluster
        if cluster is None:
            return None
        return CaState(
            root=cluster.root_ca,
            cluster_id=cluster.cluster_id,
            validity_s=cluster.spec.node_cert_expiry_ns / SECOND,
        )

    async def _admit(self, role: NodeRole, availability: Availability) -> str:
        if not self.consensus.is_leader:
            raise RpcError("not_leader", "this manager is not the leader", leader_address(self.consensus))
        node = Node(id=new_id(), spec=NodeSpec(role=role, availability=availability), role=role)

        def add(tx: Transaction) -> None:
            tx.put(node)

        await self.store.update(add)
        return node.id

    def _role_of(self, node_id: str) -> NodeRole | None:
        node = self.store.view().nodes.get(node_id)
        return None if node is None else node.role


class _LateProposer:
    """The store needs its proposer and the consensus its store: this breaks the circle."""

    target: Consensus

    async def propose(self, command: bytes) -> object:
        return await self.target.propose(command)
