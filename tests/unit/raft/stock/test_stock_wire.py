"""Hole F: bytes of anybody become objects. A harmless pickle shows whether what arrives is executed."""

from __future__ import annotations

import asyncio
import pickle
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.encryptor import getEncryptor

from raft import messages
from raft.codec import COMMAND_BYTES_MAX
from raft.messages import PROTOCOL_VERSION, AnyMessage, Hello
from raft.replication import REGULAR
from raft.stock import BATCH_BYTES
from raft.syncobj import PROPOSAL_ID_BYTES
from raft.transport import Links
from tests.unit.raft.stock.engine import EngineWorld
from tests.unit.raft.stock.library import LibraryWorld, Numbers
from tests.unit.raft.stock.world import World

ran: list[str] = []


def run_by_the_receiver(what: str) -> str:
    ran.append(what)
    return what


class Payload:
    """Calls a function of this module where it is unpickled."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __reduce__(self) -> tuple[Callable[[str], str], tuple[str]]:
        return run_by_the_receiver, (self.what,)


@pytest.fixture(autouse=True)
def nothing_ran() -> Iterator[None]:
    ran.clear()
    yield
    ran.clear()


# ---- the stock transport, on the loopback ----


@pytest.fixture
def listening() -> Iterator[Callable[..., tuple[SyncObj, int]]]:
    """Starts a stock node of a cluster of two on a free port."""
    nodes: list[SyncObj] = []

    def start(**settings: Any) -> tuple[SyncObj, int]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        conf = SyncObjConf(autoTick=False, bindAddress=f"127.0.0.1:{port}", **settings)
        nodes.append(Numbers(f"127.0.0.1:{port}", ["127.0.0.1:1"], conf))
        nodes[-1].doTick(0)
        return nodes[-1], port

    yield start
    for node in nodes:
        node.destroy()
        node.doTick(0)


def ticks_until(node: SyncObj, condition: Callable[[], object]) -> None:
    for _ in range(500):
        if condition():
            return
        node.doTick(0.01)
    raise AssertionError("did not happen")


def frame(data: bytes) -> bytes:
    return struct.pack("i", len(data)) + data


def test_f_stock_transport_runs_what_a_stranger_sends(listening: Callable[..., tuple[SyncObj, int]]):
    """The first bytes of a connection, before it said who it is."""
    node, port = listening()
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(frame(zlib.compress(pickle.dumps(Payload("code of a stranger")))))
        ticks_until(node, lambda: ran)
    assert ran == ["code of a stranger"]


def test_f_stock_password_is_one_key_for_everybody(listening: Callable[..., tuple[SyncObj, int]]):
    """Its salt is constant: who knows the password of one cluster has the key of every one with that password,
    and whoever has it can run code on every manager, whatever it calls itself."""
    node, port = listening(password="s3cret")
    sealed = getEncryptor("s3cret").encrypt(zlib.compress(pickle.dumps(Payload("code of an insider"))))
    with socket.create_connection(("127.0.0.1", port)) as insider:
        insider.sendall(frame(sealed))
        ticks_until(node, lambda: ran)
    assert ran == ["code of an insider"]


# ---- ours ----


class Nobody:
    """Is told of messages and connections, dials none."""

    def __init__(self) -> None:
        self.messages: list[AnyMessage] = []

    async def dial(self, node_id: str, address: str) -> Any:
        raise ConnectionRefusedError

    def on_message(self, node_id: str, message: AnyMessage) -> None:
        self.messages.append(message)

    def on_connected(self, node_id: str) -> None: ...

    def on_disconnected(self, node_id: str) -> None: ...

    def on_inbound_lost(self, node_id: str) -> None: ...


@pytest.mark.parametrize("after_hello", [False, True])
async def test_f_our_transport_ends_the_connection_and_runs_nothing(after_hello: bool):
    nobody = Nobody()
    links = Links(Hello(0, PROTOCOL_VERSION, "c1", "a", "a:1"), nobody, nobody)
    near, far = socket.socketpair()
    links.accept("b", *await asyncio.open_connection(sock=far))
    reader, writer = await asyncio.open_connection(sock=near)
    if after_hello:
        hello = messages.encode(Hello(0, PROTOCOL_VERSION, "c1", "b", "b:1"))
        writer.write(struct.pack(">I", len(hello)) + hello)
    payload = pickle.dumps(Payload("code of a member"))
    writer.write(struct.pack(">I", len(payload)) + payload)
    # What a's side does is to hang up.
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    assert nobody.messages == []
    assert ran == []
    writer.close()
    await links.close()


# ---- large commands ----


def test_large_command_is_unpickled_by_the_stock_class_whatever_the_transport(stock: LibraryWorld):
    """Our own transport in front of it would not help: the pieces are put together and unpickled inside."""
    stock.start("a", "b", "c")
    stock.elect("a")
    stock.run(0.3)
    for transmission, data in (("start", b""), ("finish", pickle.dumps(Payload("code of a member")))):
        message = {
            "type": "append_entries",
            "transmission": transmission,
            "data": data,
            "term": stock.term("a"),
            "commit_index": 1,
            "prevLogIdx": 1,
            "prevLogTerm": 0,
        }
        stock._guarded("b", lambda message=message: stock.inject("a", "b", message))
    assert ran == ["code of a member"]


def written(world: World) -> tuple[bool, list[str]]:
    """A command that fits into two batches of PySyncObj's, while the pickle around it does not."""
    world.start("a", "b", "c")
    world.elect("a")
    world.run(0.3)
    write = world.propose("a", 2 * 2**16 - 100)
    world.run(2.0)
    raised = [type(err).__name__ for _, err in world.raised] if isinstance(world, LibraryWorld) else []
    return write.acknowledged, raised


def test_large_command_whose_pickle_is_longer_than_its_batches_raises_in_stock_followers(stock: LibraryWorld):
    """The last piece but one is marked as the last: what is there by then is no pickle."""
    acknowledged, raised = written(stock)
    assert set(raised) == {"EOFError"}
    assert acknowledged


@pytest.mark.usefixtures("no_pickle")
def test_large_command_is_plain_bytes_in_ours(ours: EngineWorld):
    assert written(ours) == (True, [])


def test_no_command_that_is_allowed_is_large_to_the_stock_class_in_ours():
    """One that fills a batch would be pickled."""
    assert COMMAND_BYTES_MAX + len(REGULAR) + PROPOSAL_ID_BYTES < BATCH_BYTES
