from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import Conflict, EngineError, InvalidParameter, NotFound
from engine.networks import EndpointRequest, IpamBlock, NetworkSpec, Publish, SandboxRequest
from engine.plugins.addresses import complete_block, free_address
from engine.plugins.catalog import NETWORK
from engine.plugins.networks import PluginNetworks
from tests.networks import MemoryNetworks
from tests.unit.engine.plugins.test_plugin_catalog import Host
from tests.unit.engine.plugins.test_plugin_client import Plugin

JOINED = b'{"InterfaceName": {"SrcName": "veth1", "DstPrefix": "eth"}, "Gateway": "10.9.0.1"}'


class Setting:
    def __init__(self, folder: Path) -> None:
        self.host = Host(folder)
        self.plugin: Plugin = self.host.start("net", NETWORK)
        self.plugin.answers["/NetworkDriver.Join"] = (200, JOINED)
        self.inner = MemoryNetworks()
        self.path = folder / "plugin-networks.json"
        self.networks = self.again()

    def again(self) -> PluginNetworks:
        return PluginNetworks(self.inner, self.host.catalog, self.path)

    def asked(self, *but: str) -> list[str]:
        """Methods of NetworkDriver in their order."""
        names = [path.rpartition(".")[2] for path, _ in self.plugin.asked if "Network" in path]
        return [name for name in names if name not in ("GetCapabilities", *but)]

    def body(self, method: str) -> dict[str, object]:
        return dict(json.loads(next(b for path, b in self.plugin.asked if path.endswith(method))))

    async def network(self) -> str:
        spec = NetworkSpec(
            name="wired", driver="net", ipam=(IpamBlock(subnet="10.9.0.0/24"),), options={"a": "b"}
        )
        return (await self.networks.create_network(spec)).id


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    made = Setting(tmp_path)
    yield made
    made.plugin.close()
    made.host.plugins.clear()


async def test_a_network_is_the_plugins_and_is_remembered(setting: Setting) -> None:
    network = await setting.network()
    body = setting.body("CreateNetwork")
    assert body["NetworkID"] == network
    assert body["IPv4Data"] == [
        {"AddressSpace": "LocalDefault", "Pool": "10.9.0.0/24", "Gateway": "10.9.0.1/24", "AuxAddresses": {}}
    ]
    for networks in (setting.networks, setting.again()):
        assert networks.find("wired").id == networks.find(network[:12]).id == network
        assert networks.users_of_driver("net") == ["wired"]
    assert setting.networks.find("bridge").spec.driver == "bridge"
    with pytest.raises(Conflict, match="network with name wired already exists"):
        await setting.network()
    await setting.networks.remove_network(network)
    assert setting.asked() == ["CreateNetwork", "DeleteNetwork"]
    assert len(setting.again().networks()) == len(setting.inner.networks())


async def test_others_go_where_they_went(setting: Setting) -> None:
    made = await setting.networks.create_network(NetworkSpec(name="plain"))
    assert setting.inner.find("plain").id == made.id
    await setting.networks.create_sandbox(
        SandboxRequest(id="c1", endpoints=(EndpointRequest(network=made.id),))
    )
    assert setting.inner.requests["c1"].endpoints[0].network == made.id
    assert setting.asked() == []


async def test_an_unknown_driver_and_one_that_spans_hosts(setting: Setting) -> None:
    with pytest.raises(NotFound, match='plugin "none-such" not found'):
        await setting.networks.create_network(NetworkSpec(name="x", driver="none-such"))
    setting.plugin.answers["/NetworkDriver.GetCapabilities"] = (200, b'{"Scope": "global"}')
    with pytest.raises(InvalidParameter, match="span hosts"):
        await setting.network()


async def test_the_life_of_a_sandbox(setting: Setting) -> None:
    network = await setting.network()
    request = SandboxRequest(id="c1", endpoints=(EndpointRequest(network=network),))
    made = await setting.networks.create_sandbox(request)
    assert [(e.interface, e.cidr, e.gateway) for e in made.endpoints] == [("eth9", "10.9.0.2/24", "10.9.0.1")]
    ((sandbox, interface),) = setting.inner.adopted
    assert (sandbox, interface.source, interface.mac) == ("c1", "veth1", "02:42:0a:09:00:02")
    assert setting.body("Join")["SandboxKey"] == "/run/netns/c1"
    with pytest.raises(Conflict, match="active endpoints"):
        await setting.networks.remove_network(network)
    again = setting.again()
    assert again.sandbox("c1") == made
    await again.remove_sandbox("c1")
    assert setting.asked("CreateNetwork") == ["CreateEndpoint", "Join", "Leave", "DeleteEndpoint"]
    assert setting.inner.given_back == [("c1", "eth9", "veth1")]
    assert "c1" not in setting.inner.sandboxes and setting.again().sandbox("c1") is None


async def test_an_endpoint_whose_sandbox_is_gone_is_given_back(setting: Setting) -> None:
    network = await setting.network()
    await setting.networks.create_sandbox(
        SandboxRequest(id="c1", endpoints=(EndpointRequest(network=network),))
    )
    del setting.inner.sandboxes["c1"]  # as after a reboot
    again = setting.again()
    left = again.sandbox("c1")
    assert left is not None and left.netns_path == ""
    setting.inner.sandboxes["c1"] = left
    await again.remove_sandbox("c1")
    assert setting.asked()[-2:] == ["Leave", "DeleteEndpoint"]


@pytest.mark.parametrize("method", ["CreateEndpoint", "Join"])
async def test_a_join_that_fails_leaves_nothing(setting: Setting, method: str) -> None:
    network = await setting.network()
    setting.plugin.answers[f"/NetworkDriver.{method}"] = (200, b'{"Err": "no more wires"}')
    request = SandboxRequest(id="c1", endpoints=(EndpointRequest(network=network),))
    with pytest.raises(EngineError, match=f"NetworkDriver.{method}: no more wires"):
        await setting.networks.create_sandbox(request)
    assert setting.networks.sandbox("c1") is None and setting.inner.sandboxes == {}
    assert ("DeleteEndpoint" in setting.asked()) == (method == "Join")
    await setting.networks.remove_network(network)


async def test_ports_need_another_network(setting: Setting) -> None:
    network = await setting.network()
    request = SandboxRequest(
        id="c1", endpoints=(EndpointRequest(network=network),), publishes=(Publish(container_port=80),)
    )
    with pytest.raises(InvalidParameter, match="ports cannot be published"):
        await setting.networks.create_sandbox(request)
    assert setting.inner.sandboxes == {}


def test_subnets_and_addresses() -> None:
    assert complete_block((), ["172.16.0.0/16", "172.17.5.0/24"]).subnet == "172.18.0.0/16"
    block = complete_block([IpamBlock(subnet="10.1.0.0/29", gateway="10.1.0.6")], [])
    assert (block.subnet, block.gateway) == ("10.1.0.0/29", "10.1.0.6/29")
    assert free_address(block, {"10.1.0.1"}) == "10.1.0.2/29"
    with pytest.raises(Conflict, match="no available IPv4 addresses"):
        free_address(block, {f"10.1.0.{n}" for n in range(1, 6)})
    with pytest.raises(InvalidParameter, match="IPv4 subnets only"):
        complete_block([IpamBlock(subnet="fd00::/64")], [])
    with pytest.raises(InvalidParameter, match="one subnet"):
        complete_block([IpamBlock(subnet="10.1.0.0/29"), IpamBlock(subnet="10.2.0.0/29")], [])
