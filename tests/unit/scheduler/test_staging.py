"""A pass's own view: reads see what was staged, and each object is written once."""

from __future__ import annotations

from cluster_world import World, change

from raft.objects.base import Kind
from raft.objects.task import Task
from scheduler.actions import Create, Delete, Update, describe
from scheduler.staging import Staging


def make_staging() -> tuple[World, Staging]:
    world = World(nodes=1)
    for number in (1, 2):
        world.put(Task(id=f"t{number}", service_id="web", slot=number))
    return world, Staging(world)


def test_reads_see_the_staged_state() -> None:
    world, staging = make_staging()
    moved = change(world.tasks["t2"], node_id="n1")
    added = Task(id="t3", service_id="web", slot=3)
    staging.stage(
        [Delete(Kind.TASK, "t1", "over"), Update(Kind.TASK, moved, "moved"), Create(Kind.TASK, added, "new")]
    )
    assert dict(staging.tasks) == {"t2": moved, "t3": added}
    assert len(staging.tasks) == 2
    assert "t1" not in staging.tasks
    assert staging.tasks_of_service("web") == [moved, added]
    assert staging.tasks_of_node("n1") == [moved]
    assert set(world.tasks) == {"t1", "t2"}, "the view below is never touched"


def test_actions_on_one_object_become_one() -> None:
    world, staging = make_staging()
    added = Task(id="t3", service_id="web")
    staging.stage([Create(Kind.TASK, added, "slot 3 is empty")])
    staging.stage([Update(Kind.TASK, change(added, node_id="n1"), "assigned")])
    staging.stage(
        [Update(Kind.NODE, world.nodes["n1"], "address"), Update(Kind.NODE, world.nodes["n1"], "address")]
    )
    assert [describe(action) for action in staging.merged()] == [
        "update node n1: address",
        "create task t3: slot 3 is empty; assigned",
    ]


def test_what_is_created_and_deleted_in_one_pass_is_nothing() -> None:
    _, staging = make_staging()
    staging.stage([Create(Kind.TASK, Task(id="t3"), "new"), Delete(Kind.TASK, "t3", "not wanted after all")])
    assert staging.merged() == []
    staging.stage([Delete(Kind.TASK, "t1", "over")])
    assert staging.merged() == [Delete(Kind.TASK, "t1", "over")]
