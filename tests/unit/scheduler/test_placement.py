"""Filters with their explanations, and the ranking of the nodes that are left."""

from __future__ import annotations

from collections import Counter

import pytest
from cluster_world import GIB, World, change

from raft.objects.base import Platform
from raft.objects.node import Availability, NodeState
from raft.objects.service import PortConfig, PublishMode, ServiceMode, SpreadPreference
from raft.objects.task import TaskState
from scheduler import constraints


def reason(world: World, service: str = "web") -> set[str]:
    return {task.status.error for task in world.live(service) if not task.node_id}


def nodes_of(world: World, service: str = "web") -> Counter[str]:
    return Counter(task.node_id for task in world.live(service))


def test_explanation_counts_nodes_by_reason() -> None:
    world = World(nodes=4)
    world.put(change(world.nodes["n4"], spec__annotations__labels={"disk": "hdd"}))
    for name in ("n1", "n2", "n3"):
        world.put(
            change(
                world.nodes[name],
                spec__annotations__labels={"disk": "ssd"},
                description__resources__memory_bytes=GIB,
            )
        )
    world.add_service(
        "web",
        task__resources__reservations__memory_bytes=2 * GIB,
        task__placement__constraints=("node.labels.disk==ssd",),
    )
    world.step()
    assert reason(world) == {
        "no suitable node (insufficient resources on 3 nodes; scheduling constraints not satisfied on 1 node)"
    }
    commits = world.commits
    world.step()
    assert world.commits == commits, "the same explanation is not written again"
    world.put(change(world.nodes["n1"], description__resources__memory_bytes=4 * GIB))
    world.step()
    assert nodes_of(world) == {"n1": 1}
    assert world.live("web")[0].status.error == ""


def test_nodes_that_are_not_available() -> None:
    world = World(nodes=3)
    world.node_state("n1", NodeState.DOWN)
    world.availability("n2", Availability.PAUSE)
    world.node_state("n3", NodeState.UNKNOWN)
    world.add_service("web")
    world.step()
    assert reason(world) == {"no suitable node (3 nodes not available for new tasks)"}


def test_no_node_at_all() -> None:
    world = World(nodes=0)
    world.add_service("web")
    world.step()
    assert reason(world) == {"no suitable node"}


def test_reservations_fill_a_node_and_are_freed_when_the_task_stops() -> None:
    world = World(nodes=2)
    world.add_service("web", replicas=9, task__resources__reservations__nano_cpus=1_000_000_000)
    world.run()
    assert nodes_of(world) == {"n1": 4, "n2": 4, "": 1}
    assert reason(world) == {"no suitable node (insufficient resources on 2 nodes)"}
    world.report(world.running("web")[0].id, TaskState.SHUTDOWN)
    world.step()
    assert nodes_of(world)[""] == 1, "the lost task's slot and the waiting one ask for one place"


def test_host_port_is_taken_once_per_node() -> None:
    world = World(nodes=2)
    port = PortConfig(target=80, published=8080, mode=PublishMode.HOST)
    world.add_service("web", replicas=3, endpoint__ports=(port,))
    world.step()
    assert nodes_of(world) == {"n1": 1, "n2": 1, "": 1}
    assert reason(world) == {"no suitable node (host-mode port already in use on 2 nodes)"}
    world.add_service("db", endpoint__ports=(port,))
    world.step()
    assert reason(world, "db") == {"no suitable node (host-mode port already in use on 2 nodes)"}


def test_max_replicas_per_node() -> None:
    world = World(nodes=2)
    world.add_service("web", replicas=5, task__placement__max_replicas=2)
    world.step()
    assert nodes_of(world) == {"n1": 2, "n2": 2, "": 1}
    assert reason(world) == {"no suitable node (max replicas per node limit exceed)"}


def test_platform() -> None:
    world = World(nodes=2)
    world.put(change(world.nodes["n1"], description__platform=Platform(os="linux", architecture="x86_64")))
    world.put(change(world.nodes["n2"], description__platform=Platform(os="linux", architecture="aarch64")))
    world.add_service("web", task__placement__platforms=(Platform(os="linux", architecture="arm64"),))
    world.add_service("win", task__placement__platforms=(Platform(os="windows", architecture="amd64"),))
    world.step()
    assert nodes_of(world) == {"n2": 1}
    assert reason(world, "win") == {"no suitable node (unsupported platform on 2 nodes)"}


