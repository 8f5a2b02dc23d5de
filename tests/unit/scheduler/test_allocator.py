"""Subnets, VNIs, virtual addresses, ports and task addresses: unique, kept, and explained when lacking."""

from __future__ import annotations

import pytest
from cluster_world import World, change

from raft.objects.cluster import IpamConfig, Network
from raft.objects.service import (
    EndpointMode,
    NetworkAttachmentSpec,
    PortConfig,
    PublishMode,
    VirtualIP,
)
from raft.objects.task import TaskState
from scheduler.addresses import Subnet, free_subnet, mac_of, overlaps, subnet_count


def attached(*networks: str) -> tuple[NetworkAttachmentSpec, ...]:
    return tuple(NetworkAttachmentSpec(target=network) for network in networks)


def subnets(world: World) -> dict[str, tuple[str, str, int]]:
    return {n.id: (n.ipam[0].subnet, n.ipam[0].gateway, n.vni) for n in world.networks.values() if n.ipam}


@pytest.fixture
def world() -> World:
    world = World(nodes=2)
    world.add_network("ingress", spec__ingress=True)
    world.step()
    return world


def test_networks_get_free_subnets_and_numbers(world: World) -> None:
    world.add_network("given", spec__ipam=(IpamConfig(subnet="10.0.1.0/25", gateway="10.0.1.100"),))
    world.add_network("a")
    world.add_network("b")
    world.step()
    assert subnets(world) == {
        "ingress": ("10.0.0.0/24", "10.0.0.1", 4096),
        "given": ("10.0.1.0/25", "10.0.1.100", 4097),
        "a": ("10.0.2.0/24", "10.0.2.1", 4098),
        "b": ("10.0.3.0/24", "10.0.3.1", 4099),
    }
    del world.networks["a"]
    world.add_network("c")
    world.step()
    assert subnets(world)["c"][0] not in {s for name, (s, _, _) in subnets(world).items() if name != "c"}


def test_full_pools_are_explained_with_numbers(world: World) -> None:
    world.cluster = change(world.cluster, default_address_pools=("10.0.0.0/23",))
    world.add_network("a")
    world.step()
    world.add_network("b")
    world.add_service("web", task__networks=attached("b"))
    world.step()
    (task,) = world.live("web")
    assert task.status.state is TaskState.NEW
    assert task.status.error == (
        "network b: no free /24 subnet in the default address pools 10.0.0.0/23 "
        "(2 subnets in use of 2); remove a network or give this one a --subnet"
    )
    del world.networks["a"]
    world.step()
    assert world.live("web")[0].status.state is TaskState.ASSIGNED
    assert world.live("web")[0].status.error == ""


def test_wished_subnet_that_overlaps_is_explained(world: World) -> None:
    world.add_network("a", spec__ipam=(IpamConfig(subnet="10.0.0.128/25"),))
    world.add_service("web", task__networks=attached("a"))
    world.step()
    assert world.live("web")[0].status.error == (
        "network a: subnet 10.0.0.128/25 overlaps with 10.0.0.0/24, which is in use"
    )


def test_every_node_has_an_ingress_address(world: World) -> None:
    world.add_node("n3")
    world.step()
    own = {n.id: (n.networks[0].address, n.networks[0].mac) for n in world.nodes.values()}
    assert own == {
        "n1": ("10.0.0.2/24", "02:42:0a:00:00:02"),
        "n2": ("10.0.0.3/24", "02:42:0a:00:00:03"),
        "n3": ("10.0.0.4/24", "02:42:0a:00:00:04"),
    }


def test_service_and_task_addresses(world: World) -> None:
    world.add_network("front")
    ports = (PortConfig(target=80, published=8080), PortConfig(target=81), PortConfig(target=82))
    world.add_service("web", replicas=2, task__networks=attached("front"), endpoint__ports=ports)
    world.step()
    endpoint = world.services["web"].endpoint
    assert endpoint is not None
    assert [p.published for p in endpoint.ports] == [8080, 30000, 30001]
    assert endpoint.virtual_ips == (
        VirtualIP(network_id="front", address="10.0.1.2/24"),
        VirtualIP(network_id="ingress", address="10.0.0.4/24"),
    )
    addresses = [[(a.network_id, a.address) for a in t.networks] for t in world.live("web")]
    assert addresses == [
        [("front", "10.0.1.3/24"), ("ingress", "10.0.0.5/24")],
        [("front", "10.0.1.4/24"), ("ingress", "10.0.0.6/24")],
    ]
    assert all(task.endpoint == endpoint for task in world.live("web"))


def test_dnsrr_has_no_virtual_address(world: World) -> None:
    world.add_network("front")
    world.add_service("web", task__networks=attached("front"), endpoint__mode=EndpointMode.DNSRR)
    world.step()
    assert world.services["web"].endpoint.virtual_ips == ()  # type: ignore[union-attr]
    assert world.live("web")[0].networks[0].address == "10.0.1.2/24"


def test_an_update_keeps_what_it_can(world: World) -> None:
    world.add_network("front")
    world.add_network("back")
    world.add_service(
        "web",
        task__networks=attached("front"),
        endpoint__ports=(PortConfig(target=80), PortConfig(target=81)),
    )
    world.run()
    before = world.services["web"].endpoint
    world.update_service(
        "web",
        task__networks=attached("front", "back"),
        endpoint__ports=(PortConfig(target=81), PortConfig(target=90, published=9090)),
    )
    world.step()
    after = world.services["web"].endpoint
    assert before is not None
    assert after is not None
    assert [p.published for p in after.ports] == [before.ports[1].published, 9090]
    kept = {vip.network_id: vip.address for vip in after.virtual_ips}
    assert kept["front"] == before.virtual_ips[0].address
    assert kept["ingress"] == before.virtual_ips[1].address
    assert "back" in kept


