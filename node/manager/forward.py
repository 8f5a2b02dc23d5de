"""The control API from any manager: here when this one leads, over RPC to the leader otherwise.

Owns the wire form of a call (its request, and a JSON array of the arguments, typed by the method's own
annotations), how errors cross it, and that reads are linearizable. Invariant: callers see the same results
and the same errors on every manager.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import inspect
import typing
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

import msgspec

from node.loop import Clock, SystemClock
from node.manager.asking import Asker, LeaderFailed
from node.manager.asking import leader_address as leader_address
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
from raft.objects.request import Request, new_key
from raft.objects.service import Service, ServiceSpec
from raft.objects.task import Task

PREFIX = "control."
FINGERPRINT_BYTES = 16
FORGOTTEN = "forgotten"

Handler = Callable[[Identity | None, bytes], Awaitable[bytes]]


class RpcHandlers(Protocol):
    """The part of the RPC server that is needed here."""

    def handle(self, method: str, handler: Handler, *, roles: frozenset[str] | None) -> None: ...


class RpcCaller(Protocol):
    """The part of the RPC client that is needed here."""

    async def call(self, address: str, method: str, payload: bytes, *, timeout: float) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Signature:
    """Types of a method's arguments in order, and of its result, for strict decoding.

    writes: it takes the request that it is called for.
    """

    arguments: Any
    result: Any
    writes: bool


class Call(msgspec.Struct, frozen=True):
    """What is sent to the leader; `request` for those that write."""

    arguments: msgspec.Raw
    request: Request | None = None


def _signature(method: Callable[..., Any]) -> Signature:
    hints = typing.get_type_hints(method)
    names = [name for name in inspect.signature(method).parameters if name not in ("self", "request")]
    arguments: Any = tuple[tuple(hints[name] for name in names)]  # type: ignore[misc]
    return Signature(arguments, hints["return"], writes="request" in hints)


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
            call = msgspec.json.decode(payload, type=Call)
            arguments = msgspec.json.decode(call.arguments, type=signature.arguments)
            return msgspec.json.encode(await _serve(api, leadership, name, arguments, call.request))
        except msgspec.ValidationError as error:
            raise RpcError("invalid_argument", str(error)) from error
        except errors.RaftError as error:
            raise to_rpc(error) from error

    return handle


async def _serve(
    api: ControlApi, leadership: Leadership, name: str, arguments: tuple[object, ...], request: Request | None
) -> Any:
    """On the leader. What a write reads is confirmed by its commit, or by the store when there is none."""
    method = getattr(api, name)
    if METHODS[name].writes:
        return await method(*arguments, request=request)
    await leadership.read_barrier()
    return await method(*arguments)


def to_rpc(error: errors.RaftError) -> RpcError:
    detail = FORGOTTEN if isinstance(error, errors.Forgotten) else ""
    if isinstance(error, errors.NotLeader):
        detail = error.leader
    return RpcError(errors.code_of(error), str(error), detail)


def from_rpc(error: RpcError) -> errors.RaftError:
    """The raft error that crossed the wire. What this side does not know may have been written."""
    if error.code == "not_leader":
        return errors.NotLeader(error.message, error.detail)
    if error.code == "maybe_committed" and error.detail == FORGOTTEN:
        return errors.Forgotten(error.message)
    if error.code == "permission_denied":  # before anything was looked at
        return errors.Unavailable(error.message)
    return errors.CODES.get(error.code, LeaderFailed)(error.message)


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
        self._local = local
        self._leadership = leadership
        self._client = client
        self._asker = Asker(node_id, leadership, clock or SystemClock())
        self._request: Request | None = None

    def for_request(self, request: Request) -> ControlProxy:
        """A proxy whose write is that of a client's request, and has been if the client sent it before."""
        bound = copy.copy(self)
        bound._request = request
        return bound

    @property
    def index(self) -> int:
        """A log index that is applied: what keys of requests begin with."""
        return self._local.index

    async def _call(self, name: str, *arguments: object) -> Any:
        async def attempt(address: str, request: Request | None, timeout_s: float) -> Any:
            if address:
                return await self._there(address, name, arguments, request, timeout_s)
            return await self._here(name, arguments, request, timeout_s)

        return await self._asker.ask(attempt, self._request_for(name))

    def _request_for(self, name: str) -> Request | None:
        if not METHODS[name].writes:
            return None
        if self._request is None:
            return Request(new_key(self._local.index))
        content = hashlib.sha256(name.encode() + b"\0" + self._request.fingerprint)
        return msgspec.structs.replace(self._request, fingerprint=content.digest()[:FINGERPRINT_BYTES])

    async def _here(
        self, name: str, arguments: tuple[object, ...], request: Request | None, timeout_s: float
    ) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                return await _serve(self._local, self._leadership, name, arguments, request)
        except TimeoutError as error:
            raise errors.MaybeCommitted(f"no majority confirmed it within {timeout_s:g} s") from error

    async def _there(
        self,
        address: str,
        name: str,
        arguments: tuple[object, ...],
        request: Request | None,
        timeout_s: float,
    ) -> Any:
        payload = msgspec.json.encode(Call(msgspec.Raw(msgspec.json.encode(arguments)), request))
        try:
            answer = await self._client.call(address, PREFIX + name, payload, timeout=timeout_s)
        except RpcError as error:
            raise from_rpc(error) from error
        return msgspec.json.decode(answer, type=METHODS[name].result)

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
