"""One overlay network in the kernel of this node: a bridge and a VXLAN device, forwarding by the map only.

Ordinary networks live in a namespace of their own; the ingress network in the node's. The VXLAN device
learns and floods nothing: it forwards by static entries and answers ARP itself. Everything here blocks.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from overlay_net import ingress, netlink
from overlay_net.records import MapNetwork

BRIDGE = "br0"
VXLAN = "vx0"
VXLAN_OVERHEAD_BYTES = 50
_BRIDGE_INDEX = 2  # the first device after loopback in a new namespace


def bridge_name(network: MapNetwork) -> str:
    return ingress.BRIDGE if network.ingress else BRIDGE


def vxlan_name(network: MapNetwork) -> str:
    return f"sw-vx{network.vni}" if network.ingress else VXLAN


def create(network: MapNetwork, namespace: Path | None, underlay: str, port: int) -> int:
    """Make both devices; returns the MTU of the network. A half-made one is replaced."""
    outer_name = f"sw-vx{network.vni}"
    with netlink.route() as ip:
        mtu = _mtu(network, netlink.mtu_toward(ip, underlay))
        netlink.delete_link(ip, outer_name)
    if namespace is None:
        _create_here(network, underlay, port, mtu, outer_name)
        return mtu
    if namespace.exists():
        netlink.remove_namespace(namespace)
    netlink.create_namespace(namespace)
    target = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with netlink.route() as ip:
            netlink.add_bridge_in(ip, BRIDGE, target, index=_BRIDGE_INDEX, mtu=mtu)
            netlink.add_vxlan(
                ip,
                VXLAN,
                vni=network.vni,
                local=underlay,
                port=port,
                mtu=mtu,
                master=_BRIDGE_INDEX,
                namespace=target,
            )
    finally:
        os.close(target)
    return mtu


def _create_here(network: MapNetwork, underlay: str, port: int, mtu: int, name: str) -> None:
    netlink.set_sysctl("net.ipv4.ip_forward", "1")
    with netlink.route() as ip:
        netlink.delete_link(ip, ingress.BRIDGE)
        bridge = netlink.add_bridge(ip, ingress.BRIDGE, mtu=mtu, mac=network.local_mac)
        netlink.add_vxlan(ip, name, vni=network.vni, local=underlay, port=port, mtu=mtu, master=bridge)
        netlink.add_address(ip, bridge, network.local_address)
    for setting, value in (("rp_filter", "0"), ("route_localnet", "1")):
        netlink.set_device_sysctl(ingress.BRIDGE, setting, value)
    netlink.set_device_sysctl("all", "rp_filter", "0")


def destroy(network: MapNetwork, namespace: Path | None) -> None:
    """Both devices and the namespace; what is not there is fine."""
    if namespace is not None:
        netlink.remove_namespace(namespace)
        return
    with netlink.route() as ip:
        netlink.delete_link(ip, vxlan_name(network))
        netlink.delete_link(ip, ingress.BRIDGE)


def exists(network: MapNetwork, namespace: Path | None) -> bool:
    if namespace is not None and not namespace.exists():
        return False
    try:
        with netlink.route(namespace) as ip:
            return netlink.find_link(ip, vxlan_name(network)) is not None
    except OSError:
        return False


Peer = tuple[str, str, str]  # address, hardware address, node address


def peers_of(network: MapNetwork, underlay: str) -> set[Peer]:
    """Everything of the network that is on another node: endpoints, and the nodes' ingress gateways."""
    peers = {(peer.address, peer.mac, peer.node_address) for peer in network.peers}
    peers |= {(gateway.address, gateway.mac, gateway.node_address) for gateway in network.gateways}
    return {peer for peer in peers if peer[2] and peer[2] != underlay}


def program_peers(
    network: MapNetwork, namespace: Path | None, added: Sequence[Peer], removed: Sequence[Peer]
) -> None:
    """Forwarding and ARP entries, only the difference. Old ones go first: an address may have moved."""
    with netlink.inside(namespace):
        with netlink.route() as ip:
            index = netlink.find_link(ip, vxlan_name(network))
        assert index is not None, "created before its peers"
        netlink.change_forwarding(index, [(mac, node) for _, mac, node in removed], remove=True)
        netlink.change_neighbours(index, [(address, mac) for address, mac, _ in removed], remove=True)
        netlink.change_forwarding(index, [(mac, node) for _, mac, node in added])
        netlink.change_neighbours(index, [(address, mac) for address, mac, _ in added])


def _mtu(network: MapNetwork, underlay_mtu: int) -> int:
    wished = network.options.get("com.docker.network.driver.mtu", "")
    return int(wished) if wished.isdecimal() else underlay_mtu - VXLAN_OVERHEAD_BYTES
