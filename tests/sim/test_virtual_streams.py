"""Streams over the simulated network: order, pieces, ends that are told, late bytes and stale readers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.sim.clock import Events, NodeClock, Turns
from tests.sim.loop import NodeLoop
from tests.sim.network import LATE_S, Network
from tests.sim.streams import Reader, Writer

DATA = [f"message {i:03d} ".encode() for i in range(300)]
FRAME = len(DATA[0])


class Node:
    """Accepts connections and collects what arrives on each, "end" when it has ended."""

    def __init__(self, world: World, node_id: str) -> None:
        self.id = node_id
        self.address = node_id + ":1"
        self.up = True
        self.writing_s = 0.0
        self.era = 0
        self.loop = NodeLoop(world.events, NodeClock(world.events, node_id), world.turns, self)
        self.connections: list[tuple[list[Any], Writer]] = []
        self.stale_reads = 0

    def after_burst(self) -> float:
        return 0.0

    def after_job(self) -> None:
        """No threads here."""

    def accept(self, source: str, reader: Reader, writer: Writer) -> None:
        arrived: list[Any] = []
        self.connections.append((arrived, writer))
        self.loop.create_task(self._collect(reader, arrived))

    def read_stale(self) -> None:
        self.stale_reads += 1

    async def _collect(self, reader: Reader, arrived: list[Any]) -> None:
        try:
            while True:
                arrived.append(await reader.readexactly(FRAME))
        except (EOFError, OSError):
            arrived.append("end")


class World:
    def __init__(self) -> None:
        self.events = Events()
        self.turns = Turns(1)
        self.network = Network(self.events, 1)
        self.a, self.b = Node(self, "a"), Node(self, "b")
        for node in (self.a, self.b):
            self.network.add(node.id, node)

    def run(self, seconds: float) -> None:
        until = self.events.now + seconds
        while (action := self.events.next(until)) is not None:
            action()

    def dial(self, address: str = "b:1") -> asyncio.Task[tuple[Reader, Writer]]:
        task: asyncio.Task[tuple[Reader, Writer]] = self.a.loop.create_task(
            self.network.dial("a", "b", address)
        )
        return task

    def connect(self) -> tuple[Reader, Writer]:
        task = self.dial()
        self.run(0.5)
        return task.result()


@pytest.fixture
def world() -> World:
    return World()


def test_bytes_arrive_in_order_whatever_the_pieces(world: World) -> None:
    _, writer = world.connect()
    for data in DATA:
        writer.write(data)
    assert writer.get_write_buffer_size() == FRAME * len(DATA)
    world.run(2.0)
    assert world.b.connections[0][0] == DATA
    assert writer.get_write_buffer_size() == 0


def test_close_arrives_behind_the_bytes_and_nothing_after_it(world: World) -> None:
    _, writer = world.connect()
    writer.write(DATA[0])
    writer.close()
    writer.write(DATA[1])
    assert writer.is_closing()
    world.run(0.5)
    assert world.b.connections[0][0] == [DATA[0], "end"]


def test_aborted_connection_loses_what_is_on_its_way(world: World) -> None:
    _, writer = world.connect()
    writer.write(DATA[0])
    writer.transport.abort()
    world.run(0.5)
    assert world.b.connections[0][0] == ["end"]


def test_far_end_that_closes_is_noticed(world: World) -> None:
    reader, writer = world.connect()
    world.b.connections[0][1].close()
    read = world.a.loop.create_task(reader.read(1))
    world.run(0.5)
    assert read.result() == b""
    assert writer.is_closing()


def test_nobody_listens_or_the_address_is_another(world: World) -> None:
    dialled = [world.dial("b:2")]
    world.run(0.5)
    world.b.up = False
    dialled.append(world.dial())
    world.run(0.5)
    assert [type(task.exception()) for task in dialled] == [ConnectionRefusedError] * 2


def test_cut_ends_both_ends_and_dials_wait_for_its_end(world: World) -> None:
    reader, writer = world.connect()
    world.network.cut([("a", "b")], 3.0)
    writer.write(DATA[0])
    read = world.a.loop.create_task(reader.read())
    world.run(LATE_S)
    assert world.b.connections[0][0] == ["end"]
    assert read.done()
    again = [world.dial() for _ in range(10)]
    world.run(1.0)
    refused = [task for task in again if task.done()]
    assert all(isinstance(task.exception(), ConnectionRefusedError) for task in refused)
    world.run(1.5)
    assert len(world.b.connections) == 1 + len(again) - len(refused) > 1


def test_other_direction_of_a_cut_link_goes_on(world: World) -> None:
    _, writer = world.connect()
    world.network.cut([("b", "a")], 3.0)
    writer.write(DATA[0])
    world.run(0.5)
    assert world.b.connections[0][0] == [DATA[0]]


def test_stalled_link_holds_everything_and_then_delivers_it_in_order(world: World) -> None:
    _, writer = world.connect()
    world.network.stall([("a", "b")], 1.0)
    for data in DATA:
        writer.write(data)
    writer.close()
    world.run(0.9)
    assert world.b.connections[0][0] == []
    assert writer.get_write_buffer_size() == FRAME * len(DATA)
    world.run(0.2)
    assert world.b.connections[0][0] == [*DATA, "end"]


def test_lossy_link_loses_and_repeats_whole_writes(world: World) -> None:
    _, writer = world.connect()
    world.network.disturb([("a", "b")], 10.0, loss=0.3, repeats=0.3, late=False)
    for data in DATA:
        writer.write(data)
    world.run(5.0)
    arrived = world.b.connections[0][0]
    assert set(arrived) < set(DATA)
    assert len(arrived) > len(set(arrived))
    assert writer.get_write_buffer_size() == 0


def test_late_link_delivers_on_a_newer_connection_what_an_older_one_held(world: World) -> None:
    _, first = world.connect()
    world.network.disturb([("a", "b")], 10.0, loss=0.0, repeats=0.0, late=True)
    world.network.stall([("a", "b")], 0.6)
    for data in DATA:
        first.write(data)
    first.transport.abort()
    world.connect()
    world.run(LATE_S + 1.0)
    assert set(world.b.connections[1][0]) == set(DATA)


def test_reading_on_from_a_replaced_connection_is_noticed(world: World) -> None:
    _, first = world.connect()
    _, second = world.connect()
    second.write(DATA[0])
    world.run(0.5)
    assert world.b.stale_reads == 0
    first.write(DATA[1])
    world.run(0.5)
    assert world.b.stale_reads > 0


def test_crash_is_felt_by_the_peer_and_by_nobody_at_home(world: World) -> None:
    _, writer = world.connect()
    writer.write(DATA[0])
    world.a.up = False
    world.a.loop.die()
    world.network.went_down("a")
    writer.write(DATA[1])
    writer.close()
    world.run(LATE_S + 0.1)
    assert world.b.connections[0][0] == ["end"]


def test_dial_that_was_given_up_leaves_no_open_connection(world: World) -> None:
    async def work() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await world.network.dial("a", "b", "b:1")

    world.a.loop.create_task(work())
    world.run(0.5)
    assert all(arrived == ["end"] for arrived, _ in world.b.connections)
