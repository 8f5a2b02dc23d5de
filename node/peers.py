"""Who is at the other end of a connection between nodes, and how a call to it may fail.

Owns the identity in a certificate, the roles, and the one error of calls and streams with its form on the wire.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

MANAGER = "swarm-manager"
WORKER = "swarm-worker"
MANAGERS = frozenset({MANAGER})
NODES = frozenset({MANAGER, WORKER})

ALPN_HTTP = "http/1.1"
ALPN_RAFT = "swarmctl-raft/1"
ALPN_CALLS = "swarmctl-calls/1"

BODY_BYTES_MAX = 64 * 1024 * 1024
CONNECT_S_MAX = 5.0
STOP_S_MAX = 1.0

HTTP_STATUS = {
    "invalid_argument": 400,
    "not_found": 404,
    "already_exists": 409,
    "failed_precondition": 412,
    "out_of_sequence": 409,
    "not_leader": 421,
    "unavailable": 503,
    "maybe_committed": 504,
    "permission_denied": 403,
    "internal": 500,
}


class RpcError(Exception):
    """A call was refused or failed.

    code: invalid_argument, not_found, already_exists, failed_precondition, out_of_sequence, not_leader
    (detail: the leader's address, or ""), unavailable (nothing happened), maybe_committed (the outcome is
    unknown), permission_denied, internal.
    """

    def __init__(self, code: str, message: str, detail: str = "") -> None:
        assert code in HTTP_STATUS, f"unknown code {code}"
        super().__init__(message)
        self.code = code
        self.message = message
        self.detail = detail


@dataclass(frozen=True)
class Identity:
    """Who is at the other end, from its certificate. role: swarm-manager or swarm-worker."""

    node_id: str
    role: str
    cluster_id: str


Handler = Callable[[Identity | None, bytes], Awaitable[bytes]]


class TlsContexts(Protocol):
    """Contexts for new connections; other objects after a renewal."""

    def server(self) -> ssl.SSLContext: ...

    def client(self) -> ssl.SSLContext:
        """For streams, and for the calls of a node without a certificate."""

    def calls(self) -> ssl.SSLContext | None:
        """For calls: the same, offering only that protocol; None for a node without a certificate."""

    def raft(self) -> ssl.SSLContext:
        """For raft connections: the same, offering only that protocol."""


def peer_identity(connection: ssl.SSLObject | ssl.SSLSocket | None) -> Identity | None:
    """The identity in the peer's verified certificate; None when it showed none."""
    certificate = connection.getpeercert() if connection is not None else None
    if not certificate:
        return None
    subject: Any = certificate.get("subject", ())
    fields = {name: value for entry in subject for name, value in entry}
    return Identity(
        node_id=fields.get("commonName", ""),
        role=fields.get("organizationalUnitName", ""),
        cluster_id=fields.get("organizationName", ""),
    )


def check_role(method: str, peer: Identity | None, roles: frozenset[str] | None) -> None:
    """Raises RpcError permission_denied. roles None: anybody."""
    if roles is None:
        return
    if peer is None:
        raise RpcError("permission_denied", f"{method} needs a node certificate")
    if peer.role not in roles:
        raise RpcError("permission_denied", f"{method} is not allowed for node {peer.node_id} ({peer.role})")


def split_address(address: str) -> tuple[str, int]:
    """host:port or [v6]:port. Raises RpcError invalid_argument."""
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise RpcError("invalid_argument", f"invalid address {address!r}: want host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


def check_request(payload: bytes) -> None:
    if len(payload) > BODY_BYTES_MAX:
        raise RpcError("invalid_argument", f"request of {len(payload)} bytes, the limit is {BODY_BYTES_MAX}")


def abort(transport: asyncio.BaseTransport) -> None:
    """Close at once, whatever state it is in."""
    assert isinstance(transport, asyncio.WriteTransport), "connections can be written to"
    # Until Python 3.11.4 a TLS transport that has ended already fails here.
    with contextlib.suppress(AttributeError):
        transport.abort()


def overlook_late_aborts(loop: asyncio.AbstractEventLoop) -> None:
    """aiohttp aborts a TLS transport a moment after it was closed; until Python 3.11.4 that is an error when it has
    ended by then. Nothing is wrong, so nothing is logged."""

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not (isinstance(error, AttributeError) and error.name == "_abort" and error.obj is None):
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)


# ---- errors on the wire ----------------------------------------------------------------------------------


class _WireError(msgspec.Struct, frozen=True, omit_defaults=True):
    code: str
    message: str
    detail: str = ""


def encode_error(error: RpcError) -> bytes:
    return msgspec.json.encode(_WireError(error.code, error.message, error.detail))


def decode_error(data: bytes) -> RpcError:
    try:
        wire = msgspec.json.decode(data, type=_WireError)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return RpcError("internal", "the other node answered with an error that cannot be read")
    code = wire.code if wire.code in HTTP_STATUS else "internal"
    return RpcError(code, wire.message, wire.detail)


def unforeseen(method: str, error: Exception) -> RpcError:
    return RpcError("internal", f"{method} failed: {type(error).__name__}: {error}")


def not_reached(address: str, error: Exception) -> RpcError:
    return RpcError("unavailable", f"cannot reach {address}: {reason(error)}")


def not_answered(address: str, method: str, error: Exception) -> RpcError:
    return RpcError("maybe_committed", f"no answer from {address} to {method}: {reason(error)}")


def refused_certificate(address: str, error: Exception) -> RpcError:
    return RpcError("permission_denied", f"{address} refused this node's certificate: {error}")


def reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    return str(error) or type(error).__name__
