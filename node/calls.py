"""Unary calls between nodes: one connection from a client to an address carries all of its calls at once.

Owns which call waits for which answer, and what a caller is told when there is none: `unavailable` as long as
nothing of the request was handed to the connection, `maybe_committed` afterwards. A server says READY before
anything else, so a certificate that it does not take is known before a request leaves. A caller that gives up
abandons its call only: the handler runs to its end, as its effect may be on its way, and the answer is dropped.
Invariants: roles are checked before a request is kept; requests, answers and calls on their way are bounded
per connection; a failed or silent connection is not used for another call, one made with a former certificate
neither.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable

from node.call_frames import (
    ABANDON,
    ANSWER,
    ERROR,
    PART,
    READY,
    REQUEST,
    FrameConnection,
    FrameError,
    Incoming,
    Outgoing,
    split_total,
)
from node.peers import (
    ALPN_CALLS,
    BODY_BYTES_MAX,
    CONNECT_S_MAX,
    STOP_S_MAX,
    Handler,
    Identity,
    RpcError,
    check_request,
    decode_error,
    encode_error,
    not_answered,
    not_reached,
    refused_certificate,
    split_address,
    unforeseen,
)

log = logging.getLogger(__name__)

CALLS_MAX = 4096  # on their way, of one connection
HANDLERS_MAX = 4 * CALLS_MAX  # of one server
REQUEST_BYTES_MAX = 2 * BODY_BYTES_MAX  # of one connection, half received or being handled
IDLE_S_MAX = 60.0
_NUMBERS = 1 << 32

# Which handler serves a method for that peer. Raises RpcError: not_found, permission_denied.
FindHandler = Callable[[str, Identity], Handler]


# ---- client ----------------------------------------------------------------------------------------------


class _Call:
    """One that waits for its answer."""

    __slots__ = ("answer", "frames_before", "incoming", "method", "request")

    def __init__(self, method: str, request: Outgoing, frames_before: int) -> None:
        self.method = method
        self.request = request
        self.frames_before = frames_before
        self.incoming: Incoming | None = None
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()


class _ClientConnection(FrameConnection):
    """`forget` is called as soon as no further call may begin here."""

    def __init__(self, address: str, forget: Callable[[_ClientConnection], None]) -> None:
        super().__init__(address)
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self._forget = forget
        self._retired = False
        self._calls: dict[int, _Call] = {}
        self._last = 0
        self._last_looked_at = -1

    def begin(self, method: str, payload: bytes) -> _Call:
        """Raises RpcError unavailable when too much is on its way."""
        if not self.is_open:
            raise RpcError("unavailable", f"cannot reach {self.peer_name}: the connection was closed")
        if len(self._calls) >= CALLS_MAX:
            raise RpcError(
                "unavailable",
                f"{len(self._calls)} calls to {self.peer_name} are on their way, the limit is {CALLS_MAX}",
            )
        if not self.has_room(len(payload)):
            raise RpcError(
                "unavailable",
                f"{self.waiting_bytes} bytes wait to be sent to {self.peer_name}: it reads too slowly",
            )
        self._last = number = self._free_number()
        name = method.encode()
        request = Outgoing(REQUEST, number, payload, bytes((len(name),)) + name)
        call = self._calls[number] = _Call(method, request, self.frames_received)
        self.send(request)
        return call

    def _free_number(self) -> int:
        number = (self._last + 1) % _NUMBERS
        while number in self._calls:
            number = (number + 1) % _NUMBERS
        return number

    def finish(self, call: _Call) -> None:
        """The caller is gone, with an answer or without."""
        number = call.request.number
        if self._calls.pop(number, None) is not None:
            self.withdraw(call.request)
            if call.request.started:
                self.send(Outgoing(ABANDON, number, b""))
        if call.answer.done() and not call.answer.cancelled():
            call.answer.exception()  # seen: the caller may have been cancelled in the same turn
        self._close_if_unused()

    def timed_out(self, call: _Call) -> None:
        """Nothing at all came since the call began: whoever is there may be gone for good."""
        if self.frames_received == call.frames_before:
            self.retire()

    def retire(self) -> None:
        """No further calls; those on their way go on."""
        self._retired = True
        self._forget(self)
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._retired and not self._calls:
            self.close(ConnectionResetError("the connection was retired"))

    def look_whether_idle(self) -> None:
        """Again and again: closes a connection without a call since the last time."""
        if not self._calls and self._last_looked_at == self._last:
            self.retire()
        if self.is_open:
            self._last_looked_at = self._last
            self._loop.call_later(IDLE_S_MAX, self.look_whether_idle)

    def on_frame(self, kind: int, number: int, data: bytes) -> None:
        if kind == READY:
            if not self.ready.done():
                self.ready.set_result(None)
        elif kind in (ANSWER, ERROR):
            total, data = split_total(data)
            if total > BODY_BYTES_MAX:
                raise FrameError(f"an answer of {total} bytes, the limit is {BODY_BYTES_MAX}")
            call = self._calls.get(number)
            if call is not None:
                call.incoming = Incoming(kind, total)
                self._add(call, call.incoming, data)
        elif kind == PART:
            call = self._calls.get(number)
            if call is not None and call.incoming is not None:
                self._add(call, call.incoming, data)
        else:
            raise FrameError(f"a frame of kind {kind}")

    def _add(self, call: _Call, incoming: Incoming, data: bytes) -> None:
        if not incoming.add(data):
            return
        del self._calls[call.request.number]
        self.withdraw(call.request)  # refused before all of it had left
        if call.answer.done():
            return
        if incoming.kind == ANSWER:
            call.answer.set_result(incoming.body())
        else:
            call.answer.set_exception(decode_error(incoming.body()))

    def on_lost(self, error: Exception) -> None:
        self._forget(self)
        if not self.ready.done():
            self.ready.set_exception(error)
            self.ready.exception()  # seen: who dialled may have given up
        calls, self._calls = self._calls, {}
        for call in calls.values():
            if call.answer.done():
                continue
            if call.request.started:
                call.answer.set_exception(not_answered(self.peer_name, call.method, error))
            else:
                call.answer.set_exception(not_reached(self.peer_name, error))


class CallClient:
    """The connections of one node to all others. `current`: the TLS context for new ones; those made with
    another one are retired."""

    def __init__(self, current: Callable[[], ssl.SSLContext | None]) -> None:
        self._current = current
        self._context: ssl.SSLContext | None = None
        self._open: dict[str, _ClientConnection] = {}
        self._dialling: dict[str, asyncio.Task[None]] = {}
        self._closed = False

    async def call(self, address: str, method: str, payload: bytes, timeout: float) -> bytes:
        """As RpcClient.call."""
        check_request(payload)
        call: _Call | None = None
        try:
            async with asyncio.timeout(timeout):
                connection = await self._connection(address)
                call = connection.begin(method, payload)
                return await call.answer
        except TimeoutError as error:
            if call is None or not call.request.started:
                raise not_reached(address, error) from error
            connection.timed_out(call)
            raise not_answered(address, method, error) from error
        finally:
            if call is not None:
                connection.finish(call)

    async def close(self) -> None:
        """Calls on their way go on to their end; others are refused."""
        self._closed = True
        self._retire_all()
        dials = list(self._dialling.values())
        for task in dials:
            task.cancel()
        await asyncio.gather(*dials, return_exceptions=True)

    async def _connection(self, address: str) -> _ClientConnection:
        """Raises RpcError unavailable or permission_denied."""
        while True:
            if self._closed:
                raise RpcError("unavailable", f"cannot reach {address}: this node is closing its connections")
            context = self._current()
            assert context is not None, "a node without a certificate calls over HTTP"
            if self._context is not context:
                self._retire_all()
                self._context = context
            found = self._open.get(address)
            if found is not None:
                return found
            dial = self._dialling.get(address)
            if dial is None:
                dial = asyncio.create_task(self._dial(context, address), name=f"rpc-dial-{address}")
                self._dialling[address] = dial
                dial.add_done_callback(self._dialled)
            await asyncio.wait((dial,))
            if not dial.cancelled() and (error := dial.exception()) is not None:
                assert isinstance(error, RpcError)
                raise RpcError(error.code, error.message) from error

    async def _dial(self, context: ssl.SSLContext, address: str) -> None:
        """A connection that may be used, unless the certificate was renewed meanwhile."""
        host, port = split_address(address)
        connection = _ClientConnection(address, self._forget)
        try:
            async with asyncio.timeout(CONNECT_S_MAX):
                transport, _ = await asyncio.get_running_loop().create_connection(
                    lambda: connection, host, port, ssl=context, server_hostname=""
                )
                _check_protocol(address, transport.get_extra_info("ssl_object"))
                await connection.ready
            if not connection.is_open:
                raise ConnectionResetError("the connection was closed at once")
        except (OSError, ValueError) as error:  # ValueError: no host name
            hung_up = connection.ready.done()
            connection.close(ConnectionResetError("no connection"))
            raise _dial_error(address, error, hung_up) from error
        except BaseException:
            connection.close(ConnectionResetError("no connection"))
            raise
        if self._closed or self._context is not context:
            connection.retire()
            return
        self._open[address] = connection
        connection.look_whether_idle()

    def _dialled(self, dial: asyncio.Task[None]) -> None:
        for address, task in list(self._dialling.items()):
            if task is dial:
                del self._dialling[address]
        if not dial.cancelled():
            dial.exception()  # seen: whoever waited may be gone

    def _forget(self, connection: _ClientConnection) -> None:
        if self._open.get(connection.peer_name) is connection:
            del self._open[connection.peer_name]

    def _retire_all(self) -> None:
        for connection in list(self._open.values()):
            connection.retire()


def _dial_error(address: str, error: Exception, hung_up: bool) -> RpcError:
    """In TLS 1.3 a client is done before the server has looked at its certificate: some refusals are no more
    than the end of the connection."""
    if hung_up and isinstance(error, ssl.SSLError):
        return refused_certificate(address, error)
    if hung_up:
        why = f"it hung up before it took calls ({error}); it may not accept this node's certificate"
        return not_reached(address, ConnectionError(why))
    return not_reached(address, error)


def _check_protocol(address: str, secured: ssl.SSLObject) -> None:
    """Raises RpcError."""
    if secured.selected_alpn_protocol() != ALPN_CALLS:
        raise RpcError(
            "unavailable", f"{address} does not offer {ALPN_CALLS}: swarmctl there is of another version"
        )


# ---- server ----------------------------------------------------------------------------------------------


class _Request:
    """One that has begun: half received, or being handled."""

    __slots__ = ("abandoned", "handler", "incoming", "method", "number", "total")

    def __init__(self, number: int, method: str, handler: Handler, total: int) -> None:
        self.number = number
        self.method = method
        self.handler = handler
        self.total = total
        self.incoming: Incoming | None = Incoming(REQUEST, total)  # None: complete
        self.abandoned = False


class _ServerConnection(FrameConnection):
    def __init__(self, server: CallServer, peer: Identity) -> None:
        super().__init__(f"node {peer.node_id}")
        self.peer = peer
        self._server = server
        self._requests: dict[int, _Request] = {}
        self._request_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.send(Outgoing(READY, 0, b""))

    def on_frame(self, kind: int, number: int, data: bytes) -> None:
        if kind == REQUEST:
            total, data = split_total(data)
            if not data or len(data) <= data[0]:
                raise FrameError(f"a request of {len(data)} bytes without a whole method")
            size = data[0]
            self._begin(number, total, data[1 : 1 + size], data[1 + size :])
        elif kind == PART:
            request = self._requests.get(number)
            if request is not None:  # not refused or abandoned
                self._add(request, data)
        elif kind == ABANDON:
            self._abandon(number)
        else:
            raise FrameError(f"a frame of kind {kind}")

    def _begin(self, number: int, total: int, name: bytes, data: bytes) -> None:
        if number in self._requests:
            raise FrameError(f"request {number} twice")
        method = name.decode(errors="replace")
        try:
            handler = self._server.find(method, self.peer)
            self._check_bounds(total)
        except RpcError as error:
            self.send(Outgoing(ERROR, number, encode_error(error)))
            return
        request = self._requests[number] = _Request(number, method, handler, total)
        self._request_bytes += total
        self._add(request, data)

    def _check_bounds(self, total: int) -> None:
        """Raises RpcError."""
        if total > BODY_BYTES_MAX:
            raise RpcError("invalid_argument", f"request of {total} bytes, the limit is {BODY_BYTES_MAX}")
        if len(self._requests) >= CALLS_MAX:
            raise RpcError(
                "unavailable", f"{len(self._requests)} calls of {self.peer_name} are being handled"
            )
        if self._request_bytes + total > REQUEST_BYTES_MAX:
            raise RpcError(
                "unavailable", f"calls of {self.peer_name} with {self._request_bytes} bytes are being handled"
            )

    def _add(self, request: _Request, data: bytes) -> None:
        if request.incoming is None:
            raise FrameError(f"request {request.number} goes on after its end")
        if request.incoming.add(data):
            payload = request.incoming.body()
            request.incoming = None
            self._server.start(self, request, payload)

    def _abandon(self, number: int) -> None:
        """Its caller is gone: what is half received goes as well, a handler that runs has its answer dropped."""
        request = self._requests.get(number)
        if request is None:
            return
        request.abandoned = True
        if request.incoming is not None:
            self._end(request)

    def _end(self, request: _Request) -> bool:
        """False when nobody waits for an answer any more."""
        if self._requests.pop(request.number, None) is None:
            return False
        self._request_bytes -= request.total
        return not request.abandoned

    def answer(self, request: _Request, kind: int, body: bytes) -> None:
        """Too long an answer becomes an error: the call had its effect, of which the caller hears nothing else."""
        if not self._end(request):
            return
        problem = ""
        if len(body) > BODY_BYTES_MAX:
            problem = f"the answer to {request.method} has {len(body)} bytes, the limit is {BODY_BYTES_MAX}"
        elif not self.has_room(len(body)):
            problem = f"{self.waiting_bytes} bytes of answers wait already for {self.peer_name}"
        if problem:
            kind, body = ERROR, encode_error(RpcError("maybe_committed", problem))
        self.send(Outgoing(kind, request.number, body))

    def on_lost(self, error: Exception) -> None:
        self._requests.clear()


class CallServer:
    """The server's side of all connections. `find` says who serves a method."""

    def __init__(self, find: FindHandler) -> None:
        self.find = find
        self._handlers: set[asyncio.Task[None]] = set()

    def accept(self, peer: Identity) -> asyncio.Protocol:
        """The protocol of a connection from that node."""
        return _ServerConnection(self, peer)

    def start(self, connection: _ServerConnection, request: _Request, payload: bytes) -> None:
        if len(self._handlers) >= HANDLERS_MAX:
            error = RpcError("unavailable", f"{len(self._handlers)} calls are being handled")
            connection.answer(request, ERROR, encode_error(error))
            return
        task = asyncio.create_task(_handle(connection, request, payload))
        self._handlers.add(task)
        task.add_done_callback(self._handlers.discard)

    async def stop(self) -> None:
        """The connections are closed already: handlers have a second to end by themselves, then they must."""
        if self._handlers:
            await asyncio.wait(self._handlers, timeout=STOP_S_MAX)
        for task in self._handlers:
            task.cancel()
        if self._handlers:
            await asyncio.wait(self._handlers, timeout=STOP_S_MAX)


async def _handle(connection: _ServerConnection, request: _Request, payload: bytes) -> None:
    kind = ERROR
    try:
        body = await request.handler(connection.peer, payload)
        kind = ANSWER
    except RpcError as error:
        body = encode_error(error)
    except Exception as error:  # the border: what a handler did not foresee
        log.exception("%s failed", request.method)
        body = encode_error(unforeseen(request.method, error))
    connection.answer(request, kind, body)
