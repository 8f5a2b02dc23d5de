"""Raft connections over real TLS on the loopback: who is turned away, on either side, and what never arrives."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import ssl
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from node.ca.tls import NodeTls
from node.rpc import ALPN_HTTP, ALPN_RAFT, MANAGER, WORKER, RpcClient, RpcServer
from raft import messages, transport
from raft.messages import PROTOCOL_VERSION, Alive, AnyMessage, Hello
from raft.transport import FRAME_BYTES_MAX, Links
from tests.integration.test_rpc_tls import OTHER_ROOT, ROOT, node_tls

LONG_AGO_S = 91 * 24 * 3600


class Listener:
    """Manager m1 as the others see it: what it took from whom."""

    def __init__(self, tls: NodeTls) -> None:
        self.taken: list[tuple[str, AnyMessage]] = []
        self.links = Links(Hello(0, PROTOCOL_VERSION, "c1", "m1", ""), RpcClient(tls), self)
        self.server = RpcServer(tls)
        self.server.on_raft(self.links.accept)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    def on_message(self, node_id: str, message: AnyMessage) -> None:
        self.taken.append((node_id, message))

    def on_connected(self, node_id: str) -> None: ...

    def on_disconnected(self, node_id: str) -> None: ...

    def on_inbound_lost(self, node_id: str) -> None: ...


@pytest.fixture
async def m1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Listener]:
    monkeypatch.setattr(transport, "HELLO_TIMEOUT_S", 0.5)
    made = Listener(node_tls(tmp_path, "m1", MANAGER))
    await made.server.start("127.0.0.1", 0)
    yield made
    await made.links.close()
    await made.server.stop()


def frame(payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + payload


def greeting(node_id: str = "m2", cluster_id: str = "c1") -> bytes:
    return frame(messages.encode(Hello(0, PROTOCOL_VERSION, cluster_id, node_id, "")))


ALIVE = frame(messages.encode(Alive(99, 1)))


async def send(m1: Listener, context: ssl.SSLContext | None, data: bytes) -> None:
    """Until m1 hangs up, in the handshake or later."""
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", m1.server.port, ssl=context, server_hostname="" if context else None
        )
        writer.write(data)
        async with asyncio.timeout(15):
            await reader.read()
        writer.close()


async def assert_m1_is_well(m1: Listener, tmp_path: Path) -> None:
    """A real manager gets through, and nothing else did before."""
    caller = RpcClient(node_tls(tmp_path, "m2", MANAGER))
    _, writer = await caller.dial("m1", m1.address)
    writer.write(greeting() + ALIVE)
    async with asyncio.timeout(5):
        while not m1.taken:
            await asyncio.sleep(0.005)
    assert m1.taken == [("m2", Alive(99, 1))]
    writer.close()
    await caller.close()


def without_certificate(tls: NodeTls, protocol: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=tls.credentials.root_pem)
    context.set_alpn_protocols([protocol])
    return context


@pytest.mark.parametrize(
    "who", ["worker", "other root", "other cluster", "expired", "nobody", "nobody over http", "plaintext"]
)
async def test_caller_that_is_no_manager_of_this_cluster_is_not_heard(m1: Listener, tmp_path: Path, who: str):
    bad = node_tls(
        tmp_path / "bad",
        "m2",
        WORKER if who == "worker" else MANAGER,
        signer=OTHER_ROOT if who == "other root" else None,
        cluster_id="c2" if who == "other cluster" else "c1",
        now=time.time() - LONG_AGO_S if who == "expired" else None,
    )
    context: ssl.SSLContext | None = bad.raft()
    if who == "other cluster":
        # It would refuse m1 by itself: let it look the other way.
        context = node_tls(tmp_path / "blind", "m2", MANAGER).raft()
        context.load_cert_chain(tmp_path / "bad/m2/node.crt", tmp_path / "bad/m2/node.key")
    elif who.startswith("nobody"):
        context = without_certificate(bad, ALPN_RAFT if who == "nobody" else ALPN_HTTP)
    elif who == "plaintext":
        context = None
    await send(m1, context, greeting() + ALIVE)
    await assert_m1_is_well(m1, tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        greeting("m3") + ALIVE,
        greeting(cluster_id="c2") + ALIVE,
        ALIVE,
        b"GET / HTTP/1.1\r\nHost: m1\r\n\r\n",
        bytes(range(256)) * 64,
        frame(pickle.dumps({"type": "append_entries", "term": 99})),
        greeting() + struct.pack(">I", FRAME_BYTES_MAX + 1) + bytes(1000),
        greeting() + struct.pack(">I", 0),
        greeting() + frame(b"\xc1 no message"),
        greeting() + frame(pickle.dumps({"type": "append_entries", "term": 99})) + ALIVE,
    ],
    ids=[
        *("another name", "another cluster", "no greeting", "http", "garbage", "pickle"),
        *("oversize", "empty", "garbage later", "pickle later"),
    ],
)
async def test_manager_that_sends_what_is_no_message_is_hung_up_on(m1: Listener, tmp_path: Path, data: bytes):
    await send(m1, node_tls(tmp_path, "m2", MANAGER).raft(), data)
    await assert_m1_is_well(m1, tmp_path)


async def test_manager_that_does_not_finish_its_greeting_is_hung_up_on(m1: Listener, tmp_path: Path):
    await send(m1, node_tls(tmp_path, "m2", MANAGER).raft(), greeting()[:5])
    await assert_m1_is_well(m1, tmp_path)


# ---- who is dialled ----


class Impostor:
    """Listens where m2 should be, and notes what it is told after the handshake."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self.context = context
        self.heard = b""
        self.ended = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            if self.context is None:
                writer.write(b"220 m2 is ready\r\n")
            self.heard += await reader.read()
        writer.close()
        self.ended.set()


@pytest.mark.parametrize("who", ["m3", "worker", "other root", "other cluster", "expired", "plaintext"])
async def test_dialled_node_that_is_not_the_one_meant_hears_nothing(tmp_path: Path, who: str):
    tls = node_tls(
        tmp_path / "impostor",
        "m3" if who == "m3" else "m2",
        WORKER if who == "worker" else MANAGER,
        root=OTHER_ROOT if who == "other root" else ROOT,
        cluster_id="c2" if who == "other cluster" else "c1",
        now=time.time() - LONG_AGO_S if who == "expired" else None,
    )
    context = None
    if who != "plaintext":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # asks nobody who he is
        context.load_cert_chain(
            *(tmp_path / f"impostor/{tls.identity.node_id}" / f"node.{e}" for e in ("crt", "key"))
        )
        context.set_alpn_protocols([ALPN_RAFT])
    impostor = Impostor(context)
    server = await asyncio.start_server(impostor.serve, "127.0.0.1", 0, ssl=context)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    caller = RpcClient(node_tls(tmp_path, "m1", MANAGER))
    with pytest.raises(OSError) as caught:
        await caller.dial("m2", address)
    if who == "m3":
        assert str(caught.value) == f"{address} is node m3, not node m2"
    await caller.close()
    server.close()
    if who == "plaintext":
        await impostor.ended.wait()
        assert b"m1" not in impostor.heard  # a greeting of TLS is all
    else:
        assert impostor.heard == b""