def test_host_ports_are_left_to_the_node(world: World) -> None:
    world.add_service("web", endpoint__ports=(PortConfig(target=80, mode=PublishMode.HOST),))
    world.step()
    endpoint = world.services["web"].endpoint
    assert endpoint is not None
    assert (endpoint.ports[0].published, endpoint.virtual_ips) == (0, ())


def test_a_full_network_is_explained_and_frees_itself(world: World) -> None:
    world.add_network("tiny", spec__ipam=(IpamConfig(subnet="10.9.0.0/29"),))
    world.add_service("web", replicas=5, task__networks=attached("tiny"))
    world.run()
    assert len(world.running("web")) == 4, "6 addresses: a gateway, a virtual one and four tasks"
    waiting = [t for t in world.live("web") if t.status.state is TaskState.NEW]
    assert [t.status.error for t in waiting] == [
        "network tiny has no free address: all 5 of 10.9.0.0/29 are in use; create a larger network"
    ]
    world.update_service("web", replicas=4)
    world.run()
    world.add_service("db", task__networks=attached("tiny"))
    world.step()
    assert "no free address" in world.live("db")[0].status.error
    world.update_service("web", replicas=1)
    world.run()
    assert len(world.running("db")) == 1


def test_waiting_for_one_network_takes_nothing_from_another(world: World) -> None:
    for name, subnet in (("full", "10.9.0.0/29"), ("tight", "10.9.1.0/28")):
        world.add_network(name, spec__ipam=(IpamConfig(subnet=subnet),))
    world.add_service("first", replicas=20, task__networks=attached("tight", "full"))
    world.now += 1
    world.add_service("second", replicas=8, task__networks=attached("tight"))
    world.now += 1
    world.add_service("third", replicas=3, task__networks=attached("tight", "full"))
    world.run()
    assert (len(world.running("first")), len(world.running("second"))) == (3, 7)
    assert "network tight has no free address: all 13 of" in world.live("second")[-1].status.error
    assert "has no free address" in world.live("third")[0].status.error


def test_ports_that_are_used_up_are_explained(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raft.defaults.PUBLISHED_PORT_LAST", 30001)
    for name in ("a", "b", "c"):
        world.add_service(name, endpoint__ports=(PortConfig(target=80),))
        world.now += 1
    world.run()
    assert [len(world.running(name)) for name in ("a", "b", "c")] == [1, 1, 0]
    assert world.live("c")[0].status.error == "no free published port: all 2 of 30000-30001 are in use"
    del world.services["a"]
    world.run()
    assert len(world.running("c")) == 1


def test_publishing_without_ingress_network_is_explained() -> None:
    world = World()
    world.add_service("web", endpoint__ports=(PortConfig(target=80),))
    world.step()
    assert "no ingress network" in world.live("web")[0].status.error


# ---- arithmetic ----


def test_subnet_hands_out_upwards_and_wraps() -> None:
    subnet = Subnet(IpamConfig(subnet="10.9.0.0/29", gateway="10.9.0.1"))
    assert subnet.size == 5
    assert not subnet.reserve("10.9.0.1")
    assert subnet.reserve("10.9.0.4/29")
    assert [subnet.take() for _ in range(5)] == [
        "10.9.0.5/29",
        "10.9.0.6/29",
        "10.9.0.2/29",
        "10.9.0.3/29",
        "",
    ]


def test_ip_range_limits_what_is_given() -> None:
    subnet = Subnet(IpamConfig(subnet="10.9.0.0/24", ip_range="10.9.0.64/30", gateway="10.9.0.1"))
    assert [subnet.take() for _ in range(5)] == [
        "10.9.0.64/24",
        "10.9.0.65/24",
        "10.9.0.66/24",
        "10.9.0.67/24",
        "",
    ]


def test_ipv6_subnet() -> None:
    subnet = Subnet(IpamConfig(subnet="fd00::/64", gateway="fd00::1"))
    assert subnet.take() == "fd00::2/64"


@pytest.mark.parametrize(
    ("used", "free"),
    [
        ([], "10.0.0.0/24"),
        (["10.0.0.0/24"], "10.0.1.0/24"),
        (["10.0.0.0/22"], "10.0.4.0/24"),
        (["10.0.1.7/32", "10.0.0.0/24"], "10.0.2.0/24"),
        (["10.0.0.0/24", "10.0.2.0/24"], "10.0.1.0/24"),
        (["10.0.0.0/16", "172.16.0.0/24"], "172.16.1.0/24"),
        (["0.0.0.0/0"], ""),
    ],
)
def test_free_subnet(used: list[str], free: str) -> None:
    assert free_subnet(["10.0.0.0/16", "172.16.0.0/23"], 24, used) == free


def test_small_sums() -> None:
    assert subnet_count(["10.0.0.0/8", "172.16.0.0/23"], 24) == 65536 + 2
    assert overlaps("10.0.0.0/25", ["10.1.0.0/24", "10.0.0.64/26"]) == "10.0.0.64/26"
    assert mac_of("10.0.1.255/24") == "02:42:0a:00:01:ff"


def test_pending_deletion_is_not_allocated(world: World) -> None:
    world.put(Network(id="old", pending_delete=True))
    world.step()
    assert world.networks["old"].vni == 0
