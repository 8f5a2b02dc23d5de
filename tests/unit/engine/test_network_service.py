from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.config import ConfigReference, EndpointConfig, HostConfig, Ipam, IpamPool, NetworkCreate
from engine.container import Container
from engine.containers import Containers
from engine.errors import Conflict, Forbidden, InvalidParameter
from engine.events import EventBus
from engine.network_service import NetworkService
from engine.networks import EndpointRequest, SandboxRequest
from engine.state import StateStore
from tests.networks import MemoryNetworks
from tests.records import container_record, exited, running


class Service(NetworkService):
    """The service on networks in memory, with what it published."""

    def __init__(self, folder: Path) -> None:
        self.networks = MemoryNetworks()
        self.store = StateStore(folder / "engine.db")
        self.bus = EventBus()
        super().__init__(self.networks, Containers(self.store), self.bus)

    async def add_running(self, name: str, **fields: object) -> Container:
        container = container_record(name, state=running(), **fields)
        self.store.add(container)
        await self.networks.create_sandbox(SandboxRequest(id=container.id))
        return container

    async def names(self, **filters: list[str]) -> list[str]:
        return [shown["Name"] for shown in await self.summaries(filters)]

    def actions(self) -> list[str]:
        return [event.action for event in self.bus._history]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path)
    yield made
    made.store.close()


async def test_a_network_as_it_was_asked_for(service: Service) -> None:
    pool = IpamPool(subnet="10.9.0.0/16", gateway="10.9.0.1/16", ip_range="10.9.5.0/24")
    made = await service.create(
        NetworkCreate(
            name="shop", internal=True, ipam=Ipam(config=[pool]), labels={"a": "1"}, options={"o": "2"}
        )
    )
    shown = await service.inspect(made)
    assert (shown["Name"], shown["Driver"], shown["Internal"], shown["Scope"]) == (
        "shop",
        "bridge",
        True,
        "local",
    )
    assert shown["IPAM"]["Config"] == [
        {"Subnet": "10.9.0.0/16", "IPRange": "10.9.5.0/24", "Gateway": "10.9.0.1"}
    ]
    assert (shown["Labels"], shown["Options"], shown["Containers"]) == ({"a": "1"}, {"o": "2"}, {})
    assert service.actions() == ["create"]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (NetworkCreate(name=""), InvalidParameter),
        (NetworkCreate(name="bridge"), Forbidden),
        (NetworkCreate(name="shop"), Conflict),
        (NetworkCreate(name="new", config_from=ConfigReference(network="shop")), Forbidden),
    ],
)
async def test_networks_that_cannot_be_made(
    service: Service, body: NetworkCreate, error: type[Exception]
) -> None:
    service.networks.add("shop")
    with pytest.raises(error):
        await service.create(body)
    assert service.actions() == []


async def test_removal_waits_for_running_containers_only(service: Service) -> None:
    service.networks.add("shop")
    container = await service.add_running("web", endpoints={"shop": EndpointConfig()})
    with pytest.raises(Conflict, match=r'shop has active endpoints .name:"web"'):
        await service.remove("shop")
    container.state = exited(0)
    await service.remove("shop")
    assert "shop" not in await service.names()
    with pytest.raises(Forbidden, match="bridge is a pre-defined network and cannot be removed"):
        await service.remove("bridge")


async def test_connecting_and_disconnecting_a_running_container(service: Service) -> None:
    network = service.networks.add("shop")
    container = await service.add_running("web")
    await service.connect("shop", container.id, EndpointConfig(aliases=["db"]))
    shown = (await service.inspect("shop"))["Containers"][container.id]
    assert (shown["Name"], shown["IPv4Address"]) == ("web", "172.17.0.2/16")
    with pytest.raises(Forbidden, match="endpoint with name web already exists in network shop"):
        await service.connect(network.id, container.id, EndpointConfig())
    await service.disconnect(network.id, container.id, force=False)
    assert container.endpoints == {}
    assert (await service.inspect("shop"))["Containers"] == {}
    with pytest.raises(InvalidParameter, match="is not connected to network shop"):
        await service.disconnect("shop", container.id, force=False)
    await service.disconnect("shop", container.id, force=True)
    assert service.actions() == ["connect", "disconnect"]


async def test_a_stopped_container_is_connected_when_it_starts(service: Service) -> None:
    service.networks.add("shop")
    container = container_record(state=exited(0))
    service.store.add(container)
    await service.connect("shop", container.id, EndpointConfig())
    assert list(container.endpoints) == ["shop"]
    assert service.networks.sandboxes == {}


@pytest.mark.parametrize(
    ("mode", "network"),
    [("host", "shop"), ("container:x", "shop"), ("none", "shop"), ("bridge", "host"), ("bridge", "none")],
)
async def test_networks_that_go_with_no_other(service: Service, mode: str, network: str) -> None:
    service.networks.add("shop")
    container = await service.add_running("web", host=HostConfig(network_mode=mode))
    with pytest.raises(InvalidParameter, match="cannot be connected"):
        await service.connect(network, container.id, EndpointConfig())
    assert container.endpoints == {}


@pytest.fixture
async def some(service: Service) -> Service:
    service.networks.add("old", labels={"keep": "no"}, created_at=1000.0)
    service.networks.add("new", labels={"keep": "yes"}, created_at=4e9)
    service.networks.add("used", created_at=1000.0)
    service.networks.add("cluster", "overlay", scope="swarm", created_at=1000.0)
    service.store.add(container_record("web", state=exited(0), endpoints={"used": EndpointConfig()}))
    return service


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({"name": ["use"]}, "used"),
        ({"name": ["^(old|new)$"]}, "old new"),
        ({"driver": ["overlay", "null"]}, "none cluster"),
        ({"scope": ["swarm"]}, "cluster"),
        ({"type": ["builtin"]}, "bridge host none"),
        ({"label": ["keep"]}, "old new"),
        ({"label": ["keep=no"]}, "old"),
        ({"dangling": ["true"]}, "old new cluster"),
        ({"dangling": ["false"], "type": ["custom"]}, "used"),
    ],
)
async def test_filters_of_the_list(some: Service, filters: dict[str, list[str]], names: str) -> None:
    assert await some.names(**filters) == names.split()


@pytest.mark.parametrize(
    ("filters", "deleted"),
    [
        ({}, "old new"),
        ({"until": ["24h"]}, "old"),
        ({"label": ["keep=yes"]}, "new"),
        ({"label!": ["keep=yes"]}, "old"),
    ],
)
async def test_pruning(some: Service, filters: dict[str, list[str]], deleted: str) -> None:
    assert (await some.prune(filters))["NetworksDeleted"] == deleted.split()


async def test_pruning_passes_over_what_a_clusters_task_uses(some: Service) -> None:
    old = some.networks.find("old")
    await some.networks.create_sandbox(
        SandboxRequest(id="task", endpoints=(EndpointRequest(network=old.id),))
    )
    assert (await some.prune({}))["NetworksDeleted"] == ["new"]
    assert "old" in await some.names()


async def test_filters_that_are_not_known(some: Service) -> None:
    before = await some.names()
    with pytest.raises(InvalidParameter, match="invalid filter 'dangling'"):
        await some.prune({"dangling": ["true"]})
    with pytest.raises(InvalidParameter, match="invalid filter 'colour'"):
        await some.names(colour=["red"])
    assert await some.names() == before
