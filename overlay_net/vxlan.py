"""One overlay network in the kernel of this node: a bridge and a VXLAN device, forwarding by the map only.

Ordinary networks live in a namespace of their own; the ingress network in the node's. The VXLAN device
learns and floods nothing: it forwards by static entries and answers ARP itself. Everything here blocks.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Collection
from pathlib import Path

from overlay_net import ingress, namespaces, netlink, rtnl
from overlay_net.errors import KernelRefused
from overlay_net.records import MapNetwork

BRIDGE = "br0"
VXLAN = "vx0"
INGRESS_VXLAN_PREFIX = "sw-vx"
VXLAN_OVERHEAD_BYTES = 50
_BRIDGE_INDEX = 100  # above the devices that some kernels put into every new namespace
_VNI_FREE_S = 2.0
_GONE = (errno.ENOENT, errno.ENODEV, errno.ESRCH)


def bridge_name(network: MapNetwork) -> str:
    return ingress.BRIDGE if network.ingress else BRIDGE


def vxlan_name(network: MapNetwork) -> str:
    return f"{INGRESS_VXLAN_PREFIX}{network.vni}" if network.ingress else VXLAN


def create(network: MapNetwork, namespace: Path | None, underlay: str, port: int) -> int:
    """Make both devices; returns the MTU of the network. A half-made one is replaced."""
    mtu = mtu_of(network, underlay)
    if namespace is None:
        destroy(network, None)
        _add_bridge(network, None, mtu)
        _add_vxlan(network, None, underlay, port, mtu)
        return mtu
    namespaces.remove(namespace)
    namespaces.create(namespace)
    with namespaces.descriptor(namespace) as target, rtnl.connection() as connection:
        bridge = rtnl.new_bridge(BRIDGE, mtu=mtu, index=_BRIDGE_INDEX, namespace=target)
        connection.send([bridge], f"cannot make the bridge of network {network.name}")
        tunnel = rtnl.new_vxlan(
            VXLAN, vni=network.vni, local=underlay, port=port, mtu=mtu, master=_BRIDGE_INDEX, namespace=target
        )
        _send_tunnel(connection, tunnel, network)
    return mtu


def repair(network: MapNetwork, namespace: Path | None, underlay: str, port: int) -> list[str]:
    """Make what is missing or wrong, in place: what was, one sentence each. Peers are not looked at."""
    if namespace is not None and not namespaces.is_pinned(namespace):
        create(network, namespace, underlay, port)
        return ["its namespace was gone"]
    mtu = mtu_of(network, underlay)
    problems = []
    found, addresses = _devices(namespace)
    bridge = found.get(bridge_name(network))
    if bridge is None:
        _add_bridge(network, namespace, mtu)
        problems.append("its bridge was missing")
    elif not bridge.up or bridge.mtu != mtu:
        _set(namespace, rtnl.set_link(bridge.index, mtu=mtu))
        problems.append("its bridge was down or had another MTU")
    elif network.ingress and network.local_address not in addresses.get(bridge.index, ()):
        _set(namespace, rtnl.new_address(bridge.index, network.local_address))
        problems.append("its bridge had lost its address")
    tunnel = found.get(vxlan_name(network))
    if tunnel is None or (tunnel.vni, tunnel.local) != (network.vni, underlay):
        if tunnel is not None:
            _set(namespace, rtnl.delete_link(tunnel.index))
        _add_vxlan(network, namespace, underlay, port, mtu)
        problems.append("its VXLAN device was missing or had other addresses")
    elif bridge is None or tunnel.master != bridge.index or not tunnel.up:
        _set(namespace, rtnl.set_link(tunnel.index, master=_bridge_index(network, namespace)))
        problems.append("its VXLAN device was down or not on the bridge")
    return problems


def destroy(network: MapNetwork, namespace: Path | None) -> None:
    """Both devices and the namespace; what is not there is fine."""
    if namespace is not None:
        namespaces.remove(namespace)
        return
    netlink.delete_link(vxlan_name(network))
    netlink.delete_link(ingress.BRIDGE)


def exists(network: MapNetwork, namespace: Path | None) -> bool:
    try:
        with namespaces.inside(namespace):
            return rtnl.index_of(vxlan_name(network)) is not None
    except (OSError, KernelRefused):
        return False


Peer = tuple[str, str, str]  # address, hardware address, node address


def peers_of(network: MapNetwork, underlay: str) -> set[Peer]:
    """Everything of the network that is on another node: endpoints, and the nodes' ingress gateways."""
    peers = {(peer.address, peer.mac, peer.node_address) for peer in network.peers}
    peers |= {(gateway.address, gateway.mac, gateway.node_address) for gateway in network.gateways}
    return {peer for peer in peers if peer[2] and peer[2] != underlay}


