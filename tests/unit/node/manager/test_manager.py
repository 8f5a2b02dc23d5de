"""Terms of leadership and the roles of nodes."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import pytest
from control_world import LEADER, ControlWorld, make_node

from node.loop import ManualClock
from node.manager.forward import Handler
from node.manager.manager import JOIN_METHOD, Expelled, JoinRequest, Manager
from node.manager.roles import RoleManager, decide_roles
from node.rpc import Identity, RpcError
from raft.objects.base import Kind
from raft.objects.node import ManagerStatus, NodeRole, NodeSpec


class Part:
    """Says when it runs; fails when told to."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.fail = asyncio.Event()

    async def run(self) -> None:
        self.log.append("start")
        try:
            await self.fail.wait()
            self.fail.clear()
            raise OSError("broken")
        finally:
            self.log.append("stop")


class Server:
    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}

    def handle(self, method: str, handler: Handler, *, roles: frozenset[str] | None) -> None:
        self.handlers[method] = handler


class NoClient:
    async def call(self, address: str, method: str, payload: bytes, *, timeout: float) -> bytes:
        raise AssertionError("nobody to call")


def make_manager(world: ControlWorld, clock: ManualClock, part: Part) -> Manager:
    return Manager(LEADER, world.store, world.consensus, NoClient(), parts={"part": part.run}, clock=clock)


async def cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_parts_run_in_terms_only(world: ControlWorld, clock: ManualClock) -> None:
    part = Part()
    world.consensus.is_leader = False
    running = asyncio.create_task(make_manager(world, clock, part).run())
    await clock.settle()
    assert part.log == []
    for is_leader in (True, False, True):
        world.consensus.is_leader = is_leader
        world.consensus.changed()
        await clock.settle()
    assert part.log == ["start", "stop", "start"]
    await cancel(running)
    assert part.log[-1] == "stop"


async def test_a_failed_part_restarts_the_term(world: ControlWorld, clock: ManualClock) -> None:
    part = Part()
    running = asyncio.create_task(make_manager(world, clock, part).run())
    await clock.settle()
    part.fail.set()
    await clock.settle()
    assert part.log == ["start", "stop"]
    await clock.advance(1.0)
    assert part.log == ["start", "stop", "start"]
    await cancel(running)


async def test_promotion_to_membership(world: ControlWorld, clock: ManualClock) -> None:
    server = Server()
    manager = make_manager(world, clock, Part())
    manager.register(server)
    running = asyncio.create_task(manager.run())
    node = await manager.api.get_node("w1")
    await manager.api.update_node("w1", node.meta.version, NodeSpec(role=NodeRole.MANAGER))
    await clock.settle()
    assert world.store.view().nodes["w1"].role is NodeRole.MANAGER

    join = server.handlers[JOIN_METHOD]
    request = msgspec.json.encode(JoinRequest("10.9.0.7:2377"))
    await join(Identity("w1", "swarm-manager", "c1"), request)
    await join(Identity("w1", "swarm-manager", "c1"), request)
    await clock.settle()
    assert world.consensus.calls == ["add w1 10.9.0.7:2377"]
    assert world.store.view().nodes["w1"].manager == ManagerStatus(address="10.9.0.7:2377")

    with pytest.raises(RpcError, match="promote it first"):
        await join(Identity("w2", "swarm-manager", "c1"), request)
    with pytest.raises(RpcError, match="node x9 not found"):
        await join(Identity("x9", "swarm-manager", "c1"), request)
    world.consensus.is_leader = False
    with pytest.raises(RpcError) as caught:
        await join(Identity("w1", "swarm-manager", "c1"), request)
    assert (caught.value.code, caught.value.detail) == ("not_leader", "10.9.0.1:2377")
    await cancel(running)


async def test_manager_without_a_log_is_expelled_before_it_is_added(
    world: ControlWorld, clock: ManualClock
) -> None:
    server = Server()
    manager = make_manager(world, clock, Part())
    manager.register(server)
    await world.put(make_node("m2", NodeRole.MANAGER))
    world.consensus.group["m2"] = "10.9.0.2:2377"
    join = server.handlers[JOIN_METHOD]
    request = msgspec.json.encode(JoinRequest("10.9.0.2:2377", lost_log=True))
    answer = await join(Identity("m2", "swarm-manager", "c1"), request)
    assert msgspec.json.decode(answer, type=Expelled) == Expelled(7, LEADER)
    assert world.consensus.calls == ["expel m2"]
    with pytest.raises(RpcError, match="promote it first"):
        await join(Identity("w2", "swarm-manager", "c1"), request)
    await join(Identity("m2", "swarm-manager", "c1"), msgspec.json.encode(JoinRequest("10.9.0.2:2377")))
    assert world.consensus.calls == ["expel m2", "add m2 10.9.0.2:2377"]


async def test_demotion_leaves_the_group_first(world: ControlWorld, clock: ManualClock) -> None:
    await world.put(make_node("m2", NodeRole.MANAGER))
    world.consensus.group["m2"] = "10.9.0.2:2377"
    roles = asyncio.create_task(RoleManager(world.store, world.consensus, clock).run())
    await clock.settle()
    await world.put_changed(Kind.NODE, "m2", spec=NodeSpec())
    await clock.settle()
    assert world.consensus.calls == ["remove m2"]
    node = world.store.view().nodes["m2"]
    assert (node.role, node.manager) == (NodeRole.WORKER, None)
    await cancel(roles)


def test_steps(world: ControlWorld) -> None:
    async def steps(members: dict[str, str], **specs: NodeRole) -> list[str]:
        return [f"{s.verb} {s.node_id}" for s in decide_roles(world.store.view(), members, LEADER)]

    async def play() -> None:
        own = {LEADER: "10.9.0.1:2377"}
        assert await steps(own) == []
        assert await steps({**own, "gone": "10.9.0.8:2377"}) == ["remove gone"]
        assert await steps({LEADER: "10.9.0.99:2377"}) == ["record m1"]
        await world.put_changed(Kind.NODE, LEADER, spec=NodeSpec())
        await world.put_changed(Kind.NODE, "w1", spec=NodeSpec(role=NodeRole.MANAGER))
        assert await steps(own) == ["promote w1", "hand over m1"]
        assert await steps({}) == ["demote m1", "promote w1"]

    asyncio.run(play())
