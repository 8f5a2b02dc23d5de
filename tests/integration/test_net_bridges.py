"""Options of bridge networks and of the places on them, on the real kernel in a network namespace of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.net_scripts import run_script

OPTIONS = """
async def main():
    driver = await started()
    option = "com.docker.network.bridge."
    net = lambda called, **options: driver.create_network(NetworkSpec(
        name=called, options={option + key: value for key, value in options.items()}))
    ip("link", "add", "theirs0", "type", "veth", "peer", "name", "theirs1")
    for options, words in (
        ({"name": "theirs0"}, "is taken"), ({"name": "far too long a name"}, "1 to 15"),
        ({"enable_icc": "x"}, "true or false"),
        ({"host_binding_ipv4": "::1"}, "IPv4 address"), ({"gateway_mode_ipv4": "routed"}, "only nat"),
        ({"inhibit_ipv4": "true"}, "is not supported"), ({"default_bridge": "true"}, "one default bridge"),
    ):
        await refused(net("x", **options), InvalidNetwork, words)
    assert "theirs0" in ip("-o", "link")
    quiet = await net("quiet", name="mybr0", enable_icc="false", host_binding_ipv4="127.0.0.1")
    small = await driver.create_network(NetworkSpec(name="small", options={
        "com.docker.network.driver.mtu": "1300", "com.docker.network.container_iface_prefix": "lan"},
        ipam=(IpamBlock(subnet="10.66.0.0/24", gateway="10.66.0.200", ip_range="10.66.0.0/29",
                        aux_addresses={"printer": "10.66.0.1"}),)))
    wide = NetworkSpec(name="x", ipam=(IpamBlock(subnet="10.66.0.0/16"),))
    await refused(driver.create_network(wide), SubnetOverlap, "overlaps")
    assert "mybr0" in ip("-o", "link") and "10.66.0.200/24" in ip("-o", "addr")
    place = lambda network, **fields: EndpointRequest(network=network.id, **fields)
    a = await driver.create_sandbox(SandboxRequest(
        id="a" * 64, endpoints=(place(quiet),), publishes=(Publish(container_port=80),)))
    assert a.ports[0].host_ip == "127.0.0.1", a.ports
    b = await driver.create_sandbox(SandboxRequest(id="b" * 64, endpoints=(place(quiet), place(small))))
    server = serve(a, "0.0.0.0", 80)
    try:
        address = a.endpoints[0].cidr.partition("/")[0]
        assert ask(address, 80) == ask("127.0.0.1", a.ports[0].host_port) == b"ok"
        assert not can_ask(b, address, 80), "they do not hear each other"
        await driver.audit()
        assert not can_ask(b, address, 80)
    finally:
        server.kill()
        server.wait()
    assert [e.interface for e in b.endpoints] == ["eth0", "lan0"] and b.endpoints[1].cidr == "10.66.0.2/24", b
    assert "mtu 1300" in within(b, "ip", "link", "show", "lan0")
    for name in "ab":
        await driver.remove_sandbox(name * 64)
    for network in (quiet, small):
        await driver.remove_network(network.id)
    for _ in range(400):  # the kernel takes namespaces down when it likes, and their interfaces with them
        names = ip("-o", "link")
        if len(names.splitlines()) == 4:
            break
        await asyncio.sleep(0.05)
    assert "mybr0" not in names and "theirs0" in names and len(names.splitlines()) == 4, names
    await driver.close()
"""

PLACES = """
async def main():
    driver = await started()
    one, two, inner = [await driver.create_network(NetworkSpec(name=name, internal=name == "inner"))
                       for name in ("one", "two", "inner")]
    place = lambda network, **fields: EndpointRequest(network=network.id, **fields)
    gateway = lambda network: network.spec.ipam[0].gateway
    made = await driver.create_sandbox(SandboxRequest(
        id="a" * 64, name="web", publishes=(Publish(container_port=80, host_port=8080),), endpoints=(
            place(inner), place(one, interface="web0", sysctls=(("net.ipv4.conf.IFNAME.log_martians", "1"),)))))
    assert within(made, "sysctl", "-n", "net.ipv4.conf.web0.log_martians") == "1\\n"
    default = lambda: within(made, "ip", "route", "show", "default")
    assert gateway(one) in default()
    server = serve(made, "0.0.0.0", 80)
    try:
        assert ask(gateway(one), 8080) == b"ok"
        await driver.connect("a" * 64, place(two, priority=7))
        assert gateway(two) in default() and ask(gateway(one), 8080) == b"ok"
        await driver.disconnect("a" * 64, one.id)
        assert gateway(two) in default() and ask(gateway(one), 8080) == b"ok", "ports follow"
        await driver.disconnect("a" * 64, two.id)
        await driver.disconnect("a" * 64, inner.id)
        assert default() == "" and driver.sandbox("a" * 64).endpoints == ()
        await driver.connect("a" * 64, place(one))
        assert gateway(one) in default() and ask(gateway(one), 8080) == b"ok", "and come back"
        assert await answers(made, "web", 1) and await answers(made, "a" * 12, 1)
        await refused(driver.connect("a" * 64, place(two, interface="eth0")), InvalidNetwork, "given twice")
        unknown = place(two, sysctls=(("net.ipv4.conf.IFNAME.absent", "1"),))
        await refused(driver.connect("a" * 64, unknown), KernelRefused, "cannot set")
        assert "eth1" not in within(made, "ip", "-o", "link"), "nothing of it is left"
    finally:
        server.kill()
        server.wait()
    await refused(driver.remove_network(one.id), NetworkInUse, "active endpoints")
    await driver.remove_sandbox("a" * 64)
    for network in (one, two, inner):
        await driver.remove_network(network.id)
    await driver.close()
    driver = await started(defaults=BridgeDefaults(icc=False, ipv6=True, fixed_cidr_v6="fd00:9::/64"))
    first = driver.find("bridge")
    assert first.spec.ipam[1].gateway == "fd00:9::1" and "fd00:9::1/64" in ip("-o", "addr", "show", "swbr0")
    await driver.close()
    driver = await started(defaults=BridgeDefaults(icc=False, ipv6=True, fixed_cidr_v6="fd00:9::/64"))
    assert driver.find("bridge").id == first.id, "the same settings keep it"
    await driver.close()
    driver = await started()
    assert driver.find("bridge").spec.ipv6 is False and "fd00:9::" not in ip("-o", "addr")
    await driver.close()
"""


@pytest.mark.root
def test_options_of_bridges(tmp_path: Path) -> None:
    run_script(OPTIONS, tmp_path)


@pytest.mark.root
def test_places_on_networks_change_while_a_container_runs(tmp_path: Path) -> None:
    run_script(PLACES, tmp_path)
