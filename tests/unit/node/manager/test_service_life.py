"""A service's whole life through the control API, with the leader's loop and agents that obey."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

import msgspec
import pytest
from control_world import ControlWorld, make_node, make_spec

from node.loop import ManualClock
from node.manager.leader import LeaderLoop
from raft.objects.base import Annotations, Kind
from raft.objects.cluster import NetworkSpec
from raft.objects.node import NodeState
from raft.objects.service import (
    ContainerSpec,
    FailureAction,
    NetworkAttachmentSpec,
    Service,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
    UpdateState,
)
from raft.objects.task import Task, TaskState
from raft.store import Store, Transaction

BROKEN = "broken:1"


class Agents:
    """Every node's agent: takes tasks one state further at a time; the image `broken:1` fails to start."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def run(self) -> None:
        with self._store.watch({Kind.TASK, Kind.NODE}) as watch:
            while True:
                await self._store.update(self._step)
                await watch.wait()
                watch.drain()

    def _step(self, tx: Transaction) -> None:
        for task in list(tx.tasks.values()):
            node = tx.nodes.get(task.node_id)
            if node is None or node.status.state is not NodeState.READY or not task.status.state.uses_node:
                continue
            state = next_state(task)
            if state is not task.status.state:
                status = msgspec.structs.replace(task.status, state=state)
                tx.put(msgspec.structs.replace(task, status=status))


def next_state(task: Task) -> TaskState:
    if task.desired_state >= TaskState.SHUTDOWN:
        return TaskState.SHUTDOWN
    if task.status.state < TaskState.READY:
        return TaskState.READY
    if task.desired_state is TaskState.RUNNING and task.spec.container.image == BROKEN:
        return TaskState.FAILED
    return task.desired_state


@pytest.fixture
async def world(clock: ManualClock) -> AsyncIterator[ControlWorld]:
    world = ControlWorld(clock.now)
    await world.bootstrap()
    tasks = [
        asyncio.create_task(LeaderLoop(world.store, clock).run()),
        asyncio.create_task(Agents(world.store).run()),
    ]
    await clock.settle()
    yield world
    for task in tasks:
        assert not task.done(), task
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def spec(image: str = "hello", replicas: int = 3, **fields: object) -> ServiceSpec:
    task = TaskSpec(container=ContainerSpec(image=image), networks=(NetworkAttachmentSpec(target="front"),))
    return make_spec(replicas=replicas, task=task, **fields)


async def create(world: ControlWorld, clock: ManualClock, wanted: ServiceSpec) -> Service:
    await world.api.create_network(NetworkSpec(annotations=Annotations(name="front")))
    await world.api.create_service(wanted)
    await rest(world, clock, 1)
    return await world.api.get_service("web")


async def rest(world: ControlWorld, clock: ManualClock, seconds: int) -> None:
    """Let everybody finish what can be done now, then time pass, second by second."""
    for second in range(seconds + 1):
        index = -1
        while index != world.store.index:
            index = world.store.index
            await clock.settle()
        if second < seconds:
            await clock.advance(1)


def running(world: ControlWorld) -> Counter[str]:
    view = world.store.view()
    return Counter(
        task.spec.container.image
        for task in view.tasks.values()
        if task.status.state is TaskState.RUNNING
        and task.desired_state is TaskState.RUNNING
        and view.nodes[task.node_id].status.state is NodeState.READY
    )


async def test_create_scale_update_rollback_remove(world: ControlWorld, clock: ManualClock) -> None:
    service = await create(world, clock, spec())
    assert running(world) == {"hello": 3}

    service = await world.api.update_service("web", service.meta.version, spec(replicas=6))
    await rest(world, clock, 1)
    assert running(world) == {"hello": 6}

    service = await world.api.update_service("web", service.meta.version, spec("hello:2", replicas=6))
    await rest(world, clock, 10)
    assert running(world) == {"hello:2": 6}
    service = await world.api.get_service("web")
    assert service.update_status is not None
    assert service.update_status.state is UpdateState.COMPLETED

    await world.api.update_service("web", service.meta.version, spec(), rollback="previous")
    await rest(world, clock, 10)
    assert running(world) == {"hello": 6}

    await world.api.remove_service("web")
    await rest(world, clock, 1)
    assert dict(world.store.view().tasks) == {}
    await world.api.remove_network("front")


async def test_a_broken_update_rolls_itself_back(world: ControlWorld, clock: ManualClock) -> None:
    config = UpdateConfig(failure_action=FailureAction.ROLLBACK)
    service = await create(world, clock, spec(update=config))
    await world.api.update_service("web", service.meta.version, spec(BROKEN, update=config))
    await rest(world, clock, 20)
    assert running(world) == {"hello": 3}
    service = await world.api.get_service("web")
    assert service.update_status is not None
    assert service.update_status.state is UpdateState.ROLLBACK_COMPLETED


async def test_a_broken_update_pauses_and_can_be_replaced(world: ControlWorld, clock: ManualClock) -> None:
    service = await create(world, clock, spec())
    await world.api.update_service("web", service.meta.version, spec(BROKEN))
    await rest(world, clock, 60)
    assert running(world) == {"hello": 2}
    service = await world.api.get_service("web")
    assert service.update_status is not None
    assert service.update_status.state is UpdateState.PAUSED
    service = await world.api.update_service("web", service.meta.version, spec(BROKEN))
    assert service.update_status is None, "the same spec takes up a paused update"
    await rest(world, clock, 60)
    service = await world.api.get_service("web")
    assert service.update_status is not None
    assert service.update_status.state is UpdateState.PAUSED
    assert service.update_status.started_at > 1_000_050
    await world.api.update_service("web", service.meta.version, spec("hello:2"))
    await rest(world, clock, 60)
    assert running(world) == {"hello:2": 3}


async def test_node_loss_and_return(world: ControlWorld, clock: ManualClock) -> None:
    await create(world, clock, spec(replicas=6))
    for state in (NodeState.DOWN, NodeState.READY):
        await world.put_changed(Kind.NODE, "w1", status=make_node("w1", state=state).status)
        await rest(world, clock, 0)
        assert running(world) == {"hello": 6}
    live = [t for t in world.store.view().tasks.values() if t.desired_state <= TaskState.RUNNING]
    assert len(live) == 6


async def test_a_removed_node_leaves_nothing_behind(world: ControlWorld, clock: ManualClock) -> None:
    await create(world, clock, spec(replicas=6))
    await world.api.remove_node("w2", force=True)
    await rest(world, clock, 1)
    assert sum(1 for t in world.store.view().tasks.values() if t.status.state is TaskState.RUNNING) == 6
    await world.api.remove_service("web")
    await rest(world, clock, 1)
    assert dict(world.store.view().tasks) == {}


async def test_a_quiet_cluster_writes_nothing(world: ControlWorld, clock: ManualClock) -> None:
    await create(world, clock, spec(replicas=6))
    before = world.proposer.commits
    await rest(world, clock, 600)
    assert world.proposer.commits == before
