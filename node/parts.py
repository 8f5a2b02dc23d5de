"""What runs while this node belongs to a cluster: RPC listener, manager, agent; and their order.

Knows how to start and stop them, not when: that is node.swarm's. Invariant: whatever was started is stopped by
`_stop_parts`, also when starting failed half way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol

from node import lost_log, raft_folder
from node.agent.executor import ContainerEngine
from node.agent.network_map import Networks
from node.agent_part import AgentPart
from node.ca.tls import NodeTls
from node.config import NodeConfig
from node.identity import NodeIdentity, SwarmFolder
from node.loop import Backoff
from node.manager.control.cluster import bootstrap_cluster
from node.manager_part import ManagerPart, consensus_config
from node.rpc import MANAGER, Identity, RpcClient, RpcServer
from node.swarm_events import SwarmEvents
from raft.errors import FailedPrecondition, RaftError
from raft.framing import Damaged, WrongKey
from raft.objects.assignment import ManagerAddress
from raft.objects.cluster import Cluster
from raft.objects.node import Node
from raft.wal import WalDamaged

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
        self._lost: lost_log.LostLog | None = None
        self._returning: asyncio.Task[None] | None = None
        self._error = ""  # why this node cannot take part in its cluster
        self._changes: set[asyncio.Task[None]] = set()
        self.events: SwarmEvents | None = None  # whom to tell of changes of the swarm; set before `start`

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
        # Before anything can go wrong: whoever joins and crashes must know whom to ask.
        agent.managers.replace(
            ManagerAddress(node_id=node_id, address=address) for node_id, address in members.items()
        )
        if self._tls.identity.role == MANAGER:
            await self._first_or_next_life(agent, members, founding)
        if self._manager is not None:
            agent.managers.replace(self._manager.managers())
        self._agent = agent
        agent.start()

    async def _first_or_next_life(
        self, agent: AgentPart, members: dict[str, str], founding: tuple[Cluster, Node] | None
    ) -> None:
        if founding is not None:
            manager = await self._start_manager(founding=True)
            await bootstrap_cluster(manager.store, *founding)
        elif members:
            await self._start_manager(members=members)
        else:
            await self._resume_manager(agent)

    async def _resume_manager(self, agent: AgentPart) -> None:
        """Go on from the log; when that is damaged or gone, as a worker until the others have agreed."""
        raft_folder.finish(self._folder)
        try:
            await self._start_manager()
        except (WalDamaged, Damaged, OSError) as error:
            if not lost_log.is_loss(error):
                raise
            self._begin_anew(f"this manager has lost its log ({error})", agent)

    def _begin_anew(self, reason: str, agent: AgentPart) -> None:
        """Become a member with an empty log, as soon as the others say that none before it counts."""
        identity, client = self._identity, self._client
        assert identity is not None and client is not None, "they come first"

        def others() -> list[str]:
            return [m.address for m in agent.managers.all if m.node_id != identity.node_id]

        if not others():
            self._error = f"{reason}, and {lost_log.WAYS_OUT}"
            logger.critical("%s", self._error)
            return
        logger.warning("%s: asking the other managers to take it in", reason)
        self._lost = lost_log.LostLog(reason, identity.rpc_address, client, others)
        self._returning = self._in_background(self._return_as_member(identity, self._lost), "joining again")

    async def _return_as_member(self, identity: NodeIdentity, lost: lost_log.LostLog) -> None:
        """Never gives up: whoever stops the parts ends it."""
        answer = await lost.be_expelled()
        backoff = Backoff(first=1.0, most=30.0)
        begun = False
        while True:
            async with self._lock:
                try:
                    if not begun:
                        config = consensus_config(self._folder, identity)
                        await lost_log.begin_anew(self._folder, config, answer)
                        begun = True
                    await self._start_manager()
                except (RaftError, WalDamaged, WrongKey, OSError) as error:
                    lost.say(f"starting anew failed: {error}")
                else:
                    self._lost = None
                    return
            await asyncio.sleep(backoff.next())

    async def _start_manager(
        self, *, founding: bool = False, members: dict[str, str] | None = None
    ) -> ManagerPart:
        """`members`: to join for the first time. Raises FailedPrecondition for a port that is taken."""
        identity, tls, client = self._identity, self._tls, self._client
        assert identity is not None and tls is not None and client is not None, "they come first"
        manager = ManagerPart(
            self._folder,
            identity,
            client,
            founding=founding,
            members=members,
            known=self._known_managers,
            events=self.events,
        )
        server = RpcServer(tls)
        manager.register(server)
        try:
            await server.start("0.0.0.0", identity.port)
        except OSError as error:
            await manager.stop()
            raise FailedPrecondition(
                f"cannot listen on port {identity.port}: {error.strerror or error}; choose another --listen-addr"
            ) from error
        self._server, self._manager = server, manager
        await manager.start()
        return manager

    def _known_managers(self) -> Sequence[ManagerAddress]:
        return () if self._agent is None else self._agent.managers.all

    async def _stop_manager(self) -> None:
        returning, self._returning, self._lost = self._returning, None, None
        if returning is not None:
            returning.cancel()
            await asyncio.gather(returning, return_exceptions=True)
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

    def _in_background(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._changes.add(task)
        task.add_done_callback(self._change_finished)
        return task

    def _change_finished(self, task: asyncio.Task[None]) -> None:
        self._changes.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("%s failed", task.get_name(), exc_info=task.exception())
