"""Calls and streams between nodes: HTTP/1.1, calls and the raft byte stream behind one TLS listener.

Owns the listener: ALPN picks calls (node.calls), HTTP (one websocket per stream, one POST per call of a node
without a certificate) or raft (handed over as reader and writer). Knows no message: payloads are bytes.
Invariants: nothing is kept of a caller before its role is known to be allowed; every body, wait and number of
connections is bounded; a changed certificate is used by every connection made after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Protocol

import aiohttp
from aiohttp import web

from node.calls import CallClient, CallServer
from node.peers import (
    ALPN_CALLS,
    ALPN_HTTP,
    ALPN_RAFT,
    BODY_BYTES_MAX,
    CONNECT_S_MAX,
    HTTP_STATUS,
    MANAGER,
    MANAGERS,
    NODES,
    STOP_S_MAX,
    WORKER,
    Handler,
    Identity,
    RpcError,
    TlsContexts,
    abort,
    check_request,
    check_role,
    decode_error,
    encode_error,
    not_answered,
    not_reached,
    peer_identity,
    refused_certificate,
    split_address,
    unforeseen,
)

__all__ = [
    "ALPN_CALLS",
    "ALPN_HTTP",
    "ALPN_RAFT",
    "BODY_BYTES_MAX",
    "MANAGER",
    "MANAGERS",
    "NODES",
    "WORKER",
    "Identity",
    "RpcClient",
    "RpcError",
    "RpcServer",
    "Stream",
    "TlsContexts",
    "peer_identity",
]

log = logging.getLogger(__name__)

ANONYMOUS_BODY_BYTES_MAX = 64 * 1024
CONNECTIONS_MAX = 4096
HANDSHAKE_S_MAX = 5.0
ANONYMOUS_S_MAX = 60.0  # a connection without a certificate serves one join, then it has to go
PING_S = 2.0
_RAFT_BUFFER_BYTES = 1024 * 1024
# The kernel sends what was not acknowledged again after ever longer times: a connection that outlives a cut of
# a minute may need another one until it goes on. A new one is there at once.
RAFT_UNACKNOWLEDGED_MS_MAX = 2000


class Stream(Protocol):
    """Messages in both directions, in order."""

    async def send(self, data: bytes) -> None:
        """Raises RpcError unavailable when the stream is closed."""

    async def receive(self) -> bytes | None:
        """The next message, None when the other side closed. Raises the RpcError that it refused with."""

    async def close(self) -> None: ...


StreamHandler = Callable[[Identity, Stream], Awaitable[None]]
RaftAcceptor = Callable[[str, asyncio.StreamReader, asyncio.StreamWriter], None]


# ---- server ----------------------------------------------------------------------------------------------


class _Mux(asyncio.Protocol):
    """First protocol of an accepted connection: replaced as soon as ALPN has named the real one."""

    def __init__(self, server: RpcServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._server._connected(transport)


class RpcServer:
    """One listener. Register handlers before `start`; the same server may start again after `stop`."""

    def __init__(self, tls: TlsContexts) -> None:
        self._tls = tls
        self._handlers: dict[str, tuple[Handler, frozenset[str] | None]] = {}
        self._streams: dict[str, tuple[StreamHandler, frozenset[str]]] = {}
        self._calls = CallServer(self._handler_for)
        self._raft: RaftAcceptor | None = None
        self._runner: web.AppRunner | None = None
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._handshakes: set[asyncio.Task[None]] = set()
        self._transports: set[asyncio.Transport] = set()

    def handle(self, method: str, handler: Handler, *, roles: frozenset[str] | None) -> None:
        """roles None: also callers without a certificate."""
        assert method not in self._handlers, f"{method} has a handler"
        self._handlers[method] = (handler, roles)

    def handle_stream(self, method: str, handler: StreamHandler, *, roles: frozenset[str]) -> None:
        """The stream is closed when the handler returns; an RpcError it raises reaches the caller."""
        assert method not in self._streams, f"{method} has a handler"
        self._streams[method] = (handler, roles)

    def on_raft(self, accept: RaftAcceptor) -> None:
        self._raft = accept

    @property
    def port(self) -> int:
        """The port listened on; for listeners started with port 0."""
        assert self._listener is not None, "the server was not started"
        port: int = self._listener.getsockname()[1]
        return port

    async def start(self, host: str, port: int) -> None:
        """Raises OSError when the address cannot be bound."""
        assert self._accepting is None, "the server runs"
        app = web.Application()
        app.router.add_post("/call/{method}", self._call)
        app.router.add_get("/stream/{method}", self._open_stream)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_S_MAX)
        await runner.setup()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(256)
        except OSError:
            listener.close()
            await runner.cleanup()
            raise
        listener.setblocking(False)
        self._runner = runner
        self._listener = listener
        self._accepting = asyncio.create_task(self._accept(listener), name=f"rpc-accept-{port}")

    async def stop(self) -> None:
        if self._accepting is None or self._listener is None or self._runner is None:
            return
        pending = [self._accepting, *self._handshakes]
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        self._listener.close()
        for transport in list(self._transports):
            abort(transport)
        await asyncio.gather(self._runner.cleanup(), self._calls.stop())
        self._accepting = self._listener = self._runner = None
        self._transports.clear()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:  # out of descriptors: keep listening, the backlog waits
                log.warning("cannot accept a connection from another node: %s", error)
                await asyncio.sleep(0.1)
                continue
            self._forget_closed()
            if len(self._handshakes) + len(self._transports) >= CONNECTIONS_MAX:
                connection.close()
                continue
            task = asyncio.create_task(self._handshake(connection))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    def _forget_closed(self) -> None:
        if len(self._transports) >= 64:
            self._transports = {t for t in self._transports if not t.is_closing()}

    async def _handshake(self, connection: socket.socket) -> None:
        """The context is asked for per connection, so that a renewed certificate counts at once."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: _Mux(self),
                connection,
                ssl=self._tls.server(),
                ssl_handshake_timeout=HANDSHAKE_S_MAX,
                ssl_shutdown_timeout=STOP_S_MAX,
            )
        except (OSError, ValueError) as error:
            log.info("a connection to this node failed its handshake: %s", error)

    def _connected(self, transport: asyncio.Transport) -> None:
        secured = transport.get_extra_info("ssl_object")
        peer = peer_identity(secured)
        self._transports.add(transport)
        if peer is None:
            asyncio.get_running_loop().call_later(ANONYMOUS_S_MAX, transport.abort)
        protocol = secured.selected_alpn_protocol()
        if protocol == ALPN_RAFT:
            if self._raft is None or peer is None or peer.role != MANAGER:
                abort(transport)
            else:
                self._raft(peer.node_id, *_reader_writer(transport))
        elif protocol == ALPN_CALLS:
            if peer is None:
                abort(transport)
            else:
                _hand_over(transport, self._calls.accept(peer))
        else:
            assert self._runner is not None and self._runner.server is not None
            _hand_over(transport, self._runner.server())

    def _handler_for(self, method: str, peer: Identity | None) -> Handler:
        handler, roles = self._handlers.get(method, (None, NODES))
        check_role(method, peer, roles)
        if handler is None:
            raise RpcError("not_found", f"this node does not serve {method}")
        return handler

    async def _call(self, request: web.Request) -> web.Response:
        """Of a node without a certificate; one that has one uses its calls' connection."""
        method = request.match_info["method"]
        peer = _request_identity(request)
        try:
            handler = self._handler_for(method, peer)
            return web.Response(body=await handler(peer, await _read_body(request)))
        except RpcError as error:
            return web.Response(status=HTTP_STATUS[error.code], body=encode_error(error))
        except Exception as error:  # the border: what a handler did not foresee
            log.exception("%s failed", method)
            return web.Response(status=500, body=encode_error(unforeseen(method, error)))

    async def _open_stream(self, request: web.Request) -> web.WebSocketResponse:
        method = request.match_info["method"]
        peer = _request_identity(request)
        socket_ = web.WebSocketResponse(compress=False, max_msg_size=BODY_BYTES_MAX, timeout=STOP_S_MAX)
        await socket_.prepare(request)
        stream = _WebSocketStream(socket_)
        try:
            handler, roles = self._streams.get(method, (None, NODES))
            check_role(method, peer, roles)
            if handler is None or peer is None:
                raise RpcError("not_found", f"this node does not serve {method}")
            await handler(peer, stream)
        except RpcError as error:
            await stream.refuse(error)
        except Exception as error:  # the border: what a handler did not foresee
            log.exception("%s failed", method)
            await stream.refuse(unforeseen(method, error))
        finally:
            await stream.close()
        return socket_


