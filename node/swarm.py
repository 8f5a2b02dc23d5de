"""This node's part in a cluster: founding, joining, leaving, being promoted and demoted.

Owns the parts that run while the node belongs to a cluster (RPC listener, manager, agent) and their order.
One change of membership at a time. Errors are raft.errors in Docker's words.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import shutil
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

import msgspec

from engine.config import LogOptions
from node.agent.executor import ContainerEngine
from node.agent.network_map import Networks
from node.agent_part import AgentPart
from node.ca import authority, client
from node.ca.tls import NodeTls
from node.config import ConfigError, NodeConfig, split_host_port
from node.identity import NodeIdentity, SwarmFolder
from node.loop import SystemClock
from node.manager.control.cluster import bootstrap_cluster
from node.manager.forward import ControlProxy, from_rpc
from node.manager_part import ManagerPart
from node.rpc import MANAGER, Identity, RpcClient, RpcError, RpcServer
from node.underlay import choose_address
from raft.errors import FailedPrecondition, InvalidArgument, RaftError, Unavailable
from raft.objects.assignment import LogLine, ManagerAddress
from raft.objects.base import new_id
from raft.objects.cluster import CLUSTER_ID, Cluster, ClusterSpec
from raft.objects.node import Availability, ManagerStatus, Node, NodeRole, NodeSpec, NodeStatus
from raft.objects.request import Request

logger = logging.getLogger(__name__)

NOT_A_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to '
    "swarm and try again."
)
WORKER_ONLY = (
    "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run "
    "this command on a manager node or promote the current node to a manager."
)
ALREADY_PART = (
    'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.'
)
NOT_PART = "This node is not part of a swarm"
INFO_TIMEOUT_S = 2.0


class DataPlane(Networks, Protocol):
    """What membership needs of the data plane."""

    async def set_underlay(self, address: str) -> None: ...


class SwarmMembership:
    """Implements node.api.backend.SwarmBackend. `start` resumes what the folder says, `stop` keeps it."""

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
        self._error = ""
        self._changes: set[asyncio.Task[None]] = set()

    # ---- the daemon's life --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Go on as the folder says; a node that cannot says why in `info` instead of failing the daemon."""
        identity = self._folder.load()
        if identity is None:
            shutil.rmtree(self._folder.path, ignore_errors=True)
            return
        async with self._lock:
            try:
                await self._start_parts(identity, members={})
            except (RaftError, RpcError, OSError, ValueError) as error:
                logger.exception("this node cannot take part in its swarm")
                self._error = str(error)

    async def stop(self) -> None:
        """The daemon ends; containers run on and the managers are told so."""
        if self._agent is not None:
            await self._agent.goodbye(restarting=True)
        async with self._lock:
            await self._stop_parts()

    # ---- verbs --------------------------------------------------------------------------------------------

    async def swarm_init(
        self,
        *,
        advertise: str,
        listen: str,
        force_new_cluster: bool,
        spec: ClusterSpec,
        pools: Sequence[str],
        subnet_size: int,
        availability: Availability,
    ) -> str:
        """Found a cluster with this node as its manager; returns the node's id."""
        if force_new_cluster:
            raise InvalidArgument(
                "--force-new-cluster is not supported yet: found a new swarm after leaving this one"
            )
        async with self._lock:
            self._require_none()
            address, port = self._addresses(advertise, listen)
            now = SystemClock().now()
            root = authority.new_root(now)
            identity = NodeIdentity(node_id=new_id(), cluster_id=new_id(), address=address, port=port)
            client.bootstrap(
                self._folder.credentials,
                root,
                node_id=identity.node_id,
                role=MANAGER,
                cluster_id=identity.cluster_id,
                now=now,
            )
            cluster = Cluster(id=CLUSTER_ID, cluster_id=identity.cluster_id, spec=spec, root_ca=root)
            if pools:
                cluster = msgspec.structs.replace(cluster, default_address_pools=tuple(pools))
            if subnet_size:
                cluster = msgspec.structs.replace(cluster, subnet_size=subnet_size)
            node = Node(
                id=identity.node_id,
                spec=NodeSpec(role=NodeRole.MANAGER, availability=availability),
                role=NodeRole.MANAGER,
                status=NodeStatus(address=address),
                manager=ManagerStatus(address=identity.rpc_address),
            )
            async with self._undone_on_failure():
                await self._start_parts(identity, members={}, founding=(cluster, node))
                self._folder.save(identity)
            return identity.node_id

    async def swarm_join(
        self, *, remotes: Sequence[str], token: str, advertise: str, listen: str, availability: Availability
    ) -> None:
        """Become a worker or manager, as the token says."""
        async with self._lock:
            self._require_none()
            if not remotes:
                raise InvalidArgument("name at least one manager to join (RemoteAddrs)")
            remote = self._remote(remotes[0])
            address, port = self._addresses(advertise, listen, toward=split_host_port(remote, 0)[0])
            try:
                answer = await client.join(self._folder.credentials, remote, token, availability)
            except RpcError as error:
                raise _join_error(error) from error
            identity = NodeIdentity(
                node_id=answer.node_id, cluster_id=answer.cluster_id, address=address, port=port
            )
            members = {manager.node_id: manager.address for manager in answer.managers}
            if not members:
                members = {"": remote}
            async with self._undone_on_failure():
                await self._start_parts(identity, members=members)
                self._folder.save(identity)

    async def swarm_leave(self, *, force: bool) -> None:
        """Stop the node's tasks and forget the cluster."""
        async with self._lock:
            if self._identity is None and not self._error:
                raise Unavailable(NOT_PART)
            manager = self._manager
            if manager is not None and not force:
                raise Unavailable(_leave_warning(manager))
            if manager is not None and len(manager.consensus.members()) > 1:
                await self._retire(manager)
            if self._agent is not None:
                await self._agent.worker.stop_all()
                await self._agent.goodbye(restarting=False)
            await self._stop_parts()
            self._forget()

    async def swarm_inspect(self) -> Cluster:
        found: Cluster = await self.control.get_cluster()
        return found

    async def swarm_update(
        self,
        version: int,
        spec: ClusterSpec,
        *,
        rotate_worker_token: bool,
        rotate_manager_token: bool,
        request: Request | None = None,
    ) -> None:
        control = self.control if request is None else self.control.for_request(request)
        await control.update_cluster(version, spec, rotate_worker_token, rotate_manager_token)

    # ---- what the API asks --------------------------------------------------------------------------------

    @property
    def control(self) -> ControlProxy:
        if self._manager is None:
            raise Unavailable(NOT_A_MANAGER if self._identity is None else WORKER_ONLY)
        return self._manager.control

    def is_manager(self) -> bool:
        return self._manager is not None

    def local_state(self) -> str:
        """active, inactive or error."""
        if self._identity is not None:
            return "active"
        return "error" if self._error else "inactive"

    async def info(self) -> dict[str, Any]:
        """The Swarm object of GET /info; a manager without a leader answers without the counts."""
        identity = self._identity
        if identity is None:
            return {
                "NodeID": "",
                "NodeAddr": "",
                "LocalNodeState": self.local_state(),
                "ControlAvailable": False,
                "Error": self._error,
                "RemoteManagers": None,
            }
        managers: Sequence[ManagerAddress] = ()
        if self._manager is not None:
            managers = self._manager.managers()
        elif self._agent is not None:
            managers = tuple(self._agent.managers.all)
        shown: dict[str, Any] = {
            "NodeID": identity.node_id,
            "NodeAddr": identity.address,
            "LocalNodeState": "active",
            "ControlAvailable": self._manager is not None,
            "Error": "",
            "RemoteManagers": [{"NodeID": m.node_id, "Addr": m.address} for m in managers],
        }
        if self._manager is not None:
            try:
                async with asyncio.timeout(INFO_TIMEOUT_S):
                    shown |= await self._cluster_info(self._manager)
            except (RaftError, TimeoutError) as error:
                shown["Error"] = str(error) or "there is no leader"
        return shown

    async def service_logs(self, ref: str, options: LogOptions) -> AsyncIterator[LogLine]:
        async for line in self._log_source().logs("service", ref, options):
            yield line

    async def task_logs(self, ref: str, options: LogOptions) -> AsyncIterator[LogLine]:
        async for line in self._log_source().logs("task", ref, options):
            yield line

    # ---- inside -------------------------------------------------------------------------------------------

    def _log_source(self) -> ManagerPart:
        if self._manager is None:
            raise Unavailable(NOT_A_MANAGER if self._identity is None else WORKER_ONLY)
        return self._manager

    async def _cluster_info(self, manager: ManagerPart) -> dict[str, Any]:
        cluster = await manager.control.get_cluster()
        nodes = await manager.control.list_nodes({})
        return {
            "Nodes": len(nodes),
            "Managers": sum(node.role is NodeRole.MANAGER for node in nodes),
            "Cluster": {
                "ID": cluster.cluster_id,
                "Version": {"Index": cluster.meta.version},
                "DefaultAddrPool": list(cluster.default_address_pools),
                "SubnetSize": cluster.subnet_size,
                "DataPathPort": cluster.data_path_port,
                "RootRotationInProgress": False,
            },
        }

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

    @contextlib.asynccontextmanager
    async def _undone_on_failure(self) -> AsyncIterator[None]:
        try:
            yield
        except BaseException:
            await self._stop_parts()
            self._forget()
            raise

    def _forget(self) -> None:
        self._folder.remove()
        self._error = ""

    async def _retire(self, manager: ManagerPart) -> None:
        """Leave the managers' group first: it must not count on this node any more."""
        identity = self._identity
        assert identity is not None, "only a member retires"
        try:
            async with asyncio.timeout(10):
                node = await manager.control.get_node(identity.node_id)
                spec = msgspec.structs.replace(node.spec, role=NodeRole.WORKER)
                await manager.control.update_node(node.id, node.meta.version, spec)
                await manager.left()
        except (RaftError, TimeoutError) as error:
            logger.warning("leaving without the other managers' agreement: %s", error)

    async def _role_changed(self, identity: Identity) -> None:
        """Called by the certificate keeper when a certificate with another role is in use."""
        self._in_background(self._apply_role(identity.role), "change of role")

    async def _apply_role(self, role: str) -> None:
        async with self._lock:
            identity, agent = self._identity, self._agent
            if identity is None or agent is None or (role == MANAGER) == (self._manager is not None):
                return
            if role == MANAGER:
                members = {manager.node_id: manager.address for manager in agent.managers.all}
                self._folder.remove_raft()
                await self._start_manager(identity, members)
            else:
                await self._stop_manager()
                self._folder.remove_raft()

    async def _removed(self, reason: str) -> None:
        """Called by the agent when the managers removed this node."""
        logger.warning("removed from the swarm: %s", reason)
        self._in_background(self._leave_after_removal(), "leaving the swarm")

    async def _leave_after_removal(self) -> None:
        async with self._lock:
            if self._identity is not None:
                await self._stop_parts()
                self._forget()

    def _in_background(self, work: Any, name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._changes.add(task)
        task.add_done_callback(self._change_finished)

    def _change_finished(self, task: asyncio.Task[None]) -> None:
        self._changes.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("%s failed", task.get_name(), exc_info=task.exception())

    def _require_none(self) -> None:
        if self._identity is not None or self._error:
            raise Unavailable(ALREADY_PART)

    def _addresses(self, advertise: str, listen: str, toward: str = "") -> tuple[str, int]:
        """This node's address for the others, and the port it listens on."""
        try:
            listen_host, port = split_host_port(listen or "0.0.0.0", self._config.listen_port)
            text = advertise or self._config.advertise_address
            if text:
                address, port = split_host_port(text, port)
            elif not ipaddress.ip_address(listen_host).is_unspecified:
                address = listen_host
            else:
                address = choose_address(toward)
        except (ConfigError, LookupError) as error:
            raise InvalidArgument(str(error)) from error
        return address, port

    def _remote(self, text: str) -> str:
        try:
            host, port = split_host_port(text, self._config.listen_port)
        except ConfigError as error:
            raise InvalidArgument(str(error)) from error
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _join_error(error: RpcError) -> RaftError:
    if error.code in ("permission_denied", "invalid_argument"):
        return InvalidArgument(error.message)
    return from_rpc(error)


def _leave_warning(manager: ManagerPart) -> str:
    members = len(manager.consensus.members())
    text = "You are attempting to leave the swarm on a node that is participating as a manager. "
    if members == 1:
        text += "Removing the last manager erases all current state of the swarm. "
    elif members == 2:
        text += "Removing this node leaves 1 managers out of 2. Without a Raft quorum your swarm will be inaccessible. "
    return text + "Use `--force` to suppress this message."
