"""Calls that share one connection, over real TLS on the loopback: what each is told when something goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from node import calls
from node.ca.tls import NodeTls
from node.call_frames import (
    PART,
    PART_BYTES,
    READY,
    REQUEST,
    UNACKNOWLEDGED_MS_MAX,
    WAITING_BYTES_MAX,
    FrameConnection,
)
from node.rpc import (
    ALPN_CALLS,
    ALPN_HTTP,
    BODY_BYTES_MAX,
    MANAGER,
    MANAGERS,
    NODES,
    Identity,
    RpcClient,
    RpcError,
    RpcServer,
)
from tests.integration.test_raft_tls import without_certificate
from tests.integration.test_rpc_tls import calling, node_tls

BIG = 48 * 1024 * 1024


class Manager:
    """m1: echoes, or holds calls until `release` is set. `effects`: what handlers have done to their end."""

    def __init__(self, tls: NodeTls) -> None:
        self.held = asyncio.Semaphore(0)
        self.release = asyncio.Event()
        self.effects: list[bytes] = []
        self.server = RpcServer(tls)
        self.server.handle("test.echo", self._echo, roles=NODES)
        self.server.handle("test.hold", self._hold, roles=NODES)
        self.server.handle("test.managers", self._echo, roles=MANAGERS)

    async def _echo(self, _caller: Identity | None, payload: bytes) -> bytes:
        return payload

    async def _hold(self, _caller: Identity | None, payload: bytes) -> bytes:
        self.held.release()
        await self.release.wait()
        self.effects.append(payload)
        return payload

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    @property
    def connections(self) -> int:
        return sum(not transport.is_closing() for transport in self.server._transports)


@pytest.fixture
async def m1(tmp_path: Path) -> AsyncIterator[Manager]:
    made = Manager(node_tls(tmp_path, "m1", MANAGER))
    await made.server.start("127.0.0.1", 0)
    yield made
    made.release.set()
    await made.server.stop()


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[RpcClient]:
    async with calling(node_tls(tmp_path, "w1")) as client:
        yield client


async def failure(client: RpcClient, address: str, payload: bytes = b"", timeout: float = 30.0) -> RpcError:
    with pytest.raises(RpcError) as caught:
        await client.call(address, "test.hold", payload, timeout=timeout)
    return caught.value


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def until_stuck(connection: FrameConnection) -> None:
    """All buffers between here and there are full."""
    before = -1
    async with asyncio.timeout(30):
        while not connection._paused or connection.waiting_bytes != before:
            before = connection.waiting_bytes
            await asyncio.sleep(0.2)


def frame(kind: int, number: int, data: bytes) -> bytes:
    return struct.pack(">IBI", len(data), kind, number) + data


class Mute:
    """A manager that says READY to each connection and then neither reads nor answers."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []
        self.server: asyncio.Server | None = None

    async def start(self, tls: NodeTls) -> str:
        self.server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=tls.server(), limit=1024)
        return f"127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def _accept(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(READY, 0, struct.pack(">I", 0)))
        self.writers.append(writer)

    def hang_up(self) -> None:
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()

    async def stop(self) -> None:
        assert self.server is not None
        self.server.close()
        self.hang_up()
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def mute(tls: NodeTls) -> AsyncIterator[tuple[Mute, str]]:
    made = Mute()
    try:
        yield made, await made.start(tls)
    finally:
        await made.stop()


# ---- one connection --------------------------------------------------------------------------------------


async def test_all_calls_share_one_connection(m1: Manager, worker: RpcClient) -> None:
    held = [
        asyncio.create_task(worker.call(m1.address, "test.hold", b"%d" % number, timeout=30))
        for number in range(20)
    ]
    for _ in held:
        await m1.held.acquire()
    answers = await asyncio.gather(
        *(worker.call(m1.address, "test.echo", b"%d" % number, timeout=30) for number in range(300))
    )
    assert answers == [b"%d" % number for number in range(300)]
    assert not any(task.done() for task in held), "later calls were answered earlier"
    m1.release.set()
    assert await asyncio.gather(*held) == [b"%d" % number for number in range(20)]
    assert m1.connections == 1


