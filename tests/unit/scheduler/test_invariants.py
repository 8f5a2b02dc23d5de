"""Seeded random histories: whatever happens to nodes, tasks and specs, the promises of the scheduler hold."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from cluster_world import World, change

from raft.objects.node import Availability, NodeState
from raft.objects.service import NetworkAttachmentSpec, PortConfig, ServiceMode, UpdateOrder
from raft.objects.task import TaskState
from scheduler.actions import describe
from scheduler.addresses import bare
from scheduler.plan import decide

STEPS = 60


def make_world(rng: random.Random) -> World:
    world = World(nodes=3)
    world.add_network("ingress", spec__ingress=True)
    world.add_network("front")
    networks = (NetworkAttachmentSpec(target="front"),)
    order = rng.choice(list(UpdateOrder))
    world.add_service(
        "web",
        replicas=4,
        task__networks=networks,
        update__order=order,
        update__parallelism=rng.choice([0, 1, 2]),
        endpoint__ports=(PortConfig(target=80),),
    )
    world.add_service("job", replicas=2, task__restart__max_attempts=3, task__restart__delay_ns=1_000_000_000)
    world.add_service("each", mode=ServiceMode.GLOBAL, task__networks=networks)
    return world


def disturb(world: World, rng: random.Random) -> None:
    node = rng.choice(sorted(world.nodes))
    match rng.randrange(8):
        case 0:
            world.node_state(node, NodeState.DOWN)
        case 1 | 2:
            world.node_state(node, NodeState.READY)
        case 3:
            world.availability(node, rng.choice(list(Availability)))
        case 4:
            world.update_service("web", replicas=rng.randrange(0, 8))
        case 5:
            world.update_service("web", task__force_update=rng.randrange(1000))
        case 6:
            candidates = [t.id for t in world.tasks.values() if t.status.state is TaskState.RUNNING]
            if candidates:
                world.report(rng.choice(sorted(candidates)), TaskState.FAILED, "exit 1")
        case 7:
            world.now += rng.choice([1.0, 10.0, 100.0])


def check_addresses(world: World) -> None:
    held: Counter[tuple[str, str]] = Counter()
    for task in world.tasks.values():
        if not task.status.state.is_terminal:
            held.update((a.network_id, bare(a.address)) for a in task.networks)
    for service in world.services.values():
        held.update((v.network_id, bare(v.address)) for v in service.endpoint.virtual_ips)  # type: ignore[union-attr]
    for node in world.nodes.values():
        held.update((own.network_id, bare(own.address)) for own in node.networks)
    for network in world.networks.values():
        held.update((network.id, config.gateway) for config in network.ipam)
    twice = [key for key, count in held.items() if count > 1]
    assert not twice, f"given twice: {twice}"


def check_slots(world: World) -> None:
    for service in world.services.values():
        wanted: Counter[object] = Counter()
        for task in world.tasks_of_service(service.id):
            if task.desired_state is TaskState.RUNNING:
                wanted[task.slot or task.node_id] += 1
        start_first = service.spec.update.order is UpdateOrder.START_FIRST
        assert max(wanted.values(), default=0) <= (2 if start_first else 1), world.ps(service.id)


def calm_down(world: World) -> None:
    for node in list(world.nodes):
        world.node_state(node, NodeState.READY)
        world.availability(node, Availability.ACTIVE)
    world.update_service("web", task__force_update=5000)
    world.run(seconds=200.0, pause=5.0)


@pytest.mark.parametrize("seed", range(25))
def test_random_history_keeps_the_promises_and_converges(seed: int) -> None:
    rng = random.Random(seed)
    world = make_world(rng)
    for _ in range(STEPS):
        disturb(world, rng)
        if rng.random() < 0.7:
            world.agents()
        world.step()
        check_slots(world)
        check_addresses(world)
    calm_down(world)

    web = world.services["web"]
    live = world.live("web")
    assert len(live) == len(world.running("web")) == web.spec.replicas
    assert len({task.slot for task in live}) == len(live)
    assert all(task.spec == web.spec.task for task in live), "not every task was updated"
    assert {task.node_id for task in world.running("each")} == set(world.nodes)
    assert world.decide().actions == []


@pytest.mark.parametrize("seed", range(5))
def test_same_view_gives_same_decision(seed: int) -> None:
    rng = random.Random(seed)
    world = make_world(rng)
    for _ in range(20):
        disturb(world, rng)
        world.agents()
        first = world.decide()
        taken = [a.obj.id for a in first.actions if hasattr(a, "obj") and a.obj.meta.version == 0]
        ids = iter(taken)
        second = decide(world, world.now, lambda ids=ids: next(ids))  # type: ignore[misc]
        assert [describe(a) for a in second.actions] == [describe(a) for a in first.actions]
        world.apply(first.actions)


def test_the_checks_can_fail() -> None:
    world = make_world(random.Random(1))
    world.run()
    first, second = world.live("web")[:2]
    world.put(change(first, networks=second.networks))
    with pytest.raises(AssertionError, match="given twice"):
        check_addresses(world)