def _request_identity(request: web.Request) -> Identity | None:
    transport = request.transport
    return None if transport is None else peer_identity(transport.get_extra_info("ssl_object"))


async def _read_body(request: web.Request) -> bytes:
    limit = ANONYMOUS_BODY_BYTES_MAX
    if (request.content_length or 0) > limit:
        raise RpcError("invalid_argument", f"request of {request.content_length} bytes, the limit is {limit}")
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > limit:
            raise RpcError("invalid_argument", f"request is larger than {limit} bytes")
    return bytes(body)


def _hand_over(transport: asyncio.Transport, protocol: asyncio.BaseProtocol) -> None:
    transport.set_protocol(protocol)
    protocol.connection_made(transport)


def _reader_writer(transport: asyncio.Transport) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_RAFT_BUFFER_BYTES, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    _hand_over(transport, protocol)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


class _WebSocketStream:
    """Stream over either end of a websocket: messages are binary frames, a refusal is one text frame."""

    def __init__(
        self,
        websocket: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
        session: _Session | None = None,
    ) -> None:
        self._websocket = websocket
        self._session = session

    async def send(self, data: bytes) -> None:
        try:
            await self._websocket.send_bytes(data)
        except (ConnectionError, RuntimeError, aiohttp.ClientError) as error:
            raise RpcError("unavailable", f"stream is closed: {error}") from error

    async def receive(self) -> bytes | None:
        try:
            message = await self._websocket.receive()
        except (ConnectionError, aiohttp.ClientError):
            return None  # it answers a ping by itself, and the other end may be gone by then
        if message.type is aiohttp.WSMsgType.BINARY:
            data: bytes = message.data
            return data
        if message.type is aiohttp.WSMsgType.TEXT:
            await self.close()
            raise decode_error(message.data.encode())
        return None

    async def refuse(self, error: RpcError) -> None:
        with contextlib.suppress(ConnectionError, RuntimeError, aiohttp.ClientError):
            await self._websocket.send_str(encode_error(error).decode())

    async def close(self) -> None:
        with contextlib.suppress(ConnectionError, RuntimeError, aiohttp.ClientError):
            await self._websocket.close()
        if self._session is not None:
            session, self._session = self._session, None
            await session.release()