async def test_big_bodies_do_not_hold_up_small_ones(m1: Manager, worker: RpcClient) -> None:
    body = bytes(range(256)) * (BIG // 256)
    big = asyncio.create_task(worker.call(m1.address, "test.echo", body, timeout=60))
    await asyncio.sleep(0)
    for _ in range(5):
        assert await worker.call(m1.address, "test.echo", b"small", timeout=30) == b"small"
        assert not big.done()
    assert await big == body
    assert m1.connections == 1


async def test_both_ends_notice_a_silent_peer(m1: Manager, worker: RpcClient) -> None:
    await worker.call(m1.address, "test.echo", b"", timeout=30)
    (accepted,) = m1.server._transports
    (dialled,) = worker._calls._open.values()
    for transport in (accepted, dialled._transport):
        assert transport is not None
        connection = transport.get_extra_info("socket")
        option = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert option == UNACKNOWLEDGED_MS_MAX
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


async def test_idle_connection_is_closed(
    m1: Manager, worker: RpcClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "IDLE_S_MAX", 0.05)
    held = asyncio.create_task(worker.call(m1.address, "test.hold", b"", timeout=30))
    await m1.held.acquire()
    await asyncio.sleep(0.2)
    assert m1.connections == 1, "it is not idle while a call is on its way"
    m1.release.set()
    await held
    await until(lambda: m1.connections == 0)
    assert await worker.call(m1.address, "test.echo", b"again", timeout=30) == b"again"


# ---- no answer -------------------------------------------------------------------------------------------


async def test_lost_connection_leaves_a_doubt_and_is_not_used_again(m1: Manager, worker: RpcClient) -> None:
    port = m1.server.port
    sent = asyncio.create_task(failure(worker, m1.address))
    await m1.held.acquire()
    await m1.server.stop()
    error = await sent
    assert error.code == "maybe_committed"
    assert f"no answer from 127.0.0.1:{port} to test.hold" in str(error)
    assert (await failure(worker, f"127.0.0.1:{port}")).code == "unavailable"
    await m1.server.start("127.0.0.1", port)
    assert await worker.call(m1.address, "test.echo", b"again", timeout=30) == b"again"


async def test_what_was_never_handed_over_leaves_no_doubt(tmp_path: Path, worker: RpcClient) -> None:
    async with mute(node_tls(tmp_path, "m9", MANAGER)) as (peer, address):
        first = asyncio.create_task(failure(worker, address, bytes(BIG)))
        await until(lambda: bool(worker._calls._open))
        (connection,) = worker._calls._open.values()
        await until_stuck(connection)
        second = asyncio.create_task(failure(worker, address, b"small"))
        third = await failure(worker, address, b"small", timeout=0.1)
        peer.hang_up()
        assert [(await first).code, (await second).code, third.code] == [
            *("maybe_committed", "unavailable", "unavailable")
        ]


async def test_peer_that_does_not_read_stops_nobody_else(
    m1: Manager, tmp_path: Path, worker: RpcClient
) -> None:
    async with mute(node_tls(tmp_path, "m9", MANAGER)) as (peer, address):
        stuck = [asyncio.create_task(failure(worker, address, bytes(BODY_BYTES_MAX))) for _ in range(2)]
        await until(lambda: bool(worker._calls._open))
        (connection,) = worker._calls._open.values()
        await until_stuck(connection)
        error = await failure(worker, address, bytes(BODY_BYTES_MAX))
        assert (error.code, "reads too slowly" in str(error)) == ("unavailable", True)
        assert await worker.call(m1.address, "test.echo", b"well", timeout=30) == b"well"
        peer.hang_up()
        await asyncio.gather(*stuck)
        assert connection.waiting_bytes == 0


async def test_silent_connection_is_not_used_for_the_next_call(tmp_path: Path, worker: RpcClient) -> None:
    async with mute(node_tls(tmp_path, "m9", MANAGER)) as (peer, address):
        for expected in (1, 2):
            error = await failure(worker, address, timeout=0.3)
            assert (error.code, "timed out" in str(error)) == ("maybe_committed", True)
            assert len(peer.writers) == expected


async def test_call_that_times_out_where_others_are_answered_keeps_the_connection(
    m1: Manager, worker: RpcClient
) -> None:
    late = asyncio.create_task(failure(worker, m1.address, timeout=1.0))
    await m1.held.acquire()
    await worker.call(m1.address, "test.echo", b"", timeout=30)
    assert (await late).code == "maybe_committed"
    await worker.call(m1.address, "test.echo", b"", timeout=30)
    assert m1.connections == 1


async def test_cancelled_caller_abandons_its_own_call_only(m1: Manager, worker: RpcClient) -> None:
    callers = [
        asyncio.create_task(worker.call(m1.address, "test.hold", name, timeout=30))
        for name in (b"gone", b"stays")
    ]
    for _ in callers:
        await m1.held.acquire()
    callers[0].cancel()
    await asyncio.gather(callers[0], return_exceptions=True)
    await worker.call(m1.address, "test.echo", b"", timeout=30)
    m1.release.set()
    assert await callers[1] == b"stays"
    assert sorted(m1.effects) == [b"gone", b"stays"], "the handler runs to its end"
    (connection,) = worker._calls._open.values()
    assert connection._calls == {}


async def test_caller_that_gives_up_dialling_does_not_disturb_who_also_waits(
    m1: Manager, worker: RpcClient
) -> None:
    first, second = (
        asyncio.create_task(worker.call(m1.address, "test.echo", name, timeout=30)) for name in (b"1", b"2")
    )
    await asyncio.sleep(0)
    first.cancel()
    assert await second == b"2"
    assert first.cancelled() and m1.connections == 1


# ---- bounds and refusals ---------------------------------------------------------------------------------


async def test_number_of_calls_is_bounded_on_both_sides(
    m1: Manager, worker: RpcClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "CALLS_MAX", 2)
    held = [
        asyncio.create_task(worker.call(m1.address, "test.hold", b"", timeout=30)),
        asyncio.create_task(worker.call(m1.address, "test.hold", b"abandoned", timeout=30)),
    ]
    for _ in held:
        await m1.held.acquire()
    error = await failure(worker, m1.address)
    assert (error.code, "on their way" in str(error)) == ("unavailable", True)
    held[1].cancel()
    await asyncio.gather(held[1], return_exceptions=True)
    error = await failure(worker, m1.address)
    m1.release.set()
    assert await held[0] == b""
    assert error.code == "unavailable" and "of node w1 are being handled" in str(error)


async def test_bytes_of_requests_are_bounded_by_the_server(
    m1: Manager, worker: RpcClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "REQUEST_BYTES_MAX", 3 * PART_BYTES)
    held = asyncio.create_task(worker.call(m1.address, "test.hold", bytes(2 * PART_BYTES), timeout=30))
    await m1.held.acquire()
    error = await failure(worker, m1.address, bytes(2 * PART_BYTES))
    assert (error.code, f"{2 * PART_BYTES} bytes are being handled" in str(error)) == ("unavailable", True)
    m1.release.set()
    assert len(await held) == 2 * PART_BYTES
    assert (
        len(await worker.call(m1.address, "test.echo", bytes(2 * PART_BYTES), timeout=30)) == 2 * PART_BYTES
    )


async def test_refused_caller_does_not_send_the_rest(m1: Manager, worker: RpcClient) -> None:
    with pytest.raises(RpcError, match="not allowed for node w1"):
        await worker.call(m1.address, "test.managers", bytes(BIG), timeout=30)
    (connection,) = worker._calls._open.values()
    assert connection.waiting_bytes == 0
    assert await worker.call(m1.address, "test.echo", b"well", timeout=30) == b"well"


async def test_too_long_an_answer_is_told_as_such(m1: Manager, worker: RpcClient) -> None:
    async def long(_caller: Identity | None, _payload: bytes) -> bytes:
        return bytes(BODY_BYTES_MAX + 1)

    m1.server.handle("test.long", long, roles=NODES)
    with pytest.raises(RpcError, match=f"test.long has {BODY_BYTES_MAX + 1} bytes") as caught:
        await worker.call(m1.address, "test.long", b"", timeout=30)
    assert caught.value.code == "maybe_committed", "the handler ran"


async def test_answers_that_nobody_reads_are_bounded(m1: Manager, tmp_path: Path) -> None:
    """A caller that takes nothing: the third answer is not kept, whatever the client would like."""
    m1.server.handle("test.large", lambda _caller, _payload: large(), roles=NODES)

    async def large() -> bytes:
        return bytes(BODY_BYTES_MAX)

    _, writer = await asyncio.open_connection(
        "127.0.0.1", m1.server.port, ssl=node_tls(tmp_path, "w2").calls(), server_hostname="", limit=1024
    )
    await until(lambda: bool(m1.server._transports))
    (accepted,) = m1.server._transports
    connection = accepted.get_protocol()
    assert isinstance(connection, FrameConnection)
    for number in range(1, 9):
        writer.write(frame(REQUEST, number, struct.pack(">I", 0) + b"\x0atest.large"))
    await until(lambda: bool(connection.waiting_bytes))
    await until(lambda: not m1.server._calls._handlers)
    assert 0 < connection.waiting_bytes <= WAITING_BYTES_MAX
    writer.transport.abort()
    await until(lambda: not connection.is_open)
    assert connection.waiting_bytes == 0


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff" * 20,
        b"POST /call/test.echo HTTP/1.1\r\n\r\n",
        frame(REQUEST, 1, b"abc"),
        frame(REQUEST, 1, struct.pack(">I", 3) + b"\x09test"),
        frame(REQUEST, 1, struct.pack(">I", 1) + b"\x09test.hold" + b"too long"),
        frame(REQUEST, 1, struct.pack(">I", 0) + b"\x09test.hold") + frame(PART, 1, b"more"),
        frame(REQUEST, 1, struct.pack(">I", 0) + b"\x09test.hold") * 2,
        frame(99, 1, b""),
    ],
)
async def test_who_sends_no_calls_is_hung_up_on(
    m1: Manager, tmp_path: Path, worker: RpcClient, garbage: bytes
) -> None:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", m1.server.port, ssl=node_tls(tmp_path, "w2").calls(), server_hostname=""
    )
    writer.write(garbage)
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(30):
            await reader.read()
    writer.close()
    assert await worker.call(m1.address, "test.echo", b"well", timeout=30) == b"well"


