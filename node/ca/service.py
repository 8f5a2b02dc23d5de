"""The certificate authority as managers serve it: "ca.root" to anybody, "ca.sign" to whoever may join.

Owns who gets a certificate: a new node by its role's token, a member by the certificate it has. Writes
nothing itself: admission of a new node is the caller's callable. Invariants: id and role in a certificate
come from the cluster's state, never from the requester; a manager that does not know the newest state signs
nothing and refuses nobody.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import msgspec

from node.ca import authority, tokens
from node.rpc import MANAGER, NODES, WORKER, Identity, RpcError, RpcServer
from raft.objects.assignment import ManagerAddress
from raft.objects.cluster import ManagerLock, RootCA
from raft.objects.node import Availability, NodeRole

log = logging.getLogger(__name__)

METHOD_ROOT = "ca.root"
METHOD_SIGN = "ca.sign"
METHOD_MANAGERS = "ca.managers"

CERTIFICATE_ROLE = {NodeRole.WORKER: WORKER, NodeRole.MANAGER: MANAGER}

# Guesses per second are bounded so that a token cannot be searched for, nor the log flooded.
WRONG_TOKEN_DELAY_S = 0.2


class SignRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """`csr`: PEM. `token`: of a joiner; empty when the caller renews with its certificate. `availability`: the
    joiner's wish."""

    csr: str
    token: str = ""
    availability: Availability = Availability.ACTIVE


class SignAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`lock`: for managers, whose key is wrapped from its first moment on a disk; None for workers."""

    node_id: str
    cluster_id: str
    certificate_pem: str
    root_pem: str
    managers: tuple[ManagerAddress, ...] = ()
    lock: ManagerLock | None = None


@dataclass(frozen=True)
class CaState:
    """What the service needs of the cluster at one moment."""

    root: RootCA
    cluster_id: str
    validity_s: float
    lock: ManagerLock


class CaService:
    """Serves the three methods on a manager.

    confirm: after it the state is the newest (raises RpcError; not_leader with the leader's address when that
    has to be asked). state: the cluster's CA, None while this manager has not read it yet. admit(role): writes
    the new node and returns its id (raises RpcError).
    role_of(node_id): the role that node should have, None when it is not in the cluster. managers: all.
    """

    def __init__(
        self,
        *,
        confirm: Callable[[], Awaitable[None]],
        state: Callable[[], CaState | None],
        admit: Callable[[NodeRole, Availability], Awaitable[str]],
        role_of: Callable[[str], NodeRole | None],
        managers: Callable[[], Sequence[ManagerAddress]],
        now: Callable[[], float],
        wrong_token_delay_s: float = WRONG_TOKEN_DELAY_S,
    ) -> None:
        self._confirm = confirm
        self._state = state
        self._admit = admit
        self._role_of = role_of
        self._managers = managers
        self._now = now
        self._wrong_token_delay_s = wrong_token_delay_s

    def register(self, server: RpcServer) -> None:
        server.handle(METHOD_ROOT, self.root, roles=None)
        server.handle(METHOD_SIGN, self.sign, roles=None)
        server.handle(METHOD_MANAGERS, self.managers, roles=NODES)

    async def root(self, caller: Identity | None, payload: bytes) -> bytes:
        return self._current().root.cert_pem.encode()

    async def managers(self, caller: Identity | None, payload: bytes) -> bytes:
        return msgspec.json.encode(tuple(self._managers()))

    async def sign(self, caller: Identity | None, payload: bytes) -> bytes:
        """SignRequest -> SignAnswer, as JSON."""
        try:
            request = msgspec.json.decode(payload, type=SignRequest)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise RpcError("invalid_argument", f"invalid certificate request: {error}") from error
        await self._confirm()
        state = self._current()
        if request.token:
            role = await self._role_of_token(state.root, request.token)
            self._sign(state, request.csr, "unnamed", role)  # refuse a bad request before a node is written
            node_id = await self._admit(role, request.availability)
        elif caller is not None:
            node_id = caller.node_id
            role = self._member_role(node_id)
        else:
            raise RpcError("permission_denied", "A valid join token is necessary to join this cluster")
        answer = SignAnswer(
            node_id=node_id,
            cluster_id=state.cluster_id,
            certificate_pem=self._sign(state, request.csr, node_id, role),
            root_pem=state.root.cert_pem,
            managers=tuple(self._managers()),
            lock=state.lock if role is NodeRole.MANAGER else None,
        )
        log.info("issued a %s certificate to node %s", role, node_id)
        return msgspec.json.encode(answer)

    def _current(self) -> CaState:
        state = self._state()
        if state is None:
            raise RpcError("unavailable", "this manager has not joined the others yet, try again")
        return state

    async def _role_of_token(self, root: RootCA, text: str) -> NodeRole:
        try:
            token = str(tokens.parse_token(text))
        except tokens.InvalidToken as error:
            raise RpcError("invalid_argument", str(error)) from error
        is_worker = tokens.same_token(token, root.worker_token)
        is_manager = tokens.same_token(token, root.manager_token)
        if not (is_worker or is_manager):
            await asyncio.sleep(self._wrong_token_delay_s)
            raise RpcError("permission_denied", "A valid join token is necessary to join this cluster")
        return NodeRole.MANAGER if is_manager else NodeRole.WORKER

    def _member_role(self, node_id: str) -> NodeRole:
        role = self._role_of(node_id)
        if role is None:
            raise RpcError("permission_denied", f"node {node_id} was removed from this swarm: join again")
        return role

    def _sign(self, state: CaState, csr: str, node_id: str, role: NodeRole) -> str:
        try:
            return authority.sign(
                state.root,
                csr,
                node_id=node_id,
                role=CERTIFICATE_ROLE[role],
                cluster_id=state.cluster_id,
                now=self._now(),
                validity_s=state.validity_s,
            )
        except authority.InvalidRequest as error:
            raise RpcError("invalid_argument", str(error)) from error
