"""Calls from a follower to the leader: same results, same errors, one effect, a bounded wait."""

from __future__ import annotations

import asyncio

import msgspec
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
from raft import errors, requests
from raft.objects.base import Annotations, Kind
from raft.objects.cluster import SecretSpec
from raft.objects.request import Request, new_key
from raft.objects.task import Task, TaskState


class Wire:
    """An RPC server and client in one: addresses lead to handlers of managers."""

    def __init__(self) -> None:
        self.handlers: dict[str, dict[str, Handler]] = {}
        self.dialled: list[str] = []
        self.roles: set[frozenset[str] | None] = set()
        self._registering = ""
        self.fates: list[str] = []
        self.late: list[tuple[Handler, bytes]] = []

    def server(self, address: str) -> Wire:
        self._registering = address
        self.handlers[address] = {}
        return self

    def handle(self, method: str, handler: Handler, *, roles: frozenset[str] | None) -> None:
        self.handlers[self._registering][method] = handler
        self.roles.add(roles)

    async def call(self, address: str, method: str, payload: bytes, *, timeout: float) -> bytes:
        self.dialled.append(address)
        handler = self.handlers[address][method]
        fate = self.fates.pop(0) if self.fates else ""
        if fate == "late":
            self.late.append((handler, payload))
        elif fate == "broken":
            raise RpcError("internal", f"{method} failed: KeyError: 'x'")
        elif fate == "unreachable":
            raise RpcError("unavailable", f"cannot reach {address}: timed out")
        else:
            answer = await handler(None, payload)
        if fate:
            raise RpcError("maybe_committed", f"no answer from {address} to {method}: timed out")
        return answer


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
    cluster = await proxy.get_cluster()
    locked = await proxy.update_cluster(
        cluster.meta.version, msgspec.structs.replace(cluster.spec, autolock=True)
    )
    assert locked.lock.unlock_key == world.store.view().cluster.lock.unlock_key != ""  # type: ignore[union-attr]
    rotated = await proxy.update_cluster(locked.meta.version, locked.spec, rotate_unlock_key=True)
    assert rotated.lock.unlock_key != locked.lock.unlock_key
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


@pytest.mark.parametrize("fates", [["late"], ["answer lost"], ["unreachable"], ["late", "answer lost"]])
async def test_lost_call_is_asked_again_and_takes_effect_once(
    world: ControlWorld, wire: Wire, fates: list[str]
) -> None:
    wire.fates = list(fates)
    created = await follower(world, wire).create_service(make_spec())
    assert len(wire.dialled) == len(fates) + 1
    await follower(world, wire).remove_service("web")
    for handler, payload in wire.late:
        await handler(None, payload)
    assert not world.store.view().services
    assert created.spec.annotations.name == "web"


async def test_refusal_after_a_lost_call_is_final(world: ControlWorld, wire: Wire) -> None:
    """Else the caller hears that the name is taken, and gets the service later all the same."""
    wire.fates = ["late"]
    calling = asyncio.create_task(follower(world, wire).create_service(make_spec()))
    while not wire.late:
        await asyncio.sleep(0)
    await world.api.create_service(make_spec())
    with pytest.raises(errors.AlreadyExists):
        await calling
    await world.api.remove_service("web")
    handler, payload = wire.late.pop()
    with pytest.raises(RpcError, match="already exists"):
        await handler(None, payload)
    assert not world.store.view().services


async def test_call_whose_leader_never_answers_may_have_been_written(world: ControlWorld, wire: Wire) -> None:
    clock = ManualClock()
    wire.fates = ["late"] * 1000
    calling = asyncio.create_task(follower(world, wire, clock).create_service(make_spec()))
    await clock.advance(DEADLINE_S + 1)
    with pytest.raises(
        errors.MaybeCommitted, match=r"may have been written: no answer from 10\.9\.0\.1"
    ) as caught:
        await calling
    assert caught.value.key.startswith(f"{world.store.index}-")
    reading = asyncio.create_task(follower(world, wire, clock).list_services({}))
    await clock.advance(DEADLINE_S + 1)
    with pytest.raises(errors.Unavailable, match=r"no answer from 10\.9\.0\.1"):
        await reading


async def test_leader_that_cannot_be_reached_is_given_up_sooner(world: ControlWorld, wire: Wire) -> None:
    clock = ManualClock()
    wire.fates = ["unreachable"] * 1000
    calling = asyncio.create_task(follower(world, wire, clock).create_service(make_spec()))
    await clock.advance(LEADER_WAIT_S + 1)
    with pytest.raises(errors.Unavailable, match=r"nothing was written: cannot reach 10\.9\.0\.1"):
        await calling


async def test_failure_that_nobody_foresaw_is_not_repeated(world: ControlWorld, wire: Wire) -> None:
    wire.fates = ["broken"]
    with pytest.raises(errors.MaybeCommitted, match=r"may have been written: .*KeyError"):
        await follower(world, wire).create_service(make_spec())
    assert len(wire.dialled) == 1


async def test_key_of_a_client_is_for_one_call(world: ControlWorld, wire: Wire) -> None:
    request = Request(new_key(world.store.index), b"body", repeated=True)
    bound = follower(world, wire).for_request(request)
    created = await bound.create_service(make_spec())
    assert (await bound.create_service(make_spec())).id == created.id
    with pytest.raises(errors.InvalidArgument, match="was used for another call"):
        await bound.remove_service("web")
    await follower(world, wire).remove_service("web")
    again = await bound.create_service(make_spec())
    assert (again.id, again.spec.annotations.name) == (created.id, "web")
    assert not world.store.view().services


async def test_request_too_old_to_be_known_is_answered_at_once(
    world: ControlWorld, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "RECEIPTS_MAX", 1)
    request = Request(new_key(world.store.index), repeated=True)
    for name in ("web", "db"):
        await follower(world, wire).create_service(make_spec(name))
    wire.dialled.clear()
    with pytest.raises(
        errors.MaybeCommitted, match=r"may have been written: .* older than the last 1 requests"
    ):
        await follower(world, wire).for_request(request).create_service(make_spec("cache"))
    assert len(wire.dialled) == 1


async def test_node_with_many_tasks_is_removed_once(
    world: ControlWorld, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two transactions: the leader dies between them, and the answer after both gets lost."""
    for number in range(200):
        await world.put(Task(id=f"t{number}", service_id="s", node_id="w1", slot=number))
    before, propose = world.proposer.commits, world.proposer.propose

    async def failing(command: bytes) -> object:
        if world.proposer.commits == before + 1:
            world.proposer.commits += 1
            raise errors.MaybeCommitted("the leadership was lost")
        return await propose(command)

    monkeypatch.setattr(world.proposer, "propose", failing)
    wire.fates = ["", "answer lost"]
    await follower(world, wire).remove_node("w1", True)
    assert "w1" not in world.store.view().nodes
    assert {task.status.state for task in world.store.view().tasks.values()} == {TaskState.ORPHANED}
    assert len(list(world.store.view().all(Kind.RECEIPT))) == 1
    assert len(wire.dialled) == 3


async def test_reads_are_confirmed_and_writes_are_not(world: ControlWorld, wire: Wire) -> None:
    proxy = follower(world, wire)
    await proxy.create_service(make_spec())
    assert world.consensus.barriers == 0
    await proxy.get_service("web")
    await proxy.list_services({})
    assert world.consensus.barriers == 2


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