async def test_oversize_request_is_refused_by_the_server(m1: Manager, tmp_path: Path) -> None:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", m1.server.port, ssl=node_tls(tmp_path, "w2").calls(), server_hostname=""
    )
    writer.write(frame(REQUEST, 1, struct.pack(">I", BODY_BYTES_MAX + 1) + b"\x09test.echo"))
    async with asyncio.timeout(30):
        answer = await reader.readuntil(b"}")
    assert b"invalid_argument" in answer and str(BODY_BYTES_MAX).encode() in answer
    writer.transport.abort()


async def test_nobody_calls_without_a_certificate(m1: Manager, tmp_path: Path) -> None:
    context = without_certificate(node_tls(tmp_path, "w2"), ALPN_CALLS)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", m1.server.port, ssl=context, server_hostname=""
    )
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(30):
            assert await reader.read() == b""
    writer.close()


async def test_peer_of_another_version_is_named(tmp_path: Path, worker: RpcClient) -> None:
    tls = node_tls(tmp_path, "m9", MANAGER)
    tls._server.set_alpn_protocols([ALPN_HTTP])
    async with mute(tls) as (_, address):
        error = await failure(worker, address)
    assert error.code == "unavailable"
    assert f"{address} does not offer {ALPN_CALLS}" in str(error)


