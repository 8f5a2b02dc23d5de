"""The cluster's networks on this node, programmed from the network map and from nothing else.

Owns the overlay networks in the kernel, the peers on them, virtual addresses in the sandboxes, and the
node's published ports. `apply_map` is idempotent and programs differences only. Invariant: what a sandbox
needs of a network (peers, names) is in the kernel before the sandbox is attached to it, because the map
that has the network is applied first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from overlay_net import ingress, loadbalancer, netlink, nft, vxlan
from overlay_net.dns import Resolver
from overlay_net.errors import KernelRefused, NetworkNotFound
from overlay_net.netlink import Workers
from overlay_net.records import (
    Finding,
    IpamBlock,
    MapNetwork,
    MapVip,
    Network,
    NetworkMap,
    NetworkSpec,
    Sandbox,
)
from overlay_net.sandbox import Attachment

logger = logging.getLogger(__name__)


@dataclass
class _Programmed:
    """One network as it is in the kernel."""

    record: MapNetwork
    namespace: Path | None
    mtu: int
    peers: set[vxlan.Peer] = field(default_factory=set)


@dataclass
class _Attached:
    """One sandbox: its interface on each of its networks, and its address toward the outside."""

    namespace: Path
    interfaces: dict[str, str]
    egress: str


class Overlays:
    def __init__(
        self, *, run_dir: Path, underlay_address: str, vxlan_port: int, resolver: Resolver, workers: Workers
    ) -> None:
        self._netns_dir = run_dir / "netns"
        self._map_file = run_dir / "overlay.json"
        self._underlay = underlay_address
        self._port = vxlan_port
        self._resolver = resolver
        self._workers = workers
        self._lock = asyncio.Lock()
        self._map = NetworkMap()
        self._networks: dict[str, _Programmed] = {}
        self._sandboxes: dict[str, _Attached] = {}
        self._node_rules = ""

    # ---- what there is ------------------------------------------------------------------------------------

    def has(self, network_id: str) -> bool:
        return network_id in self._networks

    def networks(self) -> list[Network]:
        return [_as_network(programmed.record) for programmed in self._networks.values()]

    def is_internal(self, network_id: str) -> bool:
        return self._find(network_id).record.internal

    def attachment(self, network_id: str, interface: str, cidr: str, mac: str) -> Attachment:
        """How to wire a sandbox to this network. NetworkNotFound when no map has brought it."""
        programmed = self._find(network_id)
        return Attachment(
            bridge=vxlan.bridge_name(programmed.record),
            bridge_namespace=programmed.namespace,
            interface=interface,
            cidr=cidr,
            mac=mac,
            mtu=programmed.mtu,
        )

    # ---- sandboxes ----------------------------------------------------------------------------------------

    async def attached(
        self, sandbox_id: str, namespace: Path, interfaces: Mapping[str, str], egress: str
    ) -> None:
        """The sandbox is wired up: give it its virtual addresses and the rules for published ports."""
        attached = _Attached(namespace, dict(interfaces), egress)
        self._sandboxes[sandbox_id] = attached
        await self._workers.run(nft.apply, self._sandbox_rules(attached), namespace)
        programmed = self._ingress()
        if programmed is not None and programmed.record.id in interfaces:
            await self._workers.run(_route_answers, namespace, interfaces[programmed.record.id])

    async def detached(self, sandbox_id: str) -> None:
        """Kernel objects die with the sandbox's namespace."""
        self._sandboxes.pop(sandbox_id, None)
        async with self._lock:
            await self._remove_unused()

    # ---- the map ------------------------------------------------------------------------------------------

    async def set_underlay(self, address: str) -> None:
        self._underlay = address

    async def apply_map(self, wanted: NetworkMap) -> None:
        """Program what changed. KernelRefused: the next call tries again, nothing counts as done."""
        async with self._lock:
            before = self._map
            for network in wanted.networks:
                await self._program(network)
            self._map = wanted
            await self._program_sandboxes(before, wanted)
            await self._program_ports(wanted)
            await self._remove_unused()
            await self._workers.run(_write_atomically, self._map_file, msgspec.json.encode(wanted))

    async def _program(self, network: MapNetwork) -> None:
        programmed = self._networks.get(network.id)
        if programmed is None:
            namespace = self._namespace(network)
            mtu = await self._workers.run(vxlan.create, network, namespace, self._underlay, self._port)
            programmed = _Programmed(network, namespace, mtu)
            self._networks[network.id] = programmed
        wanted = vxlan.peers_of(network, self._underlay)
        added, removed = wanted - programmed.peers, programmed.peers - wanted
        if added or removed:
            await self._workers.run(
                vxlan.program_peers, network, programmed.namespace, sorted(added), sorted(removed)
            )
            programmed.peers = wanted
        programmed.record = network
        self._resolver.set_names(network.id, {name.name: name.addresses for name in network.names})

    async def _program_sandboxes(self, before: NetworkMap, wanted: NetworkMap) -> None:
        """New rules for the sandboxes on networks whose virtual addresses or gateways changed."""
        old = {network.id: (network.vips, network.gateways) for network in before.networks}
        changed = {n.id for n in wanted.networks if old.get(n.id) != (n.vips, n.gateways)}
        for attached in list(self._sandboxes.values()):
            if changed & attached.interfaces.keys():
                try:
                    await self._workers.run(nft.apply, self._sandbox_rules(attached), attached.namespace)
                except (KernelRefused, OSError) as error:
                    # A sandbox that is being taken away must not hold up the others.
                    logger.info("sandbox %s not programmed: %s", attached.namespace.name, error)

    async def _program_ports(self, wanted: NetworkMap) -> None:
        programmed = self._ingress()
        rules = ingress.node_rules(wanted.ports, programmed.record.subnet) if programmed is not None else ""
        if rules == self._node_rules:
            return
        await self._workers.run(nft.apply, rules or _no_table())
        self._node_rules = rules

    async def _remove_unused(self) -> None:
        """Networks that left the map, once no sandbox is on them."""
        needed = {network.id for network in self._map.networks}
        needed |= {network for attached in self._sandboxes.values() for network in attached.interfaces}
        for network_id in [known for known in self._networks if known not in needed]:
            programmed = self._networks.pop(network_id)
            await self._workers.run(vxlan.destroy, programmed.record, programmed.namespace)
            self._resolver.set_names(network_id, {})

    def _sandbox_rules(self, attached: _Attached) -> str:
        vips: list[MapVip] = []
        rules = ""
        for network_id, interface in attached.interfaces.items():
            programmed = self._networks.get(network_id)
            if programmed is None:
                continue
            record = programmed.record
            if record.ingress:
                rules = ingress.task_rules(interface, record.subnet, attached.egress, record.gateways)
            else:
                vips += record.vips
        return loadbalancer.vip_rules(vips) + rules

    # ---- restarts -----------------------------------------------------------------------------------------

    async def restore(self, live: Mapping[str, Sandbox]) -> None:
        """After a restart of the daemon: take over what is in the kernel, remove what nobody needs."""
        try:
            known = msgspec.json.decode(self._map_file.read_bytes(), type=NetworkMap)
        except (OSError, msgspec.MsgspecError):
            known = NetworkMap()
        used = {endpoint.network for sandbox in live.values() for endpoint in sandbox.endpoints}
        for network in known.networks:
            namespace = self._namespace(network)
            if network.id in used and await self._workers.run(vxlan.exists, network, namespace):
                mtu = await self._workers.run(_bridge_mtu, network, namespace)
                peers = vxlan.peers_of(network, self._underlay)
                self._networks[network.id] = _Programmed(network, namespace, mtu, peers)
                self._resolver.set_names(network.id, {name.name: name.addresses for name in network.names})
        self._map = msgspec.structs.replace(
            known, networks=tuple(n for n in known.networks if n.id in self._networks)
        )
        for sandbox in live.values():
            interfaces = {e.network: e.interface for e in sandbox.endpoints if e.network in self._networks}
            if interfaces:
                self._sandboxes[sandbox.id] = _Attached(
                    Path(sandbox.netns_path), interfaces, _egress(sandbox, self._networks)
                )
        await self._workers.run(self._remove_leftovers)

    def _remove_leftovers(self) -> None:
        kept = {programmed.namespace for programmed in self._networks.values()}
        for pin in self._netns_dir.glob("ov-*"):
            if pin not in kept:
                netlink.remove_namespace(pin)
        names = {vxlan.vxlan_name(p.record) for p in self._networks.values() if p.record.ingress}
        with netlink.route() as ip:
            for name in netlink.link_names(ip):
                if name.startswith("sw-vx") and name not in names:
                    netlink.delete_link(ip, name)
            if self._ingress() is None:
                netlink.delete_link(ip, ingress.BRIDGE)
        if self._ingress() is None:
            nft.apply(_no_table())

    async def audit(self) -> list[Finding]:
        """Networks whose devices are gone are made anew, with all their peers."""
        findings = []
        async with self._lock:
            for programmed in list(self._networks.values()):
                record = programmed.record
                if await self._workers.run(vxlan.exists, record, programmed.namespace):
                    continue
                del self._networks[record.id]
                await self._program(record)
                findings.append(
                    Finding(
                        subject=f"network {record.name}", problem="its devices were missing", repaired=True
                    )
                )
        return findings

    def _namespace(self, network: MapNetwork) -> Path | None:
        return None if network.ingress else self._netns_dir / f"ov-{network.id[:12]}"

    def _ingress(self) -> _Programmed | None:
        return next((p for p in self._networks.values() if p.record.ingress), None)

    def _find(self, network_id: str) -> _Programmed:
        programmed = self._networks.get(network_id)
        if programmed is None:
            raise NetworkNotFound(
                f"network {network_id} not found on this node: no network map has brought it yet"
            )
        return programmed


