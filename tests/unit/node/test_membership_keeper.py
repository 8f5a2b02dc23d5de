"""Asking to be counted: whom, how often, and when not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from node.identity import NodeIdentity
from node.loop import ManualClock
from node.lost_log import LostLog, is_loss
from node.manager.manager import Expelled, JoinRequest
from node.membership_keeper import MembershipKeeper
from node.rpc import RpcError
from raft.errors import FailedPrecondition
from raft.framing import Damaged, WrongKey
from raft.wal import WalDamaged

OURS = NodeIdentity(node_id="a", cluster_id="c1", address="10.0.0.1", port=2377)


class Consensus:
    def __init__(self) -> None:
        self.is_leader = self.is_removed = False
        self.leader_address = ""
        self.leader_heard_s_ago = 0.0
        self.group: dict[str, str] = {}
        self._callbacks: list[Callable[[], None]] = []

    def members(self) -> dict[str, str]:
        return self.group

    def on_change(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    def change(self, **group: str) -> None:
        self.group = group
        for callback in self._callbacks:
            callback()


class Client:
    """Answers with what is in `answers`: an error, or bytes; an address without any does not answer."""

    def __init__(self) -> None:
        self.answers: dict[str, RpcError | bytes] = {}
        self.asked: list[tuple[str, JoinRequest]] = []

    async def call(self, address: str, method: str, payload: bytes, *, timeout: float) -> bytes:
        self.asked.append((address, msgspec.json.decode(payload, type=JoinRequest)))
        answer = self.answers.get(address, RpcError("unavailable", "no answer"))
        if isinstance(answer, RpcError):
            raise answer
        return answer


class World:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.consensus, self.client = Consensus(), Client()
        self.added_here: list[tuple[str, str]] = []
        consensus: Any = self.consensus
        client: Any = self.client
        self.keeper = MembershipKeeper(
            OURS, consensus, client, lambda: ["10.0.0.2:1", "10.0.0.3:1"], self.add_here, self.clock
        )

    async def add_here(self, node_id: str, address: str) -> None:
        self.added_here.append((node_id, address))

    @property
    def addresses(self) -> list[str]:
        return [address for address, _ in self.client.asked]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    running = asyncio.create_task(made.keeper.run())
    await made.clock.settle()
    made.client.asked.clear()
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_asks_everybody_until_somebody_has_done_it(world: World):
    await world.clock.advance(20)
    assert set(world.addresses) == {"10.0.0.2:1", "10.0.0.3:1"}
    assert world.client.asked[0][1] == JoinRequest("10.0.0.1:2377", lost_log=False)
    with pytest.raises(FailedPrecondition, match=r"did not add this node: 10.0.0.3:1 says: no answer"):
        joining = asyncio.create_task(world.keeper.joined(5))
        await world.clock.advance(6)
        await joining
    world.client.answers["10.0.0.3:1"] = b"{}"
    await world.clock.advance(20)
    joining = asyncio.create_task(world.keeper.joined(5))
    await world.clock.settle()
    world.consensus.change(a="10.0.0.1:2377")
    await world.clock.settle()
    await joining
    asked = len(world.addresses)
    await world.clock.advance(100)
    assert len(world.addresses) == asked


async def test_follows_the_leader_and_asks_again_when_the_address_is_another(world: World):
    world.client.answers["10.0.0.9:1"] = b"{}"
    world.client.answers["10.0.0.2:1"] = RpcError("not_leader", "not me", "10.0.0.9:1")
    await world.clock.advance(20)
    assert world.addresses[-2:] == ["10.0.0.2:1", "10.0.0.9:1"]
    world.consensus.change(a="10.0.0.1:2377")
    await world.clock.settle()
    world.client.asked.clear()
    world.consensus.leader_address = "10.0.0.9:1"
    world.consensus.change(a="10.0.0.77:2377")
    await world.clock.settle()
    assert world.addresses == ["10.0.0.9:1"]


async def test_leader_counts_itself_at_its_new_address(world: World):
    world.consensus.is_leader = True
    world.consensus.change(a="10.0.0.77:2377")
    await world.clock.advance(20)
    assert world.added_here[0] == ("a", "10.0.0.1:2377")
    assert world.addresses == []


async def test_node_that_was_removed_asks_nobody(world: World):
    world.consensus.is_removed = True
    world.consensus.change()
    await world.clock.advance(20)
    world.client.asked.clear()
    await world.clock.advance(100)
    assert world.addresses == []


async def test_lost_log_asks_until_a_leader_has_expelled_it():
    client = Client()
    wire: Any = client
    lost = LostLog("this manager has lost its log (x)", "10.0.0.1:2377", wire, lambda: ["b:1", "c:1"])
    client.answers = {
        "b:1": RpcError("not_leader", "not me", "d:1"),
        "d:1": RpcError("failed_precondition", "no quorum"),
        "c:1": msgspec.json.encode(Expelled(9, "c")),
    }
    assert await lost.be_expelled() == Expelled(9, "c")
    assert client.asked == [(at, JoinRequest("10.0.0.1:2377", lost_log=True)) for at in ("b:1", "d:1", "c:1")]
    assert lost.problem == (
        "this manager has lost its log (x): it takes part when the other managers have taken it in; "
        "d:1 says: no quorum"
    )


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (WalDamaged("x"), True),
        (Damaged("x"), True),
        (OSError(5, "I/O error"), True),
        (OSError(13, "permission denied"), False),
        (OSError(28, "disk full"), False),
        (WrongKey("x"), False),
    ],
)
def test_what_counts_as_a_loss(error: Exception, lost: bool):
    assert is_loss(error) is lost


async def test_member_that_no_leader_talks_to_asks_whether_it_still_counts(world: World):
    world.consensus.change(a="10.0.0.1:2377")
    await world.clock.advance(100)
    world.client.asked.clear()
    await world.clock.advance(100)
    assert world.addresses == []
    world.consensus.leader_heard_s_ago = 60.0
    await world.clock.advance(10)
    assert set(world.addresses) == {"10.0.0.2:1", "10.0.0.3:1"}
    world.consensus.is_removed = True
    await world.clock.advance(10)
    world.client.asked.clear()
    await world.clock.advance(100)
    assert world.addresses == []