# ---- certificates, and the end ---------------------------------------------------------------------------


async def test_renewed_certificate_gets_a_new_connection_and_the_old_one_goes_when_it_is_idle(
    m1: Manager, tmp_path: Path
) -> None:
    tls = node_tls(tmp_path, "w1")
    async with calling(tls) as client:
        held = asyncio.create_task(client.call(m1.address, "test.hold", b"old", timeout=30))
        await m1.held.acquire()
        (before,) = client._calls._open.values()
        tls.reload()
        await client.call(m1.address, "test.echo", b"", timeout=30)
        (after,) = client._calls._open.values()
        assert before is not after and before.is_open
        m1.release.set()
        assert await held == b"old"
        assert after.is_open and not before.is_open
        await until(lambda: m1.connections == 1)


async def test_certificate_renewed_while_a_connection_is_made(m1: Manager, tmp_path: Path) -> None:
    tls = node_tls(tmp_path, "w1")
    async with calling(tls) as client:
        early = asyncio.create_task(client.call(m1.address, "test.echo", b"early", timeout=30))
        await asyncio.sleep(0)
        tls.reload()
        late = asyncio.create_task(client.call(m1.address, "test.echo", b"late", timeout=30))
        assert [await early, await late] == [b"early", b"late"]
        assert client._calls._context is tls.calls()


async def test_stopped_server_waits_for_no_handler_for_ever(m1: Manager, worker: RpcClient) -> None:
    sent = asyncio.create_task(failure(worker, m1.address))
    await m1.held.acquire()
    async with asyncio.timeout(30):
        await m1.server.stop()
    assert (await sent).code == "maybe_committed"
    assert m1.effects == [] and not m1.server._calls._handlers


async def test_closed_client_lets_calls_end_and_begins_no_more(m1: Manager, tmp_path: Path) -> None:
    client = RpcClient(node_tls(tmp_path, "w1"))
    held = asyncio.create_task(client.call(m1.address, "test.hold", b"last", timeout=30))
    await m1.held.acquire()
    dialling = asyncio.create_task(failure(client, "127.0.0.1:1"))
    await client.close()
    assert (await dialling).code == (await failure(client, m1.address)).code == "unavailable"
    m1.release.set()
    assert await held == b"last"
    await until(lambda: m1.connections == 0)
