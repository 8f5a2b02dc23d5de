"""What the kernel says of its links, addresses, routes and neighbours: our reading of it beside pyroute2's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from overlay_net import namespaces, netlink, rtnl

INET, BRIDGE = 2, 7
PERMANENT = 0x80
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


def test_both_read_the_same(namespace: Path) -> None:
    with rtnl.connection(namespace) as kernel:
        links, addresses = netlink.links(kernel), netlink.addresses(kernel)
        routes = netlink.route_subnets(kernel)
        vxlan = links["vxlan0"].index
        forwarding, neighbours = netlink.forwarding(kernel, vxlan), netlink.neighbours(kernel, vxlan)
    with namespaces.inside(namespace), IPRoute() as library:
        theirs = {entry.get_attr("IFLA_IFNAME"): entry for entry in library.get_links()}
        assert set(links) == set(theirs) == {"lo", "bridge0", "vxlan0", "cable"}
        for name, link in links.items():
            entry = theirs[name]
            information = entry.get_attr("IFLA_LINKINFO")
            assert (link.index, link.up, link.mtu, link.mac, link.kind) == (
                entry["index"],
                bool(entry["flags"] & 1),
                entry.get_attr("IFLA_MTU"),
                entry.get_attr("IFLA_ADDRESS"),
                information.get_attr("IFLA_INFO_KIND") if information else "",
            )
            assert link.master == (entry.get_attr("IFLA_MASTER") or 0)
        data = theirs["vxlan0"].get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA")
        assert (links["vxlan0"].vni, links["vxlan0"].local) == (4711, "10.66.0.1")
        assert (data.get_attr("IFLA_VXLAN_ID"), data.get_attr("IFLA_VXLAN_LOCAL")) == (4711, "10.66.0.1")
        assert links["cable"].peer == theirs["cable"].get_attr("IFLA_LINK") != 0
        assert addresses == {
            index: {
                f"{entry.get_attr('IFA_LOCAL')}/{entry['prefixlen']}"
                for entry in library.get_addr(family=INET)
                if entry["index"] == index
            }
            for index in addresses
        }
        assert addresses[links["bridge0"].index] == {"10.66.0.1/24", "10.67.0.1/16"}
        assert sorted(routes) == sorted(
            f"{entry.get_attr('RTA_DST')}/{entry['dst_len']}"
            for entry in library.get_routes(family=INET, table=254)
            if entry.get_attr("RTA_DST")
        )
        assert sorted(routes) == ["10.66.0.0/24", "10.67.0.0/16"]
        assert forwarding == {
            (entry.get_attr("NDA_LLADDR"), entry.get_attr("NDA_DST"))
            for entry in library.get_neighbours(family=BRIDGE)
            if entry["ifindex"] == vxlan and entry.get_attr("NDA_DST")
        }
        assert forwarding == {(FAR_MAC, "10.66.0.9")}
        assert neighbours == {
            (entry.get_attr("NDA_DST"), entry.get_attr("NDA_LLADDR"))
            for entry in library.get_neighbours(family=INET)
            if entry["ifindex"] == vxlan and entry["state"] & PERMANENT
        }
        assert neighbours == {("10.67.0.9", FAR_MAC)}