# ---- client ----------------------------------------------------------------------------------------------


class _Session:
    """Connections made with one TLS context; closed when it is retired and its last user is gone."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        connector = aiohttp.TCPConnector(ssl=context, limit=0, ttl_dns_cache=30)
        self.http = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        self._users = 0
        self._retired = False

    def acquire(self) -> _Session:
        self._users += 1
        return self

    async def release(self) -> None:
        self._users -= 1
        await self._close_if_unused()

    async def retire(self) -> None:
        self._retired = True
        await self._close_if_unused()

    async def _close_if_unused(self) -> None:
        if self._retired and self._users == 0:
            await self.http.close()


class RpcClient:
    """Calls to managers. Connections are kept and reused; a new certificate gets new ones."""

    def __init__(self, tls: TlsContexts) -> None:
        self._tls = tls
        self._calls = CallClient(tls.calls)
        self._current: _Session | None = None

    async def call(self, address: str, method: str, payload: bytes, *, timeout: float) -> bytes:
        """One request, one answer. timeout: seconds for all of it.

        Raises RpcError: what the other side answered; unavailable when it was not reached; maybe_committed
        when the answer did not come.
        """
        if self._tls.calls() is None:
            return await self._call_anonymously(address, method, payload, timeout)
        return await self._calls.call(address, method, payload, timeout)

    async def _call_anonymously(self, address: str, method: str, payload: bytes, timeout: float) -> bytes:
        host, port = split_address(address)
        check_request(payload)
        session = (await self._session()).acquire()
        limits = aiohttp.ClientTimeout(total=timeout, connect=min(CONNECT_S_MAX, timeout))
        try:
            async with session.http.post(
                _url(host, port, "call", method), data=io.BytesIO(payload), timeout=limits
            ) as got:
                body = await _read_answer(got.content)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _connection_error(address, method, error) from error
        finally:
            await session.release()
        if got.status != 200:
            raise decode_error(body)
        return body

    async def stream(
        self, address: str, method: str, *, ping_s: float = PING_S, connect_s: float = CONNECT_S_MAX
    ) -> Stream:
        """Open a stream within `connect_s`. A refusal by the other side is raised by the first `receive`.

        A peer that does not answer a ping within half of `ping_s` seconds closes the stream. Raises RpcError.
        """
        host, port = split_address(address)
        session = (await self._session()).acquire()
        try:
            async with asyncio.timeout(connect_s):
                websocket = await session.http.ws_connect(
                    _url(host, port, "stream", method),
                    heartbeat=ping_s,
                    max_msg_size=BODY_BYTES_MAX,
                    compress=0,
                )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            await session.release()
            raise not_reached(address, error) from error
        except BaseException:
            await session.release()
            raise
        return _WebSocketStream(websocket, session)

    async def dial(self, node_id: str, address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A raft connection to exactly that manager. Raises OSError (also for a wrong identity)."""
        context = self._tls.raft()
        host, port = split_address(address)
        async with asyncio.timeout(CONNECT_S_MAX):
            reader, writer = await asyncio.open_connection(
                host, port, ssl=context, server_hostname="", limit=_RAFT_BUFFER_BYTES
            )
        peer = peer_identity(writer.get_extra_info("ssl_object"))
        if peer is None or peer.node_id != node_id:
            abort(writer.transport)
            found = "nobody" if peer is None else f"node {peer.node_id}"
            raise ConnectionError(f"{address} is {found}, not node {node_id}")
        writer.get_extra_info("socket").setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, RAFT_UNACKNOWLEDGED_MS_MAX
        )
        return reader, writer

    async def close(self) -> None:
        await self._calls.close()
        if self._current is not None:
            await self._current.retire()
            self._current = None

    async def _session(self) -> _Session:
        context = self._tls.client()
        if self._current is None or self._current.context is not context:
            old, self._current = self._current, _Session(context)
            if old is not None:
                await old.retire()
        return self._current


def _url(host: str, port: int, kind: str, method: str) -> str:
    return f"https://{f'[{host}]' if ':' in host else host}:{port}/{kind}/{method}"


async def _read_answer(content: aiohttp.StreamReader) -> bytes:
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            raise aiohttp.ClientPayloadError(f"answer is larger than {BODY_BYTES_MAX} bytes")
    return bytes(body)


def _connection_error(address: str, method: str, error: Exception) -> RpcError:
    """Tells failures before the request left from those after it: only the latter leave a doubt."""
    if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
        return not_reached(address, error)
    if isinstance(error, ssl.SSLError) or isinstance(error.__cause__, ssl.SSLError):
        return refused_certificate(address, error)
    return not_answered(address, method, error)
