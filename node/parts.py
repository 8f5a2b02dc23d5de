"""What runs while this node belongs to a cluster: RPC listener, manager, agent; and their order.

Knows how to start and stop them, not when: that is node.swarm's. Invariant: whatever was started is stopped by
`_stop_parts`, also when starting failed half way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Protocol

from node.agent.executor import ContainerEngine
from node.agent.network_map import Networks
from node.agent_part import AgentPart
from node.ca.tls import NodeTls
from node.config import NodeConfig
from node.identity import NodeIdentity, SwarmFolder
from node.manager.control.cluster import bootstrap_cluster
from node.manager_part import ManagerPart
from node.rpc import MANAGER, Identity, RpcClient, RpcServer
from raft.errors import FailedPrecondition
from raft.objects.assignment import ManagerAddress
from raft.objects.cluster import Cluster
from raft.objects.node import Node

logger = logging.getLogger(__name__)


class DataPlane(Networks, Protocol):
    """What membership needs of the data plane."""

    async def set_underlay(self, address: str) -> None: ...


class RunningParts:
    """The base of SwarmMembership; all its changes are made under `_lock`."""

    def __init__(self, config: NodeConfig, engine: ContainerEngine, networks: DataPlane) -> None:
        self._config = config
        self._engine = engine
        self._networks = networks
        self._folder = SwarmFolder(config.root)
        self._lock = asyncio.Lock()
        self._identity: NodeIdentity | None = None
        self._tls: NodeTls | None = None
        self._server: RpcServer | None = None
        self._client: RpcClient | None = None
        self._manager: ManagerPart | None = None
        self._agent: AgentPart | None = None
        self._changes: set[asyncio.Task[None]] = set()

    async def _role_changed(self, identity: Identity) -> None:
        """A certificate with another role is in use."""
        raise NotImplementedError

    async def _removed(self, reason: str) -> None:
        """The managers removed this node."""
        raise NotImplementedError

    async def _start_parts(
        self,
        identity: NodeIdentity,
        *,
        members: dict[str, str],
        founding: tuple[Cluster, Node] | None = None,
    ) -> None:
        self._identity = identity
        self._tls = NodeTls(self._folder.credentials)
        self._client = RpcClient(self._tls)
        await self._networks.set_underlay(identity.address)
        agent = AgentPart(
            self._config,
            self._folder,
            identity,
            self._tls,
            self._client,
            self._engine,
            self._networks,
            on_role=self._role_changed,
            on_leave=self._removed,
        )
        if self._tls.identity.role == MANAGER:
            await self._start_manager(identity, members)
            assert self._manager is not None, "just started"
            if founding is not None:
                await bootstrap_cluster(self._manager.store, *founding)
            agent.managers.replace(self._manager.managers())
        else:
            agent.managers.replace(
                ManagerAddress(node_id=node_id, address=address) for node_id, address in members.items()
            )
        self._agent = agent
        agent.start()

    async def _start_manager(self, identity: NodeIdentity, members: dict[str, str]) -> None:
        assert self._tls is not None and self._client is not None, "TLS comes first"
        others = {node_id: address for node_id, address in members.items() if node_id != identity.node_id}
        manager = ManagerPart(self._folder, identity, self._client, others)
        server = RpcServer(self._tls)
        manager.register(server)
        try:
            await server.start("0.0.0.0", identity.port)
        except OSError as error:
            raise FailedPrecondition(
                f"cannot listen on port {identity.port}: {error.strerror or error}; choose another --listen-addr"
            ) from error
        self._server, self._manager = server, manager
        await manager.start()

    async def _stop_manager(self) -> None:
        manager, self._manager = self._manager, None
        if manager is not None:
            await manager.stop()
        server, self._server = self._server, None
        if server is not None:
            await server.stop()

    async def _stop_parts(self) -> None:
        agent, self._agent = self._agent, None
        if agent is not None:
            await agent.stop()
        await self._stop_manager()
        if self._client is not None:
            await self._client.close()
        self._client, self._tls, self._identity = None, None, None

    def _in_background(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._changes.add(task)
        task.add_done_callback(self._change_finished)

    def _change_finished(self, task: asyncio.Task[None]) -> None:
        self._changes.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("%s failed", task.get_name(), exc_info=task.exception())
