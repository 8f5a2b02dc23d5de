"""What the kernel says of its links, addresses, routes and neighbours: our reading of it beside that of iproute2."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overlay_net import namespaces, netlink, rtnl

pytestmark = pytest.mark.root

BRIDGE_MAC, PEER_MAC, FAR_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03"


@pytest.fixture
def namespace(tmp_path: Path) -> Iterator[Path]:
    """A bridge with a VXLAN device and one end of a cable on it, addresses, a route and neighbours."""
    path, far = tmp_path / "here", tmp_path / "far"
    namespaces.create(path)
    namespaces.create(far)
    try:
        with rtnl.connection(path) as kernel, namespaces.descriptor(far) as peer_namespace:
            kernel.send([rtnl.new_bridge("bridge0", mtu=1400, mac=BRIDGE_MAC)], "bridge")
            bridge = netlink.links(kernel)["bridge0"].index
            kernel.send(
                [
                    rtnl.new_address(bridge, "10.66.0.1/24"),
                    rtnl.new_address(bridge, "10.67.0.1/16"),
                    rtnl.new_address(bridge, "fd00:66::1/64"),
                    rtnl.new_vxlan("vxlan0", vni=4711, local="10.66.0.1", port=4789, mtu=1350, master=bridge),
                    rtnl.new_veth(
                        "cable",
                        master=bridge,
                        mtu=1400,
                        peer="eth0",
                        peer_namespace=peer_namespace,
                        peer_mac=PEER_MAC,
                    ),
                    rtnl.default_route("10.66.0.254", index=bridge),
                ],
                "devices",
            )
            vxlan = netlink.links(kernel)["vxlan0"].index
            kernel.send(rtnl.forwarding(vxlan, [(FAR_MAC, "10.66.0.9")]), "forwarding")
            kernel.send(rtnl.neighbours(vxlan, [("10.67.0.9", FAR_MAC)]), "neighbours")
        yield path
    finally:
        for made in (path, far):
            namespaces.remove(made)


def said(namespace: Path, *words: str) -> list[dict[str, Any]]:
    command = ["nsenter", f"--net={namespace}", *words]
    shown = subprocess.run(command, check=True, capture_output=True, text=True)
    # With -details, `ip` leaves empty objects where a filter did not match.
    return [entry for entry in json.loads(shown.stdout or "[]") if entry]


def test_both_read_the_same(namespace: Path) -> None:
    with rtnl.connection(namespace) as kernel:
        links, addresses = netlink.links(kernel), netlink.addresses(kernel)
        routes = netlink.route_subnets(kernel)
        vxlan = links["vxlan0"].index
        forwarding, neighbours = netlink.forwarding(kernel, vxlan), netlink.neighbours(kernel, vxlan)

    theirs = {entry["ifname"]: entry for entry in said(namespace, "ip", "-j", "-d", "link")}
    assert set(links) == set(theirs) == {"lo", "bridge0", "vxlan0", "cable"}
    indexes = {entry["ifname"]: entry["ifindex"] for entry in theirs.values()}
    for name, link in links.items():
        entry = theirs[name]
        assert (link.index, link.up, link.mtu, link.mac) == (
            entry["ifindex"],
            "UP" in entry["flags"],
            entry["mtu"],
            entry["address"],
        )
        assert link.kind == entry.get("linkinfo", {}).get("info_kind", "")
        assert link.master == indexes.get(entry.get("master"), 0)
    data = theirs["vxlan0"]["linkinfo"]["info_data"]
    assert (links["vxlan0"].vni, links["vxlan0"].local) == (data["id"], data["local"]) == (4711, "10.66.0.1")
    assert links["cable"].peer == theirs["cable"]["link_index"] != 0

    shown = {
        entry["ifindex"]: {f"{found['local']}/{found['prefixlen']}" for found in entry["addr_info"]}
        for entry in said(namespace, "ip", "-j", "address")
    }
    assert addresses == {index: found for index, found in shown.items() if found}
    own = {address for address in addresses[links["bridge0"].index] if not address.startswith("fe80:")}
    assert own == {"10.66.0.1/24", "10.67.0.1/16", "fd00:66::1/64"}

    destinations = {entry["dst"] for entry in said(namespace, "ip", "-j", "-4", "route")}
    assert {route for route in routes if ":" not in route} == destinations - {"default"}
    assert set(routes) == {"10.66.0.0/24", "10.67.0.0/16", "fd00:66::/64"}
    assert "default" in destinations

    tables = said(namespace, "bridge", "-j", "fdb", "show", "dev", "vxlan0")
    assert forwarding == {(entry["mac"], entry["dst"]) for entry in tables if "dst" in entry}
    assert forwarding == {(FAR_MAC, "10.66.0.9")}

    permanent = said(namespace, "ip", "-j", "-4", "neighbour", "show", "dev", "vxlan0", "nud", "permanent")
    assert neighbours == {(entry["dst"], entry["lladdr"]) for entry in permanent}
    assert neighbours == {("10.67.0.9", FAR_MAC)}


def test_no_hardware_address_is_left_to_be_exchanged_by_udev(namespace: Path) -> None:
    """linux/netdevice.h, NET_ADDR_SET: udev leaves such addresses alone."""
    look = "mount -t sysfs none /sys && cd /sys/class/net && cat {bridge0,vxlan0,cable}/addr_assign_type"
    command = ["nsenter", f"--net={namespace}", "unshare", "--mount", "bash", "-c", look]
    shown = subprocess.run(command, check=True, capture_output=True, text=True)
    assert shown.stdout.split() == ["3", "3", "3"]
