"""The leader's loop on a local store: one commit per change, timers, conflicts, size of batches."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from control_world import ControlWorld, make_node, make_spec

from node.loop import ManualClock
from node.manager.leader import BYTES_MAX, CHANGES_MAX, LeaderLoop, batches
from raft.errors import MaybeCommitted, Unavailable
from raft.objects.base import Annotations, Kind
from raft.objects.cluster import NetworkSpec
from raft.objects.node import NodeState
from raft.objects.service import ContainerSpec, EndpointSpec, NetworkAttachmentSpec, PortConfig, TaskSpec
from raft.objects.task import Task, TaskState
from scheduler.actions import Create


@contextlib.asynccontextmanager
async def leading(world: ControlWorld, clock: ManualClock) -> AsyncIterator[None]:
    loop = asyncio.create_task(LeaderLoop(world.store, clock).run())
    try:
        await clock.settle()
        yield
    finally:
        loop.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await loop


def states(world: ControlWorld) -> list[str]:
    tasks = sorted(world.store.view().tasks.values(), key=lambda t: (t.slot, t.meta.created_at, t.id))
    return [f"{t.slot} {t.status.state.name}/{t.desired_state.name} {t.node_id}" for t in tasks]


async def report(world: ControlWorld, task: Task, state: TaskState) -> None:
    status = msgspec.structs.replace(task.status, state=state, timestamp=world.api._now())
    await world.put_changed(Kind.TASK, task.id, status=status)


async def test_ingress_network_is_allocated_first(world: ControlWorld, clock: ManualClock) -> None:
    async with leading(world, clock):
        network = await world.api.get_network("ingress")
        assert (network.ipam[0].subnet, network.ipam[0].gateway, network.vni) == (
            "10.0.0.0/24",
            "10.0.0.1",
            4096,
        )
        addresses = [node.networks[0].address for node in world.store.view().nodes.values()]
        assert sorted(addresses) == ["10.0.0.2/24", "10.0.0.3/24", "10.0.0.4/24"]


async def test_service_create_needs_one_more_commit(world: ControlWorld, clock: ManualClock) -> None:
    async with leading(world, clock):
        front = await world.api.create_network(NetworkSpec(annotations=Annotations(name="front")))
        await clock.settle()
        before = world.proposer.commits
        await world.api.create_service(
            make_spec(
                replicas=3,
                task=TaskSpec(
                    container=ContainerSpec(image="hello"), networks=(NetworkAttachmentSpec(target="front"),)
                ),
                endpoint=EndpointSpec(ports=(PortConfig(target=80, published=8080),)),
            )
        )
        await clock.settle()
        assert world.proposer.commits == before + 2
        assert states(world) == ["1 ASSIGNED/RUNNING m1", "2 ASSIGNED/RUNNING w1", "3 ASSIGNED/RUNNING w2"]
        service = await world.api.get_service("web")
        assert service.endpoint is not None
        assert {vip.network_id for vip in service.endpoint.virtual_ips} == {
            front.id,
            (await world.api.get_network("ingress")).id,
        }


async def test_restart_waits_for_its_time_without_events(world: ControlWorld, clock: ManualClock) -> None:
    async with leading(world, clock):
        await world.api.create_service(make_spec())
        await clock.settle()
        (task,) = world.store.view().tasks.values()
        await report(world, task, TaskState.RUNNING)
        await report(world, world.store.view().tasks[task.id], TaskState.FAILED)
        await clock.settle()
        assert states(world)[1].startswith("1 ASSIGNED/READY")
        await clock.advance(4.9)
        assert states(world)[1].startswith("1 ASSIGNED/READY")
        await clock.advance(0.2)
        assert states(world)[1].startswith("1 ASSIGNED/RUNNING")


async def test_lost_node_is_replaced_in_one_commit(world: ControlWorld, clock: ManualClock) -> None:
    async with leading(world, clock):
        await world.api.create_service(make_spec(replicas=3))
        await clock.settle()
        before = world.proposer.commits
        await world.put_changed(Kind.NODE, "w1", status=make_node("w1", state=NodeState.DOWN).status)
        await clock.settle()
        assert world.proposer.commits == before + 2
        assert "2 ASSIGNED/SHUTDOWN w1" in states(world)
        assert sum(1 for line in states(world) if "/RUNNING" in line) == 3


async def test_new_leader_looks_at_everything(world: ControlWorld, clock: ManualClock) -> None:
    await world.api.create_service(make_spec(replicas=2))
    assert states(world) == []
    async with leading(world, clock):
        assert len(states(world)) == 2
    await world.put_changed(Kind.NODE, "m1", status=make_node("m1", state=NodeState.DOWN).status)
    async with leading(world, clock):
        assert sum(1 for line in states(world) if "/RUNNING" in line) == 2


async def test_loop_can_be_run_for_a_second_term(world: ControlWorld, clock: ManualClock) -> None:
    loop = LeaderLoop(world.store, clock)
    for replicas in (1, 2):
        running = asyncio.create_task(loop.run())
        await clock.settle()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        # What happens between the terms has no event that anybody reads.
        await world.api.create_service(make_spec(f"web{replicas}", replicas=1))
    assert len(states(world)) == 1


async def test_refused_write_is_tried_again(world: ControlWorld, clock: ManualClock) -> None:
    async with leading(world, clock):
        propose, refusals = world.proposer.propose, iter(range(2))

        async def flaky(command: bytes) -> object:
            if next(refusals, None) is not None:
                raise Unavailable("no quorum")
            return await propose(command)

        await world.api.create_service(make_spec())
        world.proposer.propose = flaky  # type: ignore[method-assign]
        await clock.settle()
        assert states(world) == []
        await clock.advance(1.0)
        assert len(states(world)) == 1


@pytest.mark.parametrize("written", [False, True])
async def test_write_of_unknown_outcome_is_looked_at_again(
    world: ControlWorld, clock: ManualClock, written: bool
) -> None:
    async with leading(world, clock):
        propose, doubts = world.proposer.propose, iter(range(2))

        async def lossy(command: bytes) -> object:
            lost = next(doubts, None) is not None
            if not lost or written:
                outcome = await propose(command)
            if lost:
                raise MaybeCommitted("the leadership was lost")
            return outcome

        await world.api.create_service(make_spec(replicas=4))
        world.proposer.propose = lossy  # type: ignore[method-assign]
        await clock.advance(2.0)
        tasks = list(world.store.view().tasks.values())
        assert sorted(task.slot for task in tasks) == [1, 2, 3, 4]
        assert {task.status.state for task in tasks} == {TaskState.ASSIGNED}


async def test_plan_is_dropped_when_the_store_moved_on(world: ControlWorld, clock: ManualClock) -> None:
    """A report that is committed first must survive, and the leader decides again, about the others too."""
    async with leading(world, clock):
        for name in ("a", "b"):
            await world.api.create_service(make_spec(name, replicas=3))
        await clock.settle()
        lost = [t for t in world.store.view().tasks.values() if t.node_id == "w1"]
        raced = next(t for t in lost if t.service_name == "a")
        propose, races = world.proposer.propose, iter((raced,))

        async def race(command: bytes) -> object:
            task = next(races, None) if world.proposer.commits >= quiet else None
            if task is not None:
                await report(world, task, TaskState.RUNNING)
            return await propose(command)

        quiet = world.proposer.commits + 1
        world.proposer.propose = race  # type: ignore[method-assign]
        await world.put_changed(Kind.NODE, "w1", status=make_node("w1", state=NodeState.DOWN).status)
        await clock.settle()
        stopped = world.store.view().tasks[raced.id]
        assert (stopped.status.state, stopped.desired_state) == (TaskState.RUNNING, TaskState.SHUTDOWN)
        wanted = [t for t in world.store.view().tasks.values() if t.desired_state is TaskState.RUNNING]
        assert len(wanted) == 6
        assert all(t.node_id != "w1" for t in wanted)


async def test_many_replicas_are_written_in_parts(world: ControlWorld, clock: ManualClock) -> None:
    async with leading(world, clock):
        await world.api.create_service(make_spec(replicas=450))
        await clock.settle()
        assert len(states(world)) == 450


def test_batches_keep_both_limits() -> None:
    def tasks(count: int, env: int) -> list[Any]:
        spec = TaskSpec(container=ContainerSpec(env=("x" * env,)))
        return [Create(Kind.TASK, Task(id=f"t{n}", spec=spec), "new") for n in range(count)]

    assert [len(b) for b in batches(tasks(450, 1))] == [CHANGES_MAX, CHANGES_MAX, 50]
    by_size = [len(b) for b in batches(tasks(30, 100 * 1024))]
    assert sum(by_size) == 30
    assert max(by_size) == BYTES_MAX // (100 * 1024) - 1 or max(by_size) * 100 * 1024 <= BYTES_MAX
