"""Decisions as transcripts: what the leader does, in its own words, when something happens to a service."""

from __future__ import annotations

from textwrap import dedent

import pytest
from cluster_world import World, change

from raft.objects.node import Availability, NodeState
from raft.objects.service import RestartCondition, ServiceMode
from raft.objects.task import TaskState
from scheduler.actions import describe
from scheduler.plan import Plan

SECOND = 1_000_000_000


def transcript(plan: Plan) -> str:
    return "\n".join(describe(action) for action in plan.actions)


def text(block: str) -> str:
    return dedent(block).strip()


@pytest.fixture
def world() -> World:
    return World(nodes=3)


def running_service(world: World, name: str = "web", **fields: object) -> None:
    world.add_service(name, **fields)
    world.run()


def test_create_goes_to_assigned_in_one_decision(world: World) -> None:
    world.add_service("web", replicas=3)
    assert transcript(world.step()) == text(
        """
        update service web: service has its virtual addresses and ports
        create task t001: slot 1 is empty; allocated; assigned to node n1
        create task t002: slot 2 is empty; allocated; assigned to node n2
        create task t003: slot 3 is empty; allocated; assigned to node n3
        """
    )
    assert world.decide().actions == []


def test_scale_up_fills_the_lowest_free_slots(world: World) -> None:
    running_service(world, replicas=3)
    world.put(change(world.tasks["t001"], status__state=TaskState.STARTING))
    world.update_service("web", replicas=2)
    assert transcript(world.step()) == "update task t001: scaled down to 2"
    world.run()
    world.update_service("web", replicas=4)
    world.step()
    assert [task.slot for task in world.live("web")] == [1, 2, 3, 4]


def test_scale_down_takes_from_the_fullest_node_what_does_not_run(world: World) -> None:
    running_service(world, replicas=7)
    assert world.ps("web") == text(
        """
        1 t001 n1 running/running
        2 t002 n2 running/running
        3 t003 n3 running/running
        4 t004 n1 running/running
        5 t005 n2 running/running
        6 t006 n3 running/running
        7 t007 n1 running/running
        """
    )
    world.update_service("web", replicas=6)
    assert transcript(world.step()) == "update task t007: scaled down to 6"
    world.run()
    world.put(change(world.tasks["t002"], status__state=TaskState.STARTING))
    world.update_service("web", replicas=5)
    assert transcript(world.step()) == "update task t002: scaled down to 5"
    world.run()
    assert "t002" not in world.tasks, "a task that is removed and has stopped is deleted"


def test_a_down_node_is_replaced_at_once(world: World) -> None:
    running_service(world, replicas=3)
    world.node_state("n2", NodeState.DOWN)
    plan = world.step()
    assert transcript(plan) == text(
        """
        update task t002: node n2 is down
        create task t004: node n2 is down; allocated; assigned to node n1
        """
    )
    assert world.ps("web") == text(
        """
        1 t001 n1 running/running
        2 t002 n2 running/shutdown
        2 t004 n1 assigned/running
        3 t003 n3 running/running
        """
    )
    world.node_state("n2", NodeState.READY)
    world.run()
    assert [task.id for task in world.running("web")] == ["t001", "t004", "t003"]


def test_a_disconnected_node_keeps_its_tasks(world: World) -> None:
    running_service(world, replicas=3)
    world.node_state("n2", NodeState.DISCONNECTED)
    assert world.decide().actions == []


def test_a_drained_node_stops_its_task_before_the_new_one_runs(world: World) -> None:
    running_service(world, replicas=3)
    world.availability("n2", Availability.DRAIN)
    world.step()
    assert world.ps("web").splitlines()[1:3] == ["2 t002 n2 running/shutdown", "2 t004 n1 assigned/ready"]
    world.report("t002", TaskState.SHUTDOWN)
    assert transcript(world.step()) == "update task t004: the old task has stopped"


