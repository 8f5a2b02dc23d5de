"""What every node of a cluster runs: its agent, the worker with its tasks, the keeper of its certificate."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Awaitable, Callable

from node.agent.agent import Agent
from node.agent.description import describe
from node.agent.executor import ContainerEngine, EngineExecutor
from node.agent.log_publisher import LogPublisher
from node.agent.managers import KnownManagers
from node.agent.network_map import Networks
from node.agent.renewal import CertificateKeeper
from node.agent.worker import Worker
from node.ca.tls import NodeTls
from node.config import VERSION, NodeConfig
from node.identity import NodeIdentity, SwarmFolder
from node.loop import Clock, SystemClock
from node.rpc import Identity, RpcClient
from raft.objects.assignment import SessionMessage


class AgentPart:
    """`on_role`: a certificate with another role is in use. `on_leave`: the node was removed."""

    def __init__(
        self,
        config: NodeConfig,
        folder: SwarmFolder,
        identity: NodeIdentity,
        tls: NodeTls,
        client: RpcClient,
        engine: ContainerEngine,
        networks: Networks,
        *,
        on_role: Callable[[Identity], Awaitable[None]],
        on_leave: Callable[[str], Awaitable[None]],
    ) -> None:
        clock = SystemClock()
        self.managers = KnownManagers(folder.managers)
        executor = _executor(config, identity, engine, clock)
        self._agent = Agent(
            streams=client,
            managers=self.managers,
            logs=LogPublisher(client, executor, lambda task_id: self.worker.task(task_id)),
            clock=clock,
            describe=lambda: describe(hostname=config.name, engine_version=VERSION, labels=config.labels),
            address=lambda: identity.address,
            on_session=self._on_session,
            on_leave=on_leave,
        )
        self.worker = Worker(
            folder.worker,
            executor,
            networks,
            report=self._agent.report,
            acknowledged=self._agent.acknowledged,
            clock=clock,
        )
        self._keeper = CertificateKeeper(
            folder.credentials,
            tls,
            manager=lambda: self._agent.connected_to or self.managers.next(),
            renewed=on_role,
            clock=clock,
        )
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._running = asyncio.create_task(self._run(), name="agent")

    @property
    def is_connected(self) -> bool:
        return bool(self._agent.connected_to)

    async def goodbye(self, *, restarting: bool) -> None:
        await self._agent.goodbye(restarting=restarting)

    async def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    def _on_session(self, message: SessionMessage) -> None:
        self.managers.replace(message.managers)
        self._keeper.role_wanted(message.role)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            self.worker.start(group)
            group.create_task(self._keeper.run(), name="certificate keeper")
            await self._agent.run(self.worker)


class _AllRemoved(Exception):
    """Ends the worker of `remove_tasks`."""


async def remove_tasks(
    config: NodeConfig,
    folder: SwarmFolder,
    identity: NodeIdentity,
    engine: ContainerEngine,
    networks: Networks,
) -> None:
    """Stop and remove the tasks that an earlier life left: the node leaves and cannot run an agent before."""
    clock = SystemClock()
    worker = Worker(
        folder.worker,
        _executor(config, identity, engine, clock),
        networks,
        report=lambda _task_id, _status: None,
        acknowledged=lambda _version: None,
        clock=clock,
    )
    try:
        async with asyncio.TaskGroup() as group:
            worker.start(group)
            await worker.stop_all()
            raise _AllRemoved
    except* _AllRemoved:
        pass


def _executor(
    config: NodeConfig, identity: NodeIdentity, engine: ContainerEngine, clock: Clock
) -> EngineExecutor:
    return EngineExecutor(
        engine,
        clock,
        node_id=identity.node_id,
        hostname=config.name,
        os="linux",
        architecture=platform.machine(),
    )
