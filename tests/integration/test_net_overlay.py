"""Overlay and ingress networks on the real kernel, broken by hand and repaired; one node, its peers made up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PRELUDE = """
import asyncio, pathlib, subprocess, sys
from overlay_net import ingress, loadbalancer, namespaces, netlink, nft, rtnl, vxlan
from overlay_net.driver import NetworkDriver
from overlay_net.errors import KernelRefused
from overlay_net.records import *

root = pathlib.Path(sys.argv[1])
HERE, THERE = "10.77.0.1", "10.77.0.2"
BACKENDS = tuple(MapBackend(address=f"10.0.1.{n}") for n in (5, 6))
FRONT = MapNetwork(
    id="front" + "0" * 20, name="front", vni=4097, subnet="10.0.1.0/24", gateway="10.0.1.1",
    peers=tuple(MapPeer(address=f"10.0.1.{n}", mac=f"02:42:0a:00:01:{n:02x}", node_address=THERE) for n in (5, 6)),
    vips=(MapVip(service_id="s", service_name="web", address="10.0.1.2", backends=BACKENDS),),
    names=(MapName(name="web", addresses=("10.0.1.2",)),),
)
INGRESS = MapNetwork(
    id="ingress" + "0" * 18, name="ingress", vni=4096, subnet="10.0.0.0/24", gateway="10.0.0.1", ingress=True,
    local_address="10.0.0.2/24", local_mac="02:42:0a:00:00:02",
    gateways=(MapGateway(address="10.0.0.2", mac="02:42:0a:00:00:02", node_address=HERE),
              MapGateway(address="10.0.0.3", mac="02:42:0a:00:00:03", node_address=THERE)),
)
PORTS = (MapPort(protocol="tcp", published=8080, target=80, service_id="s", service_name="web",
                 backends=(MapBackend(address="10.0.0.5"),)),)
MAP = NetworkMap(version=1, networks=(FRONT, INGRESS), ports=PORTS)
CONTAINER = "c" * 64

def run(*words, inside=None):
    enter = ["nsenter", f"--net={inside}"] if inside else []
    done = subprocess.run([*enter, *words], capture_output=True, text=True)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout

def _device_names():
    with rtnl.connection() as kernel:
        return set(netlink.links(kernel))

def _forwarding(place):
    with rtnl.connection(place) as kernel:
        return netlink.forwarding(kernel, netlink.links(kernel)["vx0"].index)

async def forwarding(place):
    return await asyncio.to_thread(_forwarding, place)

def new_driver():
    return NetworkDriver(state_dir=root, run_dir=root)

async def attach(driver):
    return await driver.create_sandbox(SandboxRequest(
        id=CONTAINER, name="web.1", dns_servers=("10.77.0.9",),
        endpoints=(EndpointRequest(network=FRONT.id, cidr="10.0.1.9/24"),
                   EndpointRequest(network=INGRESS.id, cidr="10.0.0.9/24"))))

async def fresh():
    driver = new_driver()
    await driver.start(set())
    await driver.set_underlay(HERE)
    await driver.apply_map(MAP)
    return driver

async def end(driver):
    await driver.remove_sandbox(CONTAINER)
    await driver.apply_map(NetworkMap(version=9))
    await driver.close()
    assert not list((root / "netns").iterdir())
    names = await asyncio.to_thread(_device_names)
    assert not [name for name in names if name.startswith(("sw-vx", "sw-ingress"))]

run("ip", "link", "set", "lo", "up")
run("ip", "addr", "add", f"{HERE}/24", "dev", "lo")
OVERLAY = root / "netns" / f"ov-{FRONT.id[:12]}"
PIN = root / "netns" / CONTAINER
"""

AUDIT = """
async def main():
    driver = await fresh()
    await attach(driver)
    await driver.audit()
    assert await driver.audit() == [], "nothing was touched"

    breaks = {
        "bridge down": (OVERLAY, "ip link set br0 down"),
        "vxlan down": (OVERLAY, "ip link set vx0 down"),
        "vxlan off its bridge": (OVERLAY, "ip link set vx0 nomaster"),
        "vxlan gone": (OVERLAY, "ip link del vx0"),
        "bridge gone": (OVERLAY, "ip link del br0"),
        "a peer gone": (OVERLAY, f"bridge fdb del 02:42:0a:00:01:05 dev vx0 dst {THERE}"),
        "a peer elsewhere": (OVERLAY, "bridge fdb replace 02:42:0a:00:01:05 dev vx0 dst 10.77.0.3"),
        "ARP entry gone": (OVERLAY, "ip neigh del 10.0.1.6 dev vx0"),
        "ingress bridge gone": (None, "ip link del sw-ingress"),
        "ingress address gone": (None, "ip addr del 10.0.0.2/24 dev sw-ingress"),
        "ingress VXLAN gone": (None, "ip link del sw-vx4096"),
        "gateway bridge gone": (None, "ip link del sw-gwbridge"),
        "default bridge down": (None, "ip link set swbr0 down"),
        "interface gone": (PIN, "ip link del eth0"),
        "virtual addresses gone": (PIN, f"nft delete table ip {loadbalancer.TABLE}"),
        "virtual addresses changed": (PIN, f"nft flush chain ip {loadbalancer.TABLE} balance"),
        "way back gone": (PIN, f"nft delete table netdev {ingress.TABLE}"),
        "published ports gone": (None, f"nft delete table ip {ingress.TABLE}"),
    }
    for name, (place, command) in breaks.items():
        run(*command.split(), inside=place)
        found = await driver.audit()
        assert found and all(one.repaired for one in found), (name, found)
        assert await driver.audit() == [], (name, "is whole again")

    assert await forwarding(OVERLAY) == {(f"02:42:0a:00:01:{n:02x}", THERE) for n in (5, 6)}
    assert "default via" in run("ip", "route", inside=PIN), "the way out came back with its bridge"
    assert "10.0.0.2/24" in run("ip", "addr", "show", "sw-ingress")
    run("umount", str(OVERLAY))
    found = await driver.audit()
    assert any(one.problem == "its namespace was gone" for one in found), found
    assert await driver.audit() == []
    await end(driver)