def test_fewest_tasks_of_the_service_then_fewest_tasks() -> None:
    world = World(nodes=3)
    world.add_service("a", replicas=2)
    world.step()
    world.add_service("b", replicas=1)
    world.step()
    assert nodes_of(world, "b") == {"n3": 1}
    world.add_service("c", replicas=6)
    world.step()
    assert nodes_of(world, "c") == {"n1": 2, "n2": 2, "n3": 2}


def test_a_node_where_the_service_keeps_failing_comes_last() -> None:
    world = World(nodes=2)
    world.cluster = change(world.cluster, spec__task_history_limit=20)
    world.add_service("web", task__restart__delay_ns=0)
    seen = []
    for _ in range(7):
        world.run()
        (task,) = world.running("web")
        seen.append(task.node_id)
        world.report(task.id, TaskState.FAILED)
    assert seen == ["n1"] * 5 + ["n2"] * 2
    world.run()
    world.now += 301
    world.update_service("web", task__force_update=1)
    world.run(seconds=20)
    assert nodes_of(world) == {"n1": 1}, "old failures, and those of older versions, are forgiven"


def test_spread_over_racks_before_nodes() -> None:
    world = World(nodes=4)
    for name, rack in (("n1", "a"), ("n2", "a"), ("n3", "a"), ("n4", "b")):
        world.put(change(world.nodes[name], spec__annotations__labels={"rack": rack}))
    preference = SpreadPreference(descriptor="node.labels.rack")
    world.add_service("web", replicas=6, task__placement__preferences=(preference,))
    world.step()
    assert nodes_of(world) == {"n1": 1, "n2": 1, "n3": 1, "n4": 3}


def test_nested_spread_and_a_missing_label() -> None:
    world = World(nodes=4)
    for name, labels in (
        ("n1", {"dc": "x", "rack": "1"}),
        ("n2", {"dc": "x", "rack": "2"}),
        ("n3", {"dc": "x", "rack": "2"}),
    ):
        world.put(change(world.nodes[name], spec__annotations__labels=labels))
    preferences = tuple(SpreadPreference(descriptor=f"node.labels.{key}") for key in ("dc", "rack"))
    world.add_service("web", replicas=8, task__placement__preferences=preferences)
    world.step()
    assert nodes_of(world) == {"n4": 4, "n1": 2, "n2": 1, "n3": 1}


def test_global_tasks_pass_the_same_filters() -> None:
    world = World(nodes=2)
    port = PortConfig(target=80, published=8080, mode=PublishMode.HOST)
    world.add_service("web", replicas=1, endpoint__ports=(port,))
    world.step()
    world.add_service("each", mode=ServiceMode.GLOBAL, endpoint__ports=(port,))
    world.step()
    states = {t.node_id: (t.status.state, t.status.error) for t in world.live("each")}
    assert states == {
        "n1": (TaskState.PENDING, "no suitable node (host-mode port already in use on 1 node)"),
        "n2": (TaskState.ASSIGNED, ""),
    }


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("node.id == n1", True),
        ("node.hostname!=n1", False),
        ("node.role==WORKER", True),
        ("node.labels.Rack==a", True),
        ("node.labels.rack==a", False),
        ("node.labels.missing!=a", True),
        ("engine.labels.gpu==yes", True),
        ("node.platform.arch==x86_64", True),
        ("node.platform.arch==amd64", True),
        ("node.ip==192.168.0.0/24", True),
        ("node.ip!=192.168.0.1", False),
        ("node.ip==10.0.0.0/8", False),
        ("node.colour==red", False),
        ("nonsense", False),
        ("node.id==", False),
    ],
)
def test_constraints(text: str, matches: bool) -> None:
    world = World(nodes=1)
    node = change(
        world.nodes["n1"],
        spec__annotations__labels={"Rack": "a"},
        description__engine_labels={"gpu": "yes"},
        description__platform=Platform(os="linux", architecture="x86_64"),
    )
    assert constraints.satisfied((text,), node) is matches
