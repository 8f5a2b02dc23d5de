"""The control API from any manager: here when this one leads, over RPC to the leader otherwise.

Owns the wire form of a call (a JSON array of the arguments, typed by the method's own annotations) and how
errors cross it. A call is sent again only when it is certain that nothing was written. Invariant: callers
see the same results and the same errors on every manager.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

import msgspec

from node.loop import Clock, SystemClock
from node.manager.control.base import Filters, Leadership
from node.manager.control.services import ServiceStatus
from node.manager.controlapi import ControlApi
from node.rpc import MANAGERS, Identity, RpcError
from raft import errors
from raft.objects.cluster import (
    Cluster,
    ClusterSpec,
    Config,
    ConfigSpec,
    Network,
    NetworkSpec,
    Secret,
    SecretSpec,
)
from raft.objects.node import Node, NodeSpec
from raft.objects.service import Service, ServiceSpec
from raft.objects.task import Task

PREFIX = "control."
CALL_TIMEOUT_S = 30.0
LEADER_WAIT_S = 5.0
LEADER_POLL_S = 0.05

NO_LEADER = (
    "The swarm does not have a leader. It's possible that too few managers are online. "
    "Make sure more than half of the managers are online."
)

_CODES: dict[type[errors.RaftError], str] = {
    errors.InvalidArgument: "invalid_argument",
    errors.NotFound: "not_found",
    errors.AlreadyExists: "already_exists",
    errors.FailedPrecondition: "failed_precondition",
    errors.OutOfSequence: "out_of_sequence",
    errors.NotLeader: "not_leader",
    errors.Unavailable: "unavailable",
    errors.MaybeCommitted: "maybe_committed",
}
_CLASSES = {code: cls for cls, code in _CODES.items()}

Handler = Callable[[Identity | None, bytes], Awaitable[bytes]]


class RpcHandlers(Protocol):
    """The part of the RPC server that is needed here."""

    def handle(self, method: str, handler: Handler, *, roles: frozenset[str] | None) -> None: ...


class RpcCaller(Protocol):
    """The part of the RPC client that is needed here."""

    async def call(self, address: str, method: str, payload: bytes, *, timeout: float) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Signature:
    """Types of a method's arguments in order, and of its result, for strict decoding."""

    arguments: Any
    result: Any


def _signature(method: Callable[..., Any]) -> Signature:
    hints = typing.get_type_hints(method)
    names = [name for name in inspect.signature(method).parameters if name != "self"]
    return Signature(tuple[tuple(hints[name] for name in names)], hints["return"])  # type: ignore[misc]


METHODS: dict[str, Signature] = {
    name: _signature(method)
    for name, method in inspect.getmembers(ControlApi, inspect.iscoroutinefunction)
    if not name.startswith("_")
}


def register_control(server: RpcHandlers, api: ControlApi, leadership: Leadership) -> None:
    """Answer other managers' calls, as long as this one leads."""
    for name, signature in METHODS.items():
        server.handle(PREFIX + name, _handler(name, signature, api, leadership), roles=MANAGERS)


def _handler(name: str, signature: Signature, api: ControlApi, leadership: Leadership) -> Handler:
    async def handle(_caller: Identity | None, payload: bytes) -> bytes:
        if not leadership.is_leader:
            raise RpcError("not_leader", "this manager is not the leader", leader_address(leadership))
        try:
            arguments = msgspec.json.decode(payload, type=signature.arguments)
            return msgspec.json.encode(await getattr(api, name)(*arguments))
        except msgspec.ValidationError as error:
            raise RpcError("invalid_argument", str(error)) from error
        except errors.RaftError as error:
            raise to_rpc(error) from error

    return handle


def leader_address(leadership: Leadership) -> str:
    """host:port of the leader, or "" while there is none."""
    leader = leadership.leader_id
    return leadership.members().get(leader, "") if leader else ""


def to_rpc(error: errors.RaftError) -> RpcError:
    detail = error.leader if isinstance(error, errors.NotLeader) else ""
    return RpcError(_CODES[type(error)], str(error), detail)


def from_rpc(error: RpcError) -> errors.RaftError:
    """The raft error that crossed the wire. What this side does not know may have been written."""
    if error.code == "not_leader":
        return errors.NotLeader(error.message, error.detail)
    return _CLASSES.get(error.code, errors.MaybeCommitted)(error.message)