asyncio.run(main())
"""

RESTART = """
async def main():
    driver = await fresh()
    await attach(driver)
    await driver.remove_sandbox(CONTAINER)
    await driver.close()
    driver = new_driver()
    await driver.start(set())
    assert "8080" in nft.listing(f"ip {ingress.TABLE}"), "no task here, and still the port is answered"
    assert "sw-ingress" in run("ip", "link") and "sw-vx4096" in run("ip", "link")
    await driver.set_underlay(HERE)
    await driver.apply_map(MAP)
    made = await attach(driver)
    devices = [line.split()[:2] for line in run("ip", "-o", "link", inside=OVERLAY).splitlines()]
    rules = nft.listing(f"ip {loadbalancer.TABLE}", PIN)
    assert "10.0.1.5" in rules
    run("bridge", "fdb", "append", "02:42:0a:00:01:07", "dev", "vx0", "dst", THERE, inside=OVERLAY)
    await driver.close()
    driver = new_driver()
    await driver.start({CONTAINER})
    present = [line.split()[:2] for line in run("ip", "-o", "link", inside=OVERLAY).splitlines()]
    assert present == devices, "taken over as it was"
    assert "02:42:0a:00:01:07" not in run("bridge", "fdb", inside=OVERLAY), "an entry that no map has"
    assert driver.sandbox(CONTAINER) == made and made.dns_servers == ("10.77.0.9",)
    assert nft.listing(f"ip {loadbalancer.TABLE}", PIN) == rules
    await end(driver)
asyncio.run(main())
"""

UNDERLAY = """
async def main():
    driver = await fresh()
    run("ip", "addr", "add", "10.77.1.1/24", "dev", "lo")
    await driver.set_underlay("10.77.1.1")
    assert "local 10.77.1.1" in run("ip", "-d", "link", "show", "vx0", inside=OVERLAY)
    assert "local 10.77.1.1" in run("ip", "-d", "link", "show", "sw-vx4096")
    assert len(await forwarding(OVERLAY)) == 2
    await end(driver)
asyncio.run(main())
"""

REFUSAL = """
async def main():
    driver = await fresh()
    await attach(driver)
    apply = nft.apply
    def refuse(text, namespace=None):
        if namespace == PIN:
            raise KernelRefused("out of memory")
        apply(text, namespace)
    nft.apply = refuse
    moved = msgspec.structs.replace(FRONT, vips=(msgspec.structs.replace(FRONT.vips[0], backends=BACKENDS[:1]),))
    newer = NetworkMap(version=2, networks=(moved, INGRESS), ports=PORTS[:0])
    try:
        await driver.apply_map(newer)
    except KernelRefused as error:
        assert str(error) == "container cccccccccccc: out of memory"
    else:
        raise AssertionError("a map that was not programmed counts as done")
    assert "8080" not in nft.listing(f"ip {ingress.TABLE}"), "the rest was programmed"
    nft.apply = apply
    await driver.apply_map(newer)
    assert "10.0.1.6" not in nft.listing(f"ip {loadbalancer.TABLE}", PIN)
    run("ip", "link", "del", "vx0", inside=OVERLAY)
    third = msgspec.structs.replace(moved, peers=FRONT.peers[:1])
    await driver.apply_map(NetworkMap(version=3, networks=(third, INGRESS)))
    assert await forwarding(OVERLAY) == {("02:42:0a:00:01:05", THERE)}
    await end(driver)
asyncio.run(main())
"""

UNTOUCHED = """
async def main():
    settings = [pathlib.Path(f"/proc/sys/net/ipv4/conf/{name}/rp_filter") for name in ("all", "default", "lo")]
    for setting in settings:
        setting.write_text("1")
    driver = await fresh()
    await attach(driver)
    assert [setting.read_text().strip() for setting in settings] == ["1", "1", "1"]
    await end(driver)
asyncio.run(main())
"""

SCRIPTS = {
    "an audit repairs and reports whatever was broken": AUDIT,
    "a restarted daemon takes its networks over": RESTART,
    "another underlay address makes new tunnels": UNDERLAY,
    "what the kernel refuses is tried again": REFUSAL,
    "settings of the host stay": UNTOUCHED,
}


@pytest.mark.root
@pytest.mark.parametrize("name", SCRIPTS)
def test_overlay_networks(name: str, tmp_path: Path) -> None:
    inside = 'mount --make-rprivate / && exec "$@"'
    script = PRELUDE + SCRIPTS[name]
    command = ["unshare", "--net", "--mount", "sh", "-c", inside, "sh", sys.executable, "-c", script]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
