"""Calls from a follower to the leader: same results, same errors, one effect, a bounded wait."""

from __future__ import annotations

import asyncio

import pytest
from control_world import LEADER, ControlWorld, FakeConsensus, make_spec

from node.loop import ManualClock
from node.manager.asking import DEADLINE_S, LEADER_WAIT_S
from node.manager.forward import (
    METHODS,
    PREFIX,
    ControlProxy,
    Handler,
    from_rpc,
    register_control,
    to_rpc,
)
from node.rpc import MANAGERS, RpcError
from raft import errors
from raft.objects.base import Annotations
from raft.objects.cluster import SecretSpec


class Wire:
    """An RPC server and client in one: addresses lead to handlers of managers."""

    def __init__(self) -> None:
        self.handlers: dict[str, dict[str, Handler]] = {}
        self.dialled: list[str] = []
        self.roles: set[frozenset[str] | None] = set()
        self._registering = ""

    def server(self, address: str) -> Wire:
        self._registering = address
        self.handlers[address] = {}
        return self

    def handle(self, method: str, handler: Handler, *, roles: frozenset[str] | None) -> None:
        self.handlers[self._registering][method] = handler
        self.roles.add(roles)

    async def call(self, address: str, method: str, payload: bytes, *, timeout: float) -> bytes:
        self.dialled.append(address)
        return await self.handlers[address][method](None, payload)


class Follower(FakeConsensus):
    def __init__(self) -> None:
        super().__init__()
        self.is_leader = False


@pytest.fixture
async def world() -> ControlWorld:
    world = ControlWorld()
    await world.bootstrap()
    return world


@pytest.fixture
def wire(world: ControlWorld) -> Wire:
    wire = Wire()
    register_control(wire.server("10.9.0.1:2377"), world.api, world.consensus)
    return wire


def follower(world: ControlWorld, wire: Wire, clock: ManualClock | None = None) -> ControlProxy:
    return ControlProxy("m2", world.api, Follower(), wire, clock)


async def test_leader_answers_itself(world: ControlWorld, wire: Wire) -> None:
    proxy = ControlProxy(LEADER, world.api, world.consensus, wire)
    await proxy.create_service(make_spec())
    assert wire.dialled == []
    assert len(await proxy.list_services({})) == 1


async def test_follower_asks_the_leader(world: ControlWorld, wire: Wire) -> None:
    proxy = follower(world, wire)
    created = await proxy.create_service(make_spec(replicas=2))
    assert created == await world.api.get_service("web")
    assert await proxy.list_services({"name": ["web"]}) == [created]
    assert (await proxy.service_statuses())[created.id].desired == 2
    await proxy.create_secret(SecretSpec(annotations=Annotations(name="key"), data=b"\x00\xff"))
    assert world.store.view().by_name("secret", "key").spec.data == b"\x00\xff"  # type: ignore[union-attr,arg-type]
    cluster = await proxy.get_cluster()
    await proxy.update_cluster(cluster.meta.version, cluster.spec, True, False)
    await proxy.remove_service("web")
    assert wire.roles == {MANAGERS}
    assert set(wire.dialled) == {"10.9.0.1:2377"}


async def test_errors_cross_the_wire(world: ControlWorld, wire: Wire) -> None:
    proxy = follower(world, wire)
    with pytest.raises(errors.NotFound, match="service nope not found"):
        await proxy.get_service("nope")
    with pytest.raises(errors.OutOfSequence, match="update out of sequence"):
        service = await proxy.create_service(make_spec())
        await proxy.update_service("web", service.meta.version - 1, make_spec())


async def test_bad_payload_is_an_invalid_argument(wire: Wire) -> None:
    with pytest.raises(RpcError) as caught:
        await wire.call(
            "10.9.0.1:2377", PREFIX + "create_service", b'{"arguments":[{"replicas":"three"}]}', timeout=1.0
        )
    assert caught.value.code == "invalid_argument"
    assert "replicas" in caught.value.message


async def test_not_leader_is_followed_until_the_deadline(world: ControlWorld, wire: Wire) -> None:
    old = Follower()
    register_control(wire.server("10.9.0.2:2377"), world.api, old)
    consensus = Follower()
    consensus.leader_id = "m2"
    consensus.group["m2"] = "10.9.0.2:2377"
    clock = ManualClock()
    proxy = ControlProxy("m3", world.api, consensus, wire, clock)
    await proxy.create_service(make_spec())
    assert wire.dialled == ["10.9.0.2:2377", "10.9.0.1:2377"]
    old.leader_id = "m2"
    old.group["m2"] = "10.9.0.2:2377"
    lost = asyncio.create_task(proxy.create_service(make_spec("other")))
    await clock.advance(DEADLINE_S + 1)
    with pytest.raises(errors.Unavailable, match="nothing was written: this manager is not the leader"):
        await lost


async def test_waits_for_an_election_but_not_for_ever(world: ControlWorld, wire: Wire) -> None:
    clock = ManualClock()
    consensus = Follower()
    consensus.leader_id = None
    proxy = ControlProxy("m2", world.api, consensus, wire, clock)
    patient = asyncio.create_task(proxy.get_cluster())
    await clock.advance(1.0)
    assert not patient.done()
    consensus.leader_id = LEADER
    await clock.advance(0.1)
    assert (await patient).cluster_id == "c1"

    consensus.leader_id = None
    hopeless = asyncio.create_task(proxy.get_cluster())
    await clock.advance(LEADER_WAIT_S + 0.1)
    with pytest.raises(errors.Unavailable, match="does not have a leader"):
        await hopeless


def test_every_error_survives_the_way_there_and_back() -> None:
    for cls in (errors.InvalidArgument, errors.AlreadyExists, errors.FailedPrecondition, errors.Unavailable):
        back = from_rpc(to_rpc(cls("why")))
        assert (type(back), str(back)) == (cls, "why")
    assert isinstance(from_rpc(RpcError("internal", "boom")), errors.MaybeCommitted)
    moved = from_rpc(to_rpc(errors.NotLeader("not me", "10.9.0.1:2377")))
    assert isinstance(moved, errors.NotLeader)
    assert moved.leader == "10.9.0.1:2377"


def test_proxy_has_every_method() -> None:
    missing = [name for name in METHODS if not hasattr(ControlProxy, name)]
    assert missing == []
    assert "create_service" in METHODS