def test_an_old_task_that_never_stops_is_waited_for_with_a_bound(world: World) -> None:
    running_service(world, replicas=1)
    world.availability("n1", Availability.DRAIN)
    world.step()
    world.now += 69.0
    assert world.decide().actions == []
    assert world.decide().dues["web"] == pytest.approx(1070.0, abs=0.1)
    world.now += 1.1
    assert transcript(world.step()) == "update task t002: the old task has stopped"


def test_a_removed_node_is_replaced(world: World) -> None:
    running_service(world, replicas=3)
    del world.nodes["n3"]
    assert "create task t004: node n3 was removed" in transcript(world.step())


def test_changed_labels_move_the_task(world: World) -> None:
    for name in ("n1", "n2"):
        world.put(change(world.nodes[name], spec__annotations__labels={"disk": "ssd"}))
    running_service(world, replicas=1, task__placement__constraints=("node.labels.disk == ssd",))
    world.put(change(world.nodes["n1"], spec__annotations__labels={}))
    world.run()
    assert [(t.node_id, t.id) for t in world.running("web")] == [("n2", "t002")]


# ---- restart policy ----


def fail(world: World, state: TaskState = TaskState.FAILED, error: str = "exit 1") -> Plan:
    (task,) = world.running("web")
    world.report(task.id, state, error)
    return world.step()


def test_a_failed_task_is_restarted_after_the_delay(world: World) -> None:
    running_service(world)
    plan = fail(world)
    assert transcript(plan) == text(
        """
        update task t001: task t001 is failed: exit 1
        create task t002: task t001 is failed: exit 1; restart in 5s; allocated; assigned to node n1
        """
    )
    assert plan.dues == {"web": 1005.0}
    assert world.tasks["t002"].desired_state is TaskState.READY
    world.now = 1005.0
    assert transcript(world.step()) == "update task t002: restart delay is over"


@pytest.mark.parametrize(
    ("condition", "state", "restarts"),
    [
        (RestartCondition.ANY, TaskState.COMPLETE, True),
        (RestartCondition.ON_FAILURE, TaskState.COMPLETE, False),
        (RestartCondition.ON_FAILURE, TaskState.FAILED, True),
        (RestartCondition.NONE, TaskState.FAILED, False),
    ],
)
def test_restart_condition(
    world: World, condition: RestartCondition, state: TaskState, restarts: bool
) -> None:
    running_service(world, task__restart__condition=condition)
    fail(world, state)
    assert bool(world.live("web")) is restarts
    world.run(seconds=60)
    assert bool(world.running("web")) is restarts


def test_max_attempts_count_over_the_persisted_history(world: World) -> None:
    running_service(world, task__restart__max_attempts=2, task__restart__delay_ns=SECOND)
    for _ in range(3):
        fail(world)
        world.run(seconds=60)
    assert world.live("web") == []
    assert len(world.tasks) == 3
    assert world.decide().actions == [], "a finished slot is not filled again"


def test_attempts_outside_the_window_do_not_count(world: World) -> None:
    running_service(
        world,
        task__restart__max_attempts=1,
        task__restart__delay_ns=SECOND,
        task__restart__window_ns=100 * SECOND,
    )
    for _ in range(3):
        world.run(seconds=200)
        fail(world)
    world.run(seconds=10)
    assert len(world.running("web")) == 1
    fail(world)
    world.run(seconds=200)
    assert world.live("web") == []


def test_repeated_failure_backs_off(world: World) -> None:
    running_service(world)
    delays = []
    for _ in range(4):
        plan = fail(world)
        delays.append(plan.dues["web"] - world.now)
        world.run(seconds=delays[-1])
    assert delays == [5.0, 5.0, 10.0, 20.0]


def test_a_lost_node_costs_no_attempt(world: World) -> None:
    running_service(world, task__restart__max_attempts=1)
    for name in ("n1", "n2"):
        world.node_state(name, NodeState.DOWN)
        world.run()
    assert len(world.running("web")) == 1
    fail(world)
    world.run(seconds=10)
    assert len(world.running("web")) == 1


