"""The network map: who is a peer, a name, a backend; what a node gets; when a version grows."""

from __future__ import annotations

import time

import pytest
from cluster_world import World, change

from raft.objects.assignment import MapNetwork, NetworkMap
from raft.objects.node import NodeState
from raft.objects.service import EndpointMode, NetworkAttachmentSpec, PortConfig
from raft.objects.task import TaskState
from scheduler.netmap import SharedMap, network_map


@pytest.fixture
def world() -> World:
    world = World(nodes=3)
    world.add_network("ingress", spec__ingress=True)
    world.add_network("front")
    networks = (NetworkAttachmentSpec(target="front", aliases=("WWW",)),)
    world.add_service(
        "Web",
        replicas=2,
        task__networks=networks,
        endpoint__ports=(PortConfig(target=80, published=8080),),
    )
    world.run()
    return world


def part(found: NetworkMap, name: str) -> MapNetwork:
    return next(network for network in found.networks if network.name == name)


def names(network: MapNetwork) -> dict[str, tuple[str, ...]]:
    return {entry.name: entry.addresses for entry in network.names}


def test_a_node_gets_the_networks_of_its_tasks_and_the_ingress(world: World) -> None:
    assert [n.name for n in network_map(world, "n1").networks] == ["front", "ingress"]
    assert [n.name for n in network_map(world, "n3").networks] == ["ingress"]
    world.update_service("Web", endpoint__ports=())
    world.run(seconds=60)
    assert network_map(world, "n3").networks == ()


def test_names_and_backends(world: World) -> None:
    front = part(network_map(world, "n1"), "front")
    assert names(front) == {
        "web": ("10.0.1.2",),
        "www": ("10.0.1.2",),
        "tasks.web": ("10.0.1.3", "10.0.1.4"),
        "web.1.t001": ("10.0.1.3",),
        "web.2.t002": ("10.0.1.4",),
    }
    (vip,) = front.vips
    assert (vip.address, vip.service_name) == ("10.0.1.2", "Web")
    assert [(b.address, b.task_id) for b in vip.backends] == [("10.0.1.3", "t001"), ("10.0.1.4", "t002")]
    assert [(p.address, p.mac, p.node_address) for p in front.peers] == [
        ("10.0.1.4", "02:42:0a:00:01:04", "192.168.0.2")
    ]


def test_dnsrr_answers_with_the_tasks(world: World) -> None:
    world.add_service(
        "db",
        replicas=2,
        task__networks=(NetworkAttachmentSpec(target="front"),),
        endpoint__mode=EndpointMode.DNSRR,
    )
    world.run()
    front = part(network_map(world, "n1"), "front")
    assert names(front)["db"] == names(front)["tasks.db"]
    assert len(names(front)["db"]) == 2


def test_ingress(world: World) -> None:
    found = network_map(world, "n3")
    ingress = part(found, "ingress")
    assert (ingress.local_address, ingress.local_mac) == ("10.0.0.4/24", "02:42:0a:00:00:04")
    assert [(g.address, g.node_address) for g in ingress.gateways] == [
        ("10.0.0.2", "192.168.0.1"),
        ("10.0.0.3", "192.168.0.2"),
        ("10.0.0.4", "192.168.0.3"),
    ]
    assert ingress.names == ()
    (port,) = found.ports
    assert (port.protocol, port.published, port.target, port.service_name) == ("tcp", 8080, 80, "Web")
    assert [b.task_id for b in port.backends] == ["t001", "t002"]
    assert len(ingress.peers) == 2


@pytest.mark.parametrize("how", ["starting", "stopping", "node down"])
def test_only_routable_tasks_are_answered_but_all_are_peers(world: World, how: str) -> None:
    task = world.tasks["t002"]
    match how:
        case "starting":
            world.put(change(task, status__state=TaskState.STARTING))
        case "stopping":
            world.put(change(task, desired_state=TaskState.SHUTDOWN))
        case "node down":
            world.node_state("n2", NodeState.DOWN)
    found = network_map(world, "n1")
    front = part(found, "front")
    assert names(front)["tasks.web"] == ("10.0.1.3",)
    assert "web.2.t002" not in names(front)
    assert [b.task_id for b in front.vips[0].backends] == ["t001"]
    assert [b.task_id for b in found.ports[0].backends] == ["t001"]
    assert [p.address for p in front.peers] == ["10.0.1.4"]


def test_an_ended_task_is_no_peer(world: World) -> None:
    world.report("t002", TaskState.FAILED)
    assert part(network_map(world, "n1"), "front").peers == ()
    assert [n.name for n in network_map(world, "n2").networks] == ["ingress"]


def test_a_service_without_running_tasks_keeps_its_virtual_address(world: World) -> None:
    world.put(change(world.tasks["t001"], status__state=TaskState.STARTING))
    world.put(change(world.tasks["t002"], status__state=TaskState.STARTING))
    front = part(network_map(world, "n1"), "front")
    assert names(front) == {"web": ("10.0.1.2",), "www": ("10.0.1.2",)}
    assert front.vips[0].backends == ()


def test_versions_follow_content(world: World) -> None:
    first = network_map(world, "n1")
    assert (first.version, {n.version for n in first.networks}) == (1, {1})
    world.put(change(world.tasks["t001"], status__message="still fine"))
    assert network_map(world, "n1", first) is first
    world.put(change(world.tasks["t002"], desired_state=TaskState.SHUTDOWN))
    second = network_map(world, "n1", first)
    assert second.version == 2
    assert part(second, "front").version == 2
    assert part(second, "ingress").version == 1, "its own part is the same; only the port's backends changed"
    assert SharedMap(world).of_node("n1", second) is second
    assert SharedMap(world).of_node("n1", None, floor=41).version == 42


def test_a_hundred_tasks_on_three_nodes_take_milliseconds(world: World) -> None:
    world.update_service("Web", replicas=100)
    world.run()
    times = []
    for _ in range(5):
        start = time.process_time()
        shared = SharedMap(world)
        for node in world.nodes:
            shared.of_node(node, None)
        times.append(time.process_time() - start)
    assert min(times) < 0.02
