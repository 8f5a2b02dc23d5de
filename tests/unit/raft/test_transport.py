"""Connections between managers over socket pairs: order, replacement, hostile bytes, bounds."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import socket
import struct
from collections.abc import AsyncIterator

import pytest

from raft import messages, transport
from raft.messages import PROTOCOL_VERSION, Alive, AnyMessage, Hello
from raft.transport import Links


class Recorder:
    def __init__(self) -> None:
        self.messages: list[tuple[str, AnyMessage]] = []
        self.events: list[str] = []

    def on_message(self, node_id: str, message: AnyMessage) -> None:
        self.messages.append((node_id, message))

    def on_connected(self, node_id: str) -> None:
        self.events.append(f"connected {node_id}")

    def on_disconnected(self, node_id: str) -> None:
        self.events.append(f"disconnected {node_id}")

    def on_inbound_lost(self, node_id: str) -> None:
        self.events.append(f"lost {node_id}")


class Switchboard:
    """Dials by handing the other end of a socket pair to the target."""

    def __init__(self) -> None:
        self.links: dict[str, Links] = {}
        self.recorders: dict[str, Recorder] = {}
        self.refused: set[str] = set()
        self.dialled: list[tuple[str, str, str]] = []

    def add(self, node_id: str, cluster_id: str = "c1") -> Links:
        hello = Hello(0, PROTOCOL_VERSION, cluster_id, node_id, f"{node_id}:2377")
        self.recorders[node_id] = Recorder()
        self.links[node_id] = Links(hello, _Dialer(self, node_id), self.recorders[node_id])
        return self.links[node_id]


class _Dialer:
    def __init__(self, switchboard: Switchboard, source: str) -> None:
        self._switchboard = switchboard
        self._source = source

    async def dial(self, node_id: str, address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self._switchboard.dialled.append((self._source, node_id, address))
        if node_id in self._switchboard.refused or node_id not in self._switchboard.links:
            raise ConnectionRefusedError(f"{node_id} does not listen")
        near, far = socket.socketpair()
        far_reader, far_writer = await asyncio.open_connection(sock=far)
        self._switchboard.links[node_id].accept(self._source, far_reader, far_writer)
        return await asyncio.open_connection(sock=near)


async def until(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture
async def board() -> AsyncIterator[Switchboard]:
    made = Switchboard()
    yield made
    for links in made.links.values():
        await links.close()


async def raw_connection(links: Links, node_id: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    near, far = socket.socketpair()
    links.accept(node_id, *await asyncio.open_connection(sock=far))
    return await asyncio.open_connection(sock=near)


def frame(payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + payload


def hello(node_id: str, cluster_id: str = "c1", version: int = PROTOCOL_VERSION) -> bytes:
    return frame(messages.encode(Hello(0, version, cluster_id, node_id, f"{node_id}:2377")))


async def test_messages_arrive_in_order(board: Switchboard):
    a, _ = board.add("a"), board.add("b")
    a.set_peers({"b": "b:2377"})
    await until(lambda: board.recorders["a"].events == ["connected b"])
    for i in range(500):
        a.send("b", Alive(1, i))
    seen = board.recorders["b"].messages
    await until(lambda: len(seen) == 500)
    assert seen == [("a", Alive(1, i)) for i in range(500)]


async def test_message_without_a_connection_is_dropped(board: Switchboard):
    a = board.add("a")
    a.send("b", Alive(1, 1))
    a.set_peers({"b": "b:2377"})
    a.send("b", Alive(1, 1))
    board.add("b")
    await until(lambda: board.recorders["a"].events == ["connected b"])
    a.send("b", Alive(1, 2))
    await until(lambda: board.recorders["b"].messages)
    assert board.recorders["b"].messages == [("a", Alive(1, 2))]


async def test_lost_connection_is_reported_and_dialled_again(board: Switchboard):
    a, b = board.add("a"), board.add("b")
    a.set_peers({"b": "b:2377"})
    await until(lambda: board.recorders["a"].events)
    del board.links["b"]
    await b.close()
    await until(lambda: board.recorders["a"].events == ["connected b", "disconnected b"])
    board.add("b")
    await until(lambda: board.recorders["a"].events[-1] == "connected b")
    a.send("b", Alive(1, 1))
    await until(lambda: board.recorders["b"].messages == [("a", Alive(1, 1))])


async def test_changed_address_is_dialled(board: Switchboard):
    a, b = board.add("a"), board.add("b")
    a.set_peers({"b": "b:2377"})
    await until(lambda: board.recorders["a"].events == ["connected b"])
    # What b says of its own address must have arrived before: later it would be news.
    await until(lambda: board.recorders["b"].events == ["connected a"])
    b.send("a", Alive(1, 1))
    await until(lambda: board.recorders["a"].messages)
    a.set_peers({"b": "new:1"})

    def own() -> list[str]:
        return [event for event in board.recorders["a"].events if not event.startswith("lost")]

    await until(lambda: own() == ["connected b", "disconnected b", "connected b"])
    assert [address for source, _, address in board.dialled if source == "a"] == ["b:2377", "new:1"]
    a.set_peers({})
    await until(lambda: own()[-1] == "disconnected b")


async def test_member_that_says_it_has_moved_is_followed_before_that_is_agreed_on(board: Switchboard):
    a, b = board.add("a"), board.add("b")
    a.set_peers({"b": "old:1"})
    b.set_peers({"a": "a:2377"})
    await until(lambda: ("a", "b", "b:2377") in board.dialled)
    dialled = len(board.dialled)
    await until(lambda: board.recorders["a"].events[-1] == "connected b")
    a.set_peers({"b": "b:2377"})
    a.send("b", Alive(3, 3))
    await until(lambda: board.recorders["b"].messages == [("a", Alive(3, 3))])
    assert len(board.dialled) == dialled


async def test_unknown_sender_is_dialled_back_while_it_is_connected(board: Switchboard):
    a, b = board.add("a"), board.add("b")
    a.set_peers({"b": "b:2377"})
    await until(lambda: ("b", "a", "a:2377") in board.dialled)
    await until(lambda: board.recorders["b"].events == ["connected a"])
    b.send("a", Alive(3, 3))
    await until(lambda: board.recorders["a"].messages == [("b", Alive(3, 3))])
    a.set_peers({})
    await until(lambda: "disconnected a" in board.recorders["b"].events)


async def test_newer_connection_of_a_peer_replaces_the_older(board: Switchboard):
    a = board.add("a")
    _, first = await raw_connection(a, "b")
    first.write(hello("b") + frame(messages.encode(Alive(1, 1))))
    await until(lambda: board.recorders["a"].messages)
    _, second = await raw_connection(a, "b")
    first.write(frame(messages.encode(Alive(1, 2))))
    second.write(hello("b") + frame(messages.encode(Alive(1, 3))))
    await until(lambda: len(board.recorders["a"].messages) == 2)
    assert [m.round for _, m in board.recorders["a"].messages] == [1, 3]
    assert "lost b" not in board.recorders["a"].events
    second.close()
    await until(lambda: "lost b" in board.recorders["a"].events)
    first.close()


class Bomb:
    def __reduce__(self):
        return (print, ("unpickled",))


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">I", 0),
        struct.pack(">I", transport.FRAME_BYTES_MAX + 1),
        frame(b"garbage"),
        frame(pickle.dumps(Bomb())),
        frame(pickle.dumps({"type": "append_entries", "term": 99})),
        frame(messages.encode(Alive(1, 1))),
        hello("c"),
        hello("b", cluster_id="other"),
        hello("b", version=99),
        hello("b") + frame(b"\xc1"),
        hello("b") + frame(b"\x92\xa5alive\xa1x"),
        hello("b") + struct.pack(">I", 0xFFFFFFFF),
    ],
)
@pytest.mark.usefixtures("no_pickle")
async def test_hostile_bytes_end_the_connection_and_deliver_nothing(board: Switchboard, data: bytes):
    a = board.add("a")
    reader, writer = await raw_connection(a, "b")
    writer.write(data)
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 5) == b""
    assert board.recorders["a"].messages == []
    writer.close()


async def test_stuck_peer_does_not_take_all_memory(board: Switchboard, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transport, "BUFFER_BYTES_MAX", 2_000_000)
    monkeypatch.setattr(transport, "CONGESTED_BYTES", 500_000)
    near, far = socket.socketpair()  # nobody reads the far end

    class Mute:
        async def dial(self, node_id: str, address: str):
            return await asyncio.open_connection(sock=near)

    recorder = Recorder()
    links = Links(Hello(0, PROTOCOL_VERSION, "c1", "a", "a:1"), Mute(), recorder)
    links.set_peers({"b": "b:1"})
    await until(lambda: recorder.events == ["connected b"])
    big = messages.SnapshotChunk(1, 1, 1, 1, messages.Configuration(), 9, 9, 0, b"x" * 1_000_000)
    for _ in range(2):
        links.send("b", big)
    assert links.congested("b")
    for _ in range(5):
        links.send("b", big)
    await until(lambda: "disconnected b" in recorder.events)
    await links.close()
    far.close()


async def test_closing_while_a_dial_ends_is_not_forgotten():
    """Both in one turn of the event loop: the dial is refused, and the links are closed."""

    class Dialer:
        async def dial(self, node_id: str, address: str):
            return await dialled

    dialled = asyncio.get_running_loop().create_future()
    links = Links(Hello(0, PROTOCOL_VERSION, "c1", "a", "a:2377"), Dialer(), Recorder())
    links.set_peers({"b": "b:2377"})
    await asyncio.sleep(0.01)
    dialled.set_exception(ConnectionRefusedError())
    closing = asyncio.create_task(links.close())
    done, _ = await asyncio.wait({closing}, timeout=2)
    assert done
