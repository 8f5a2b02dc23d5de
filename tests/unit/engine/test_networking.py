from __future__ import annotations

from typing import Any

import pytest

from engine.config import ContainerConfig, EndpointConfig, EndpointIpam, HostConfig, PortBinding, TaskEndpoint
from engine.errors import InvalidParameter, NotFound
from engine.networking import ContainerNetworking, checked_networks, endpoint_request, parse_port, publishes
from engine.networks import EndpointRequest, Publish
from engine.settings import EngineSettings
from tests.networks import MemoryNetworks
from tests.records import container_record

NETWORKS = MemoryNetworks()
SHOP = NETWORKS.add("shop", subnet="10.9.0.0/24")


def published(exposed: tuple[str, ...] = (), **host: Any) -> list[Publish]:
    config = ContainerConfig(exposed_ports={port: {} for port in exposed})
    return list(publishes(container_record(config=config, host=HostConfig(**host))))


def test_published_ports() -> None:
    bindings: dict[str, list[PortBinding] | None] = {
        "80/tcp": [PortBinding(host_port="8080"), PortBinding(host_ip="127.0.0.1", host_port="80")],
        "53/UDP": [PortBinding(host_ip="0.0.0.0")],
        "90": None,
    }
    assert published(port_bindings=bindings) == [
        Publish(container_port=80, host_port=8080),
        Publish(container_port=80, host_ip="127.0.0.1", host_port=80),
        Publish(container_port=53, protocol="udp", host_ip="0.0.0.0"),
        Publish(container_port=90),
    ]


def test_all_exposed_ports_are_published_once() -> None:
    bindings = {"80/tcp": [PortBinding(host_port="8080")]}
    found = published(("80/tcp", "443/tcp"), port_bindings=bindings, publish_all_ports=True)
    assert found == [Publish(container_port=80, host_port=8080), Publish(container_port=443)]
    assert published(("80/tcp",)) == []


@pytest.mark.parametrize("text", ["", "0", "65536", "x/tcp", "80/sctp", "80-90/tcp", "٨٠"])
def test_ports_that_cannot_be(text: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid port specification"):
        parse_port(text)


@pytest.mark.parametrize(
    "binding",
    [
        PortBinding(host_port="65536"),
        PortBinding(host_port="-1"),
        PortBinding(host_port="²"),
        PortBinding(host_ip="here"),
    ],
)
def test_bindings_that_cannot_be(binding: PortBinding) -> None:
    with pytest.raises(InvalidParameter):
        published(port_bindings={"80/tcp": [binding]})


def test_a_wished_address_gets_the_prefix_of_its_subnet() -> None:
    wish = EndpointConfig(
        ipam_config=EndpointIpam(ipv4_address="10.9.0.7"), aliases=["db"], mac_address="02:00:00:00:00:07"
    )
    assert endpoint_request(SHOP.id, wish, NETWORKS) == EndpointRequest(
        network=SHOP.id, cidr="10.9.0.7/24", mac="02:00:00:00:00:07", aliases=("db",)
    )


@pytest.mark.parametrize(
    ("address", "message"), [("10.8.0.7", "no configured subnet contains"), ("ten", "invalid IPv4")]
)
def test_wished_addresses_that_cannot_be(address: str, message: str) -> None:
    wish = EndpointConfig(ipam_config=EndpointIpam(ipv4_address=address))
    with pytest.raises(InvalidParameter, match=message):
        endpoint_request(SHOP.id, wish, NETWORKS)


def test_the_networks_of_a_new_container() -> None:
    wish = EndpointConfig(aliases=["x"])
    assert checked_networks(NETWORKS, "bridge", {}) == {"bridge": EndpointConfig()}
    assert list(checked_networks(NETWORKS, "bridge", {"shop": wish})) == ["bridge", "shop"]
    assert checked_networks(NETWORKS, "shop", {"shop": wish}) == {"shop": wish}
    assert checked_networks(NETWORKS, "shop", {SHOP.id: wish}) == {SHOP.id: wish}
    for mode in ("host", "none", "container:x"):
        assert checked_networks(NETWORKS, mode, {}) == {}
    missing = checked_networks(NETWORKS, "nowhere", {})
    assert list(missing) == ["nowhere"]  # the start says so


@pytest.fixture
def networking(tmp_path: Any) -> ContainerNetworking:
    def find(ref: str) -> Any:
        raise NotFound(ref)

    NETWORKS.sandboxes.clear()
    return ContainerNetworking(EngineSettings(root=tmp_path, run_dir=tmp_path), NETWORKS, find)


async def test_a_sandbox_is_made_of_all_that_was_wished_and_released_once(
    networking: ContainerNetworking,
) -> None:
    container = container_record(
        host=HostConfig(
            port_bindings={"80/tcp": None}, dns=["9.9.9.9"], sysctls={"net.a": "1", "kernel.b": "2"}
        ),
        endpoints={"shop": EndpointConfig()},
        task_endpoints=[TaskEndpoint(network=SHOP.id, cidr="10.9.0.9/24", aliases=("task",))],
    )
    assert await networking.prepare(container) == f"/run/netns/{container.id}"
    asked = NETWORKS.requests[container.id]
    assert [e.cidr for e in asked.endpoints] == ["", "10.9.0.9/24"]
    assert (asked.publishes, asked.dns_servers, asked.sysctls) == (
        (Publish(container_port=80),),
        ("9.9.9.9",),
        {
            "net.ipv4.ip_unprivileged_port_start": "0",
            "net.ipv4.ping_group_range": "0 2147483647",
            "net.a": "1",
        },
    )
    await networking.release(container)
    await networking.release(container)
    assert networking.sandbox(container) is None


async def test_without_a_network_there_is_an_empty_namespace(networking: ContainerNetworking) -> None:
    container = container_record(
        host=HostConfig(network_mode="none", port_bindings={"80/tcp": None}),
        endpoints={"shop": EndpointConfig()},
    )
    await networking.prepare(container)
    asked = NETWORKS.requests[container.id]
    assert (asked.endpoints, asked.publishes) == ((), ())
