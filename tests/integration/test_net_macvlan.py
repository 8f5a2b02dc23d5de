"""Networks of the driver macvlan, on the real kernel: a veth is the link that they share with the outside."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.net_scripts import run_script

SCRIPT = """
async def main():
    ip("link", "add", "wire0", "type", "veth", "peer", "name", "far0")
    for name in ("wire0", "far0"):
        ip("link", "set", name, "up")
    ip("addr", "add", "10.77.0.1/24", "dev", "far0")
    before = ip("-o", "link")
    driver = await started()
    spec = lambda name, **options: NetworkSpec(
        name=name, driver="macvlan", ipam=(IpamBlock(subnet="10.77.0.0/24", gateway="10.77.0.1", ip_range="10.77.0.64/28"),),
        options={"parent": "wire0", **options})
    for name, options, words in (
        ("x", {"macvlan_mode": "ring"}, "use bridge, private, vepa, passthru"),
        ("x", {"parent": "lo"}, "not a valid macvlan parent"),
        ("x", {"parent": "absent0"}, "no such interface"),
        ("x", {"parent": "absent0.50"}, "no such interface"),
        ("x", {"com.docker.network.bridge.name": "b"}, "is not supported by macvlan"),
    ):
        await refused(driver.create_network(spec(name, **options)), InvalidNetwork, words)
    await refused(driver.create_network(NetworkSpec(name="x", driver="ipvlan")), InvalidNetwork, "use macvlan")
    for parent in ({"parent": "wire0.50"}, {"parent": ""}):
        # A kernel may have neither VLAN nor dummy devices; what it has goes with the network.
        try:
            made = await driver.create_network(spec("sub", **parent))
        except InvalidNetwork as error:
            assert "this kernel has no" in str(error), error
        else:
            await driver.remove_network(made.id)
    async def on(network, name, **fields):
        return await driver.create_sandbox(SandboxRequest(
            id=name * 64, name=name, endpoints=(EndpointRequest(network=network.id, **fields),)))
    bridge = await driver.create_network(spec("lan", **{"com.docker.network.driver.mtu": "1400"}))
    await refused(driver.create_network(spec("alone", macvlan_mode="passthru")), SubnetOverlap, "overlaps")
    one, two = await on(bridge, "a"), await on(bridge, "b", cidr="10.77.0.9/24", mac="02:42:0a:4d:00:99")
    assert one.endpoints[0].cidr == "10.77.0.64/24"
    shown = within(two, "ip", "-d", "link", "show", "eth0")
    assert "macvlan mode bridge" in shown and "02:42:0a:4d:00:99" in shown and "mtu 1400" in shown, shown
    assert "default via 10.77.0.1" in within(one, "ip", "route")
    server = serve(one, "0.0.0.0", 80)
    try:
        assert ask("10.77.0.64", 80) == b"ok", "from the other end of the wire"
        inside_ask(two, "10.77.0.64", 80)
        assert await answers(two, "a", 1) == ["10.77.0.64"]
        await driver.close()
        driver = await started({"a" * 64, "b" * 64})
        within(one, "ip", "link", "del", "eth0")
        assert len(await driver.audit()) == 1 and not await driver.audit()
        assert ask("10.77.0.64", 80) == b"ok", "after the audit"
    finally:
        server.kill()
        server.wait()
    await driver.disconnect("b" * 64, bridge.id)
    assert "eth0" not in within(two, "ip", "-o", "link")
    await driver.connect("b" * 64, EndpointRequest(network=bridge.id))
    assert "macvlan" in within(two, "ip", "-d", "link", "show", "eth0")
    for name in "ab":
        await driver.remove_sandbox(name * 64)
    await driver.remove_network(bridge.id)
    for mode in ("private", "vepa", "passthru"):
        network = await driver.create_network(spec(mode, macvlan_mode=mode))
        if mode == "passthru":
            other = NetworkSpec(name="x", driver="macvlan", options={"parent": "wire0"})
            await refused(driver.create_network(other), NetworkInUse, "already using parent interface wire0")
        made = await on(network, "a")
        assert f"macvlan mode {mode}" in within(made, "ip", "-d", "link", "show", "eth0")
        await driver.remove_sandbox("a" * 64)
        await driver.remove_network(network.id)
    ip("link", "del", "swbr0")
    # What a passthru network does to its parent besides is the kernel's business.
    names = lambda text: [line.split(":")[1] for line in text.splitlines()]
    assert names(ip("-o", "link")) == names(before)
    await driver.close()
"""


@pytest.mark.root
def test_every_mode_of_macvlan(tmp_path: Path) -> None:
    run_script(SCRIPT, tmp_path)