def program_peers(
    network: MapNetwork, namespace: Path | None, added: Collection[Peer], removed: Collection[Peer]
) -> None:
    """Forwarding and ARP entries, only the difference. Old ones go first: an address may have moved."""
    _change_entries(
        network,
        namespace,
        added=({(mac, node) for _, mac, node in added}, {(address, mac) for address, mac, _ in added}),
        removed=({(mac, node) for _, mac, node in removed}, {(address, mac) for address, mac, _ in removed}),
    )


def repair_peers(network: MapNetwork, namespace: Path | None, wanted: Collection[Peer]) -> list[str]:
    """Make the entries in the kernel those of `wanted`: what was wrong, one sentence each."""
    forwarding = {(mac, node) for _, mac, node in wanted}
    neighbours = {(address, mac) for address, mac, _ in wanted}
    with rtnl.connection(namespace) as kernel:
        index = _required_index(network)
        has_forwarding, has_neighbours = netlink.forwarding(kernel, index), netlink.neighbours(kernel, index)
    missing = (forwarding - has_forwarding, neighbours - has_neighbours)
    foreign = (has_forwarding - forwarding, has_neighbours - neighbours)
    if any(missing) or any(foreign):
        _change_entries(network, namespace, added=missing, removed=foreign)
    problems = []
    for what, absent, extra in zip(("forwarding", "ARP"), missing, foreign, strict=True):
        if absent or extra:
            problems.append(f"{len(absent)} {what} entries were missing, {len(extra)} were wrong")
    return problems


_Entries = tuple[set[tuple[str, str]], set[tuple[str, str]]]  # forwarding, neighbours


def _change_entries(
    network: MapNetwork, namespace: Path | None, *, added: _Entries, removed: _Entries
) -> None:
    with rtnl.connection(namespace) as connection:
        index = _required_index(network)
        old = rtnl.forwarding(index, sorted(removed[0]), remove=True)
        old += rtnl.neighbours(index, sorted(removed[1]), remove=True)
        new = rtnl.forwarding(index, sorted(added[0])) + rtnl.neighbours(index, sorted(added[1]))
        connection.send(old, f"cannot remove peers of network {network.name}", ignore=_GONE)
        connection.send(new, f"cannot add peers of network {network.name}")


def mtu_of(network: MapNetwork, underlay: str) -> int:
    wished = network.options.get("com.docker.network.driver.mtu", "")
    return int(wished) if wished.isdecimal() else netlink.mtu_toward(underlay) - VXLAN_OVERHEAD_BYTES


def _add_bridge(network: MapNetwork, namespace: Path | None, mtu: int) -> None:
    name = bridge_name(network)
    with rtnl.connection(namespace) as connection:
        mac = network.local_mac if network.ingress else ""
        connection.send([rtnl.new_bridge(name, mtu=mtu, mac=mac)], f"cannot make bridge {name}")
        if network.ingress:
            address = rtnl.new_address(_bridge_index(network, None), network.local_address)
            connection.send([address], f"cannot set {network.local_address}")
            namespaces.set_sysctl("net.ipv4.ip_forward", "1")
            for setting, value in (("rp_filter", "0"), ("route_localnet", "1")):
                namespaces.set_device_sysctl(name, setting, value)


def _add_vxlan(network: MapNetwork, namespace: Path | None, underlay: str, port: int, mtu: int) -> None:
    """Made from the node's namespace, where its packets travel."""
    name = vxlan_name(network)
    with namespaces.descriptor(namespace or "/proc/thread-self/ns/net") as target:
        tunnel = rtnl.new_vxlan(
            name,
            vni=network.vni,
            local=underlay,
            port=port,
            mtu=mtu,
            master=_bridge_index(network, namespace),
            namespace=target,
        )
        with rtnl.connection() as connection:
            _send_tunnel(connection, tunnel, network)


def _send_tunnel(connection: rtnl.Connection, tunnel: bytes, network: MapNetwork) -> None:
    """A VNI is free again only when the kernel has cleared away the namespace that had it, which it does later."""
    deadline = time.monotonic() + _VNI_FREE_S
    while True:
        try:
            connection.send([tunnel], f"cannot make the VXLAN device of network {network.name}")
            return
        except KernelRefused as error:
            if error.code != errno.EEXIST or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _bridge_index(network: MapNetwork, namespace: Path | None) -> int:
    with namespaces.inside(namespace):
        index = rtnl.index_of(bridge_name(network))
    if index is None:
        raise KernelRefused(f"bridge {bridge_name(network)} of network {network.name} is missing")
    return index


def _required_index(network: MapNetwork) -> int:
    """Of the VXLAN device, in the namespace that the calling thread is in."""
    index = rtnl.index_of(vxlan_name(network))
    if index is None:
        raise KernelRefused(f"the VXLAN device of network {network.name} is missing")
    return index


def _devices(namespace: Path | None) -> tuple[dict[str, netlink.Link], dict[int, set[str]]]:
    with rtnl.connection(namespace) as kernel:
        return netlink.links(kernel), netlink.addresses(kernel)


def _set(namespace: Path | None, message: bytes) -> None:
    with rtnl.connection(namespace) as connection:
        connection.send([message], "cannot repair a device")