class ControlProxy:
    """`ControlApi`'s methods for the API server of any manager. `node_id` is this manager's."""

    def __init__(
        self,
        node_id: str,
        local: ControlApi,
        leadership: Leadership,
        client: RpcCaller,
        clock: Clock | None = None,
    ) -> None:
        self._node_id = node_id
        self._local = local
        self._leadership = leadership
        self._client = client
        self._clock = clock or SystemClock()

    async def _call(self, name: str, *arguments: object) -> Any:
        """Here or at the leader; after not_leader once more, at whoever leads then."""
        try:
            return await self._attempt(name, arguments, await self._leader())
        except errors.NotLeader as error:
            return await self._attempt(name, arguments, error.leader or await self._leader())

    async def _attempt(self, name: str, arguments: tuple[object, ...], address: str) -> Any:
        if not address:
            return await getattr(self._local, name)(*arguments)
        payload = msgspec.json.encode(arguments)
        try:
            answer = await self._client.call(address, PREFIX + name, payload, timeout=CALL_TIMEOUT_S)
        except RpcError as error:
            raise from_rpc(error) from error
        return msgspec.json.decode(answer, type=METHODS[name].result)

    async def _leader(self) -> str:
        """The leader's address, "" for this manager. Waits a little through an election."""
        deadline = self._clock.monotonic() + LEADER_WAIT_S
        while not self._leadership.is_leader:
            # This manager may be elected and yet have terms of its predecessors to apply.
            address = leader_address(self._leadership)
            if address and self._leadership.leader_id != self._node_id:
                return address
            if self._clock.monotonic() >= deadline:
                raise errors.Unavailable(NO_LEADER)
            await self._clock.sleep(LEADER_POLL_S)
        return ""

    # ---- services ----

    async def create_service(self, spec: ServiceSpec) -> Service:
        return cast(Service, await self._call("create_service", spec))

    async def update_service(self, id: str, version: int, spec: ServiceSpec, rollback: str = "") -> Service:
        return cast(Service, await self._call("update_service", id, version, spec, rollback))

    async def remove_service(self, id: str) -> None:
        await self._call("remove_service", id)

    async def get_service(self, ref: str) -> Service:
        return cast(Service, await self._call("get_service", ref))

    async def list_services(self, filters: Filters) -> list[Service]:
        return cast("list[Service]", await self._call("list_services", filters))

    async def service_statuses(self) -> dict[str, ServiceStatus]:
        return cast("dict[str, ServiceStatus]", await self._call("service_statuses"))

    async def get_task(self, ref: str) -> Task:
        return cast(Task, await self._call("get_task", ref))

    async def list_tasks(self, filters: Filters) -> list[Task]:
        return cast("list[Task]", await self._call("list_tasks", filters))

    # ---- nodes ----

    async def get_node(self, ref: str) -> Node:
        return cast(Node, await self._call("get_node", ref))

    async def list_nodes(self, filters: Filters) -> list[Node]:
        return cast("list[Node]", await self._call("list_nodes", filters))

    async def update_node(self, id: str, version: int, spec: NodeSpec) -> Node:
        return cast(Node, await self._call("update_node", id, version, spec))

    async def remove_node(self, ref: str, force: bool = False) -> None:
        await self._call("remove_node", ref, force)

    # ---- networks ----

    async def create_network(self, spec: NetworkSpec) -> Network:
        return cast(Network, await self._call("create_network", spec))

    async def remove_network(self, ref: str) -> None:
        await self._call("remove_network", ref)

    async def prune_networks(self, filters: Filters) -> list[str]:
        return cast("list[str]", await self._call("prune_networks", filters))

    async def get_network(self, ref: str) -> Network:
        return cast(Network, await self._call("get_network", ref))

    async def list_networks(self, filters: Filters) -> list[Network]:
        return cast("list[Network]", await self._call("list_networks", filters))

    # ---- secrets and configs ----

    async def create_secret(self, spec: SecretSpec) -> Secret:
        return cast(Secret, await self._call("create_secret", spec))

    async def get_secret(self, ref: str) -> Secret:
        return cast(Secret, await self._call("get_secret", ref))

    async def list_secrets(self, filters: Filters) -> list[Secret]:
        return cast("list[Secret]", await self._call("list_secrets", filters))

    async def update_secret(self, id: str, version: int, spec: SecretSpec) -> Secret:
        return cast(Secret, await self._call("update_secret", id, version, spec))

    async def remove_secret(self, ref: str) -> None:
        await self._call("remove_secret", ref)

    async def create_config(self, spec: ConfigSpec) -> Config:
        return cast(Config, await self._call("create_config", spec))

    async def get_config(self, ref: str) -> Config:
        return cast(Config, await self._call("get_config", ref))

    async def list_configs(self, filters: Filters) -> list[Config]:
        return cast("list[Config]", await self._call("list_configs", filters))

    async def update_config(self, id: str, version: int, spec: ConfigSpec) -> Config:
        return cast(Config, await self._call("update_config", id, version, spec))

    async def remove_config(self, ref: str) -> None:
        await self._call("remove_config", ref)

    # ---- the cluster ----

    async def get_cluster(self) -> Cluster:
        return cast(Cluster, await self._call("get_cluster"))

    async def update_cluster(
        self,
        version: int,
        spec: ClusterSpec,
        rotate_worker_token: bool = False,
        rotate_manager_token: bool = False,
        rotate_unlock_key: bool = False,
    ) -> Cluster:
        rotations = (rotate_worker_token, rotate_manager_token, rotate_unlock_key)
        return cast(Cluster, await self._call("update_cluster", version, spec, *rotations))