def test_a_task_that_was_stopped_unasked_is_replaced_after_the_delay(world: World) -> None:
    running_service(world, task__restart__condition=RestartCondition.NONE)
    assert "restart in 5s" in transcript(fail(world, TaskState.SHUTDOWN))
    world.run(seconds=5)
    assert len(world.running("web")) == 1


def test_completions_do_not_back_off(world: World) -> None:
    running_service(world)
    for _ in range(4):
        plan = fail(world, TaskState.COMPLETE)
        assert plan.dues["web"] - world.now == 5.0
        world.run(seconds=5)


# ---- global services ----


def test_global_follows_the_nodes(world: World) -> None:
    world.availability("n3", Availability.PAUSE)
    running_service(world, "each", mode=ServiceMode.GLOBAL)
    assert [t.node_id for t in world.running("each")] == ["n1", "n2"]
    world.availability("n1", Availability.PAUSE)
    world.node_state("n2", NodeState.DOWN)
    world.add_node("n4")
    assert transcript(world.step()) == text(
        """
        update task t002: node n2 is down
        create task t003: slot n4 is empty; allocated; assigned to node n4
        """
    )
    world.run()
    assert [t.node_id for t in world.running("each")] == ["n1", "n4"]
    world.node_state("n2", NodeState.READY)
    world.availability("n4", Availability.DRAIN)
    world.run()
    assert [t.node_id for t in world.running("each")] == ["n1", "n2"]


def test_global_task_without_room_says_why(world: World) -> None:
    world.add_service("each", mode=ServiceMode.GLOBAL, task__resources__reservations__memory_bytes=1 << 40)
    world.run()
    errors = {task.status.error for task in world.tasks.values()}
    assert errors == {"no suitable node (insufficient resources on 1 node)"}


# ---- housekeeping ----


def test_history_keeps_five_tasks_per_slot(world: World) -> None:
    running_service(world, replicas=2, task__restart__delay_ns=0)
    for _ in range(8):
        slot_one = next(t for t in world.running("web") if t.slot == 1)
        world.report(slot_one.id, TaskState.FAILED)
        world.run()
    slots = [task.slot for task in world.tasks.values()]
    assert (slots.count(1), slots.count(2)) == (5, 1)


def test_history_of_zero_keeps_what_tells_that_a_slot_is_finished(world: World) -> None:
    world.cluster = change(world.cluster, spec__task_history_limit=0)
    running_service(world, task__restart__condition=RestartCondition.NONE)
    fail(world)
    world.run(seconds=60)
    assert [t.status.state for t in world.tasks.values()] == [TaskState.FAILED]


def test_tasks_of_a_removed_service_go_when_they_have_stopped(world: World) -> None:
    running_service(world, replicas=2)
    del world.services["web"]
    assert transcript(world.step()) == text(
        """
        update task t001: service was removed
        update task t002: service was removed
        """
    )
    world.report("t001", TaskState.SHUTDOWN)
    assert transcript(world.step()) == "delete task t001: removed and stopped"
    world.run()
    assert world.tasks == {}


def test_a_service_marked_for_deletion_goes_last(world: World) -> None:
    running_service(world, replicas=2)
    world.put(change(world.services["web"], pending_delete=True))
    world.run()
    assert (world.tasks, world.services) == ({}, {})


def test_a_task_on_a_down_node_is_not_forgotten(world: World) -> None:
    running_service(world, replicas=1)
    world.node_state("n1", NodeState.DOWN)
    del world.services["web"]
    world.run(seconds=100)
    assert world.ps("web") == "1 t001 n1 running/remove"
    world.report("t001", TaskState.ORPHANED)
    world.run()
    assert world.tasks == {}


def test_waiting_tasks_of_a_removed_service_are_deleted_at_once(world: World) -> None:
    world.add_service("web", task__placement__constraints=("node.labels.disk==ssd",))
    world.run()
    del world.services["web"]
    world.run()
    assert world.tasks == {}