def _as_network(record: MapNetwork) -> Network:
    spec = NetworkSpec(
        name=record.name,
        driver="overlay",
        ipam=(IpamBlock(subnet=record.subnet, gateway=record.gateway),),
        internal=record.internal,
        options=record.options,
    )
    return Network(id=record.id, spec=spec, created_at=0.0, scope="swarm")


def _egress(sandbox: Sandbox, overlays: Iterable[str]) -> str:
    """Its address on the network that gives the default route."""
    known = set(overlays)
    outer = next((e for e in sandbox.endpoints if e.network not in known and e.gateway), None)
    return outer.cidr.partition("/")[0] if outer else ""


def _route_answers(namespace: Path, interface: str) -> None:
    """Marked packets leave by the ingress interface, to a neighbour that netdev egress renames."""
    with netlink.route(namespace) as ip:
        index = netlink.find_link(ip, interface)
        assert index is not None, "just attached"
        ip.neigh("replace", dst=ingress.NEXT_HOP, lladdr=ingress.NEXT_HOP_MAC, ifindex=index, state=0x80)
        ip.route(
            "replace", dst="default", gateway=ingress.NEXT_HOP, oif=index, table=ingress.ROUTE_TABLE, flags=4
        )
        ip.rule(
            "add",
            priority=ingress.ROUTE_TABLE,
            fwmark=ingress.MARK_BASE,
            fwmask=ingress.MARK_BASE,
            table=ingress.ROUTE_TABLE,
        )
        for name in ("all", interface):
            netlink.set_device_sysctl(name, "rp_filter", "0")


def _bridge_mtu(network: MapNetwork, namespace: Path | None) -> int:
    with netlink.route(namespace) as ip:
        index = netlink.find_link(ip, vxlan.bridge_name(network))
        link = next(iter(ip.get_links(index)))
        return int(link.get_attr("IFLA_MTU"))


def _no_table() -> str:
    return f"table ip {ingress.TABLE} {{}}\ndelete table ip {ingress.TABLE}\n"


def _write_atomically(path: Path, data: bytes) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_bytes(data)
    temporary.rename(path)
