"""IPv6 on bridge networks, on the real kernel in a network namespace of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.net_scripts import run_script

SCRIPT = """
async def main():
    before = ip("-6", "route") + ip("route")
    driver = await started()
    plain = await driver.create_network(NetworkSpec(name="plain"))
    assert ":" not in "".join(block.subnet for block in plain.spec.ipam) and "ip6 swarmctl" not in nft("list", "tables")
    chosen = await driver.create_network(NetworkSpec(name="chosen", ipv6=True))
    assert chosen.spec.ipam[1].subnet.startswith("fd") and chosen.spec.ipam[1].subnet.endswith("::/64"), chosen
    dual = await driver.create_network(NetworkSpec(name="dual", ipv6=True, ipam=(IpamBlock(subnet="fd00:5::/64"),)))
    wide = NetworkSpec(name="x", ipv6=True, ipam=(IpamBlock(subnet="fd00:5::/48"),))
    await refused(driver.create_network(wide), SubnetOverlap, "fd00:5::/64")
    await refused(driver.create_network(NetworkSpec(name="x", ipam=(IpamBlock(subnet="fd00:6::/64"),))),
                  InvalidNetwork, "add --ipv6")
    web = await driver.create_sandbox(SandboxRequest(
        id="a" * 64, name="web",
        endpoints=(EndpointRequest(network=dual.id, cidr6="fd00:5::aa/64", link_local=("fe80::77/64", "169.254.9.9/16")),),
        publishes=(Publish(container_port=80, host_port=8080),
                   Publish(container_port=80, host_ip="fd00:5::1", host_port=81)),
    ))
    await refused(driver.create_sandbox(SandboxRequest(
        id="d" * 64, endpoints=(EndpointRequest(network=dual.id),),
        publishes=(Publish(container_port=80, host_ip="::1", host_port=82),))), InvalidNetwork, "cannot publish at [::1]")
    other = await driver.create_sandbox(SandboxRequest(
        id="b" * 64, name="other", endpoints=(EndpointRequest(network=dual.id), EndpointRequest(network=chosen.id))))
    assert web.endpoints[0].cidr6 == "fd00:5::aa/64" and web.endpoints[0].gateway6 == "fd00:5::1"
    shown = within(web, "ip", "addr", "show", "eth0")
    assert "fe80::77/64" in shown and "169.254.9.9/16" in shown, shown
    assert "default via fd00:5::1" in within(web, "ip", "-6", "route")
    server = serve(web, "::", 80)
    try:
        assert ask("fd00:5::aa", 80) == b"ok", "from the host"
        assert ask("fd00:5::1", 8080) == ask("127.0.0.1", 8080) == b"ok", "published"
        assert ask("fd00:5::1", 81) == b"ok", "published at one address"
        try:
            ask("::1", 8080)
        except ConnectionRefusedError:
            pass
        else:
            raise AssertionError("the loopback is not translated")
        assert await answers(other, "web", 28) == ["fd00:5::aa"] and len(await answers(other, "web", 1)) == 1
        reverse = ".".join(reversed(ipaddress.ip_address("fd00:5::aa").exploded.replace(":", ""))) + ".ip6.arpa"
        assert await answers(other, reverse, 12) == ["web.dual."]
        inside_ask(other, "fd00:5::aa", 80)
        await driver.close()
        driver = await started({"a" * 64, "b" * 64})
        assert ask("fd00:5::1", 8080) == b"ok", "after a restart"
        subprocess.run(["nft", "delete", "table", "ip6", "swarmctl"], check=True)
        ip("-6", "addr", "del", "fd00:5::1/64", "dev", bridges.device(dual))
        assert all([found.repaired for found in await driver.audit()]) and not await driver.audit()
        assert ask("fd00:5::1", 8080) == b"ok", "after the audit"
        far = await driver.create_sandbox(SandboxRequest(id="c" * 64, endpoints=(EndpointRequest(network=chosen.id),)))
        assert not can_ask(far, "fd00:5::aa", 80), "isolated from another network"
        inside_ask(far, "fd00:5::1", 8080)
    finally:
        server.kill()
        server.wait()
    for name in "abc":
        await driver.remove_sandbox(name * 64)
    for network in (plain, chosen, dual):
        await driver.remove_network(network.id)
    assert "ip6 swarmctl" not in nft("list", "tables")
    ip("link", "del", "swbr0")
    assert ip("-6", "route") + ip("route") == before
    await driver.close()
"""


@pytest.mark.root
def test_ipv6_from_the_subnet_to_the_published_port(tmp_path: Path) -> None:
    run_script(SCRIPT, tmp_path)
