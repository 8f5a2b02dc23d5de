"""Rolling updates: pace, order, failures, rollback, and that they end."""

from __future__ import annotations

from collections import Counter

import pytest
from cluster_world import World, change

from raft.objects.node import NodeState
from raft.objects.service import FailureAction, UpdateOrder, UpdateState
from raft.objects.task import TaskState

SECOND = 1_000_000_000


def make_world(replicas: int = 4, **fields: object) -> World:
    world = World(nodes=3)
    world.add_service("web", replicas=replicas, task__container__image="hello:1", **fields)
    world.run()
    return world


def update(world: World, image: str = "hello:2") -> None:
    world.update_service("web", task__container__image=image)


def images(world: World) -> Counter[str]:
    return Counter(task.spec.container.image for task in world.running("web"))


def status(world: World) -> tuple[UpdateState, str]:
    found = world.services["web"].update_status
    assert found is not None
    return (found.state, found.message)


def break_image(world: World, image: str) -> None:
    """Tasks with that image fail as soon as they should run."""
    for task in world.tasks.values():
        may_start = task.desired_state is TaskState.RUNNING and task.status.state.uses_node
        if task.spec.container.image == image and may_start:
            world.report(task.id, TaskState.FAILED, "exit 1")


def test_stop_first_renews_one_slot_after_the_other() -> None:
    world = make_world()
    update(world)
    world.step()
    assert status(world) == (UpdateState.UPDATING, "update in progress")
    assert world.ps("web").splitlines()[:2] == ["1 t001 n1 running/shutdown", "1 t005 n1 assigned/ready"]
    fewest = 4
    for _ in range(20):
        world.agents()
        world.step()
        fewest = min(fewest, sum(images(world).values()))
    assert fewest == 3
    world.run(seconds=4)
    assert status(world)[0] is UpdateState.UPDATING, "the last task is still being monitored"
    world.run(seconds=2)
    assert status(world) == (UpdateState.COMPLETED, "update completed")


def test_start_first_never_has_fewer_tasks() -> None:
    world = make_world(update__order=UpdateOrder.START_FIRST, update__parallelism=2)
    update(world)
    most = 0
    for _ in range(20):
        world.step()
        assert len(world.running("web")) >= 4
        most = max(most, len(world.live("web")))
        world.agents()
        world.step()
    assert most == 6


@pytest.mark.parametrize(("parallelism", "at_once"), [(1, 1), (3, 3), (0, 4)])
def test_parallelism(parallelism: int, at_once: int) -> None:
    world = make_world(update__parallelism=parallelism)
    update(world)
    world.step()
    new = [t for t in world.live("web") if t.spec.container.image == "hello:2"]
    assert len(new) == at_once


def test_delay_between_slots() -> None:
    world = make_world(replicas=2, update__delay_ns=30 * SECOND)
    update(world)
    world.run(seconds=29)
    assert images(world) == {"hello:1": 1, "hello:2": 1}
    world.run(seconds=2)
    assert images(world) == {"hello:2": 2}


def test_scaling_is_no_update() -> None:
    world = make_world()
    world.update_service("web", replicas=6)
    world.run(seconds=60)
    assert world.services["web"].update_status is None
    assert len(world.tasks) == 6


def test_failure_pauses() -> None:
    world = make_world()
    update(world)
    for _ in range(6):
        break_image(world, "hello:2")
        world.agents()
        world.step()
    assert status(world) == (
        UpdateState.PAUSED,
        "update paused due to failure or early termination of task t005",
    )
    assert images(world)["hello:1"] == 3


def test_failure_rolls_back() -> None:
    world = make_world(update__failure_action=FailureAction.ROLLBACK)
    update(world)
    for _ in range(6):
        break_image(world, "hello:2")
        world.agents()
        world.step()
    assert status(world)[0] is UpdateState.ROLLBACK_STARTED
    assert "update rolled back due to failure or early termination of task t005" in status(world)[1]
    world.run(seconds=60)
    assert images(world) == {"hello:1": 4}
    assert status(world) == (UpdateState.ROLLBACK_COMPLETED, "rollback completed")
    untouched = [t for t in world.running("web") if t.id in ("t002", "t003", "t004")]
    assert len(untouched) == 3, "tasks that already have the old spec are left alone"


def test_failed_rollback_pauses() -> None:
    world = make_world(update__failure_action=FailureAction.ROLLBACK)
    update(world)
    for _ in range(12):
        break_image(world, "hello:2")
        for task in world.live("web"):
            if task.spec_version == 3 and task.desired_state is TaskState.RUNNING and task.node_id:
                world.report(task.id, TaskState.FAILED)
        world.agents()
        world.step()
        world.now += 5
    assert status(world)[0] is UpdateState.ROLLBACK_PAUSED


def test_continue_goes_on_and_ends() -> None:
    world = make_world(update__failure_action=FailureAction.CONTINUE)
    update(world)
    for _ in range(100):
        break_image(world, "hello:2")
        world.agents()
        world.step()
        world.now += 1
    assert images(world)["hello:1"] == 0
    assert status(world)[0] is UpdateState.COMPLETED


def test_failure_ratio_tolerates_some() -> None:
    world = make_world(update__max_failure_ratio=0.25)
    update(world)
    world.step()
    world.report("t005", TaskState.FAILED)
    world.run(seconds=60)
    assert status(world)[0] is UpdateState.COMPLETED
    assert images(world) == {"hello:2": 4}


def test_an_update_that_cannot_run_ends_at_the_deadline() -> None:
    world = make_world()
    world.update_service("web", task__placement__constraints=("node.labels.disk==ssd",))
    world.run(seconds=590, pause=10)
    assert status(world)[0] is UpdateState.UPDATING
    world.run(seconds=20, pause=10)
    assert status(world) == (UpdateState.PAUSED, "update paused due to task t005 not running after 600s")


def test_a_new_update_replaces_the_running_one() -> None:
    world = make_world()
    update(world, "hello:2")
    world.agents()
    world.step()
    update(world, "hello:3")
    world.run(seconds=10)
    assert images(world) == {"hello:3": 4}


def test_node_loss_during_an_update_needs_no_extra_slot() -> None:
    world = make_world()
    update(world)
    world.step()
    world.node_state("n3", NodeState.DOWN)
    world.run(seconds=20)
    assert images(world) == {"hello:2": 4}
    assert status(world)[0] is UpdateState.COMPLETED


def test_a_new_leader_goes_on_where_the_old_one_was() -> None:
    """All that an update needs is in the store: a copy of it behaves the same."""
    world = make_world()
    update(world)
    for _ in range(3):
        world.agents()
        world.step()
    heir = World(nodes=0)
    for table in (world.nodes, world.services, world.tasks):
        for obj in table.values():
            heir.put(change(obj))
            heir.now = world.now
    heir.new_id = world.new_id  # type: ignore[method-assign]
    heir.now -= 30  # and its clock is behind
    for _ in range(20):
        heir.agents()
        heir.step()
        assert sum(images(heir).values()) >= 3
    assert images(heir) == {"hello:2": 4}
    heir.run(seconds=60)
    assert status(heir)[0] is UpdateState.COMPLETED
    assert images(heir) == {"hello:2": 4}
