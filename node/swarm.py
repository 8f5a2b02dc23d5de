"""This node's part in a cluster: founding, joining, leaving, being promoted and demoted.

What runs meanwhile is the business of node.parts. One change of membership at a time. Errors are raft.errors in
Docker's words.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec

from engine.config import LogOptions
from engine.errors import EngineFailure
from node import force_new_cluster as forcing
from node import leaving, raft_folder, restore
from node.agent.executor import ContainerEngine
from node.agent_part import remove_tasks
from node.api.convert import cluster_info_to_api
from node.ca import authority, client
from node.ca.tls import NodeTls
from node.ca.wrapping import InvalidUnlockKey, WrongKey
from node.cluster import ClusterKeeper
from node.config import NodeConfig, split_host_port
from node.identity import NodeIdentity
from node.loop import SystemClock
from node.manager.control.cluster import next_lock
from node.manager.forward import ControlProxy, from_rpc
from node.manager_part import ManagerPart
from node.parts import DataPlane, RunningParts
from node.rpc import MANAGER, Identity, RpcError
from node.underlay import followed, own_address, remote_address
from raft import framing
from raft.errors import Conflict, InvalidArgument, RaftError, Unauthenticated, Unavailable
from raft.objects.assignment import LogLine, ManagerAddress
from raft.objects.base import new_id
from raft.objects.cluster import CLUSTER_ID, Cluster, ClusterSpec, ManagerLock
from raft.objects.node import Availability, ManagerStatus, Node, NodeRole, NodeSpec, NodeStatus
from raft.objects.request import Request
from raft.wal import WalDamaged

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
LOCKED = (
    'Swarm is encrypted and needs to be unlocked before it can be used. Please use "docker swarm unlock" to '
    "unlock it."
)
LOCKED_ON_LEAVING = (
    "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message."
)
NOT_LOCKED = "swarm is not locked"
WRONG_UNLOCK_KEY = "swarm could not be unlocked: invalid key provided"
INFO_TIMEOUT_S = 2.0
# What a node's files or network may be to blame for: said in `info`; the daemon serves its containers.
CANNOT_TAKE_PART = (RaftError, RpcError, OSError, ValueError, WalDamaged, framing.Damaged, framing.WrongKey)


class SwarmMembership(RunningParts):
    """Implements node.api.backend.SwarmBackend. `start` resumes what the folder says, `stop` keeps it."""

    def __init__(self, config: NodeConfig, engine: ContainerEngine, networks: DataPlane) -> None:
        super().__init__(config, engine, networks)
        self._locked: NodeIdentity | None = None  # while the unlock key is waited for: no part runs
        self.cluster = ClusterKeeper(self)

    # ---- the daemon's life --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Go on as the folder says; a node that cannot says why in `info` instead of failing the daemon."""
        identity = self._folder.load()
        if identity is None:
            shutil.rmtree(self._folder.path, ignore_errors=True)
            return
        async with self._lock:
            await self._resume(identity)

    async def _resume(self, identity: NodeIdentity) -> None:
        self._error = ""
        try:
            if self._folder.is_locked():
                logger.warning("this manager is locked: it takes part in its swarm after `swarm unlock`")
                self._locked = identity
                return
            await self._go_on(identity)
        except CANNOT_TAKE_PART as error:
            await self._cannot_take_part(error)

    async def _go_on(self, identity: NodeIdentity) -> None:
        """Take part as before, at the address that the daemon's settings say now."""
        current = followed(identity, self._config)
        if current != identity:
            logger.info("this node is at %s, it was at %s", current.rpc_address, identity.rpc_address)
            self._folder.save(current)
        await self._start_parts(current, members={})

    async def stop(self, *, restarting: bool = True) -> None:
        """The daemon ends, and the managers are told whether containers run on (`restarting`) or end as well."""
        if self._agent is not None:
            await self._agent.goodbye(restarting=restarting)
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
        async with self._lock:
            if force_new_cluster and self._folder.load() is not None:
                return await self._go_on_alone(advertise, listen)
            self._require_none()
            address, port = own_address(self._config, advertise, listen)
            now = SystemClock().now()
            root = authority.new_root(now)
            lock = next_lock(ManagerLock(), autolock=spec.autolock)
            identity = self._new_identity(new_id(), new_id(), address, port)
            client.bootstrap(
                self._folder.credentials,
                root,
                node_id=identity.node_id,
                role=MANAGER,
                cluster_id=identity.cluster_id,
                now=now,
                lock=lock,
            )
            cluster = Cluster(
                id=CLUSTER_ID, cluster_id=identity.cluster_id, spec=spec, root_ca=root, lock=lock
            )
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

    async def swarm_survey(self) -> forcing.Survey:
        """What `swarm_init` with force_new_cluster would do; changes nothing."""
        async with self._lock:
            identity = self._manager_identity()
            running = None if self._manager is None else self._manager.consensus
            return await forcing.survey(self._folder, identity, running)

    async def _go_on_alone(self, advertise: str, listen: str) -> str:
        identity = self._manager_identity()
        if advertise:
            address, port = own_address(self._config, advertise, listen)
            identity = msgspec.structs.replace(identity, address=address, port=port)
        if self._agent is not None:
            await self._agent.goodbye(restarting=True)
        await self._stop_parts()
        try:
            taken = await forcing.rewrite(self._folder, identity, SystemClock().now())
            logger.warning("going on as the only manager with %s", taken)
            self._folder.save(identity)
        finally:
            # Whatever has become of the folder, this node goes on with what is there.
            await self._resume(self._manager_identity())
        return identity.node_id

    async def found_again(
        self, advertise: str, listen: str, plan: Callable[[str, int], restore.Founding], *, dry_run: bool
    ) -> restore.Founding:
        """Restore: `plan` blocks and says what to found at this node's address and port."""
        async with self._lock:
            self._require_none()
            address, port = own_address(self._config, advertise, listen)
            founding = await asyncio.to_thread(plan, address, port)
            if dry_run:
                return founding
            planned = founding.identity
            identity = self._new_identity(planned.node_id, planned.cluster_id, address, port)
            async with self._undone_on_failure():
                await asyncio.to_thread(restore.write, self._folder, founding)
                await self._start_parts(identity, members={})
                self._folder.save(identity)
            return founding

    async def swarm_join(
        self, *, remotes: Sequence[str], token: str, advertise: str, listen: str, availability: Availability
    ) -> None:
        """Become a worker or manager, as the token says."""
        async with self._lock:
            self._require_none()
            if not remotes:
                raise InvalidArgument("name at least one manager to join (RemoteAddrs)")
            remote = remote_address(self._config, remotes[0])
            address, port = own_address(self._config, advertise, listen, toward=split_host_port(remote, 0)[0])
            try:
                answer = await client.join(self._folder.credentials, remote, token, availability)
            except RpcError as error:
                raise _join_error(error) from error
            identity = self._new_identity(answer.node_id, answer.cluster_id, address, port)
            members = {manager.node_id: manager.address for manager in answer.managers}
            if not members:
                members = {"": remote}
            async with self._undone_on_failure():
                # From here on the others may count on it: after a crash it goes on joining.
                self._folder.save(identity)
                await self._start_parts(identity, members=members)

    async def swarm_leave(self, *, force: bool) -> None:
        """Stop the node's tasks and forget the cluster."""
        async with self._lock:
            if self._locked is not None or (self._error and self._identity is None):
                await self._leave_without_parts(force=force)
                return
            if self._identity is None:
                raise Unavailable(NOT_PART)
            manager = self._manager
            if not force:
                await self._refuse_to_leave()
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
        rotate_unlock_key: bool,
        request: Request | None = None,
    ) -> None:
        control = self.control if request is None else self.control.for_request(request)
        await control.update_cluster(
            version, spec, rotate_worker_token, rotate_manager_token, rotate_unlock_key
        )

    async def swarm_unlock_key(self) -> str:
        return (await self.swarm_inspect()).lock.unlock_key

    async def swarm_unlock(self, unlock_key: str) -> None:
        """Open this manager's keys and take part in the swarm again."""
        async with self._lock:
            identity = self._locked
            if identity is None:
                raise Conflict(NOT_LOCKED) if self._manager is not None else Unavailable(self._refusal())
            try:
                self._folder.credentials.keys.unlock(unlock_key)
                self._locked = None
                await self._go_on(identity)
            except InvalidUnlockKey as error:
                raise InvalidArgument(str(error)) from error
            except WrongKey as error:
                raise Unauthenticated(WRONG_UNLOCK_KEY) from error
            except CANNOT_TAKE_PART as error:
                await self._cannot_take_part(error)
                raise EngineFailure(f"swarm component could not be started: {error}") from error

    # ---- what the API asks --------------------------------------------------------------------------------

    @property
    def control(self) -> ControlProxy:
        return self._require_manager().control

    def managing(self) -> tuple[ManagerPart, NodeIdentity]:
        manager = self._require_manager()
        assert self._identity is not None, "a manager has one"
        return manager, self._identity

    def is_manager(self) -> bool:
        return self._manager is not None

    def local_state(self) -> str:
        """active, inactive, locked, pending (a manager that waits to be taken in again) or error."""
        if self._locked is not None:
            return "locked"
        if self._error:
            return "error"
        if self._lost is not None:
            return "pending"
        return "inactive" if self._identity is None else "active"

    async def info(self) -> dict[str, Any]:
        """The Swarm object of GET /info; a manager without a leader answers without the counts."""
        identity = self._identity
        if identity is None:
            return {
                "NodeID": "",
                "NodeAddr": "" if self._locked is None else self._locked.address,
                "LocalNodeState": self.local_state(),
                "ControlAvailable": False,
                "Error": self._error if self._locked is None else LOCKED,
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
            "LocalNodeState": self.local_state(),
            "ControlAvailable": self._manager is not None,
            "Error": self._error or ("" if self._lost is None else self._lost.problem),
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
        async for line in self._require_manager().logs("service", ref, options):
            yield line

    async def task_logs(self, ref: str, options: LogOptions) -> AsyncIterator[LogLine]:
        async for line in self._require_manager().logs("task", ref, options):
            yield line

    # ---- inside -------------------------------------------------------------------------------------------

    def _require_manager(self) -> ManagerPart:
        if self._manager is None:
            raise Unavailable(self._refusal())
        return self._manager

    def _refusal(self) -> str:
        """Why this node does not answer what only managers answer."""
        if self._locked is not None:
            return LOCKED
        if self._lost is not None:
            return self._lost.problem
        return self._error or (NOT_A_MANAGER if self._identity is None else WORKER_ONLY)

    async def _cluster_info(self, manager: ManagerPart) -> dict[str, Any]:
        cluster = await manager.control.get_cluster()
        nodes = await manager.control.list_nodes({})
        return {
            "Nodes": len(nodes),
            "Managers": sum(node.role is NodeRole.MANAGER for node in nodes),
            "Cluster": cluster_info_to_api(cluster),
        }

    @contextlib.asynccontextmanager
    async def _undone_on_failure(self) -> AsyncIterator[None]:
        try:
            yield
        except BaseException:
            await self._stop_parts()
            self._forget()
            raise

    async def _cannot_take_part(self, error: Exception) -> None:
        """What was started stops again, and `info` says why."""
        logger.error("this node cannot take part in its swarm: %s", error, exc_info=error)
        await self._stop_parts()
        self._locked, self._error = None, str(error)

    async def _leave_without_parts(self, *, force: bool) -> None:
        """Locked, or not able to take part: the managers are not told, for nothing here can speak to them."""
        if self._locked is not None and not force:
            raise Unavailable(LOCKED_ON_LEAVING)
        identity = self._folder.load()
        if identity is not None:
            await remove_tasks(self._config, self._folder, identity, self._engine, self._networks)
        self._locked = None
        self._forget()

    def _forget(self) -> None:
        self._folder.remove()
        self._error = ""

    async def _refuse_to_leave(self) -> None:
        """A manager leaves by force only; Unavailable says what that would do."""
        manager = self._manager
        if manager is not None:
            raise Unavailable(leaving.warning(await manager.standing()))
        if self._lost is not None or (self._error and self._identity is not None):
            raise Unavailable(leaving.warning(None))

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
            is_manager = self._manager is not None or self._lost is not None
            if identity is None or agent is None or (role == MANAGER) == is_manager:
                return
            if role == MANAGER:
                raft_folder.remove_all(self._folder)
                self._begin_anew("this node was promoted", agent)
            else:
                await self._stop_manager()
                raft_folder.remove_all(self._folder)
                self._folder.remove_manager()
                self._error = ""

    async def _removed(self, reason: str) -> None:
        """Called by the agent when the managers removed this node."""
        logger.warning("removed from the swarm: %s", reason)
        self._in_background(self._leave_after_removal(), "leaving the swarm")

    async def _leave_after_removal(self) -> None:
        async with self._lock:
            if self._identity is not None:
                await self._stop_parts()
                self._forget()

    def _new_identity(self, node_id: str, cluster_id: str, address: str, port: int) -> NodeIdentity:
        return NodeIdentity(
            node_id=node_id,
            cluster_id=cluster_id,
            address=address,
            port=port,
            configured_address=self._config.advertise_address,
            configured_port=self._config.listen_port,
        )

    def _manager_identity(self) -> NodeIdentity:
        """Of this node, whether it takes part or cannot. Raises Unavailable when it is locked or no manager."""
        if self._locked is not None:
            raise Unavailable(LOCKED)
        identity = self._folder.load()
        if identity is None:
            raise Unavailable(NOT_A_MANAGER)
        if NodeTls(self._folder.credentials).identity.role != MANAGER:
            raise Unavailable(WORKER_ONLY)
        return identity

    def _require_none(self) -> None:
        if self._identity is not None or self._locked is not None or self._error:
            raise Unavailable(ALREADY_PART)


def _join_error(error: RpcError) -> RaftError:
    if error.code in ("permission_denied", "invalid_argument"):
        return InvalidArgument(error.message)
    return from_rpc(error)
