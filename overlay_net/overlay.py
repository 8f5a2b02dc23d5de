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

from overlay_net import ingress, loadbalancer, namespaces, netlink, nft, rtnl, sandbox, vxlan
from overlay_net.audit import TableAudit
from overlay_net.dns import Resolver
from overlay_net.errors import KernelRefused, NetworkNotFound
from overlay_net.files import write_atomically
from overlay_net.namespaces import Workers
from overlay_net.records import (
    Finding,
    IpamBlock,
    MapNetwork,
    MapVip,
    Network,
    NetworkMap,
    NetworkSpec,
    Record,
    Sandbox,
)
from overlay_net.sandbox import Attachment

logger = logging.getLogger(__name__)


class _Saved(Record, frozen=True):
    """What a restart of the daemon needs: the last map, and where this node's tunnels start."""

    underlay: str = ""
    map: NetworkMap = NetworkMap()


@dataclass
class _Programmed:
    """One network as it is in the kernel."""

    record: MapNetwork
    namespace: Path | None
    mtu: int
    peers: set[vxlan.Peer] = field(default_factory=set)


@dataclass(eq=False)
class _Attached:
    """One sandbox: its interface on each of its networks, and its address toward the outside.

    `rules`: what is in its kernel tables; "" until they were first programmed. `changing` keeps changes in order.
    """

    namespace: Path
    interfaces: dict[str, str]
    egress: str
    rules: str = ""
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)


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
        await self._program_sandbox(attached)
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
        """Tunnels that start at another address are made anew."""
        async with self._lock:
            if address == self._underlay:
                return
            self._underlay = address
            for programmed in list(self._networks.values()):
                await self._repair_network(programmed)

    async def apply_map(self, wanted: NetworkMap) -> None:
        """Program what changed. KernelRefused: the next call tries again, nothing counts as done."""
        async with self._lock:
            for network in wanted.networks:
                await self._program(network)
            self._map = wanted
            saved = msgspec.json.encode(_Saved(underlay=self._underlay, map=wanted))
            await self._workers.run(write_atomically, self._map_file, saved)
            await self._program_ports(wanted)
            await self._remove_unused()
            await self._program_sandboxes()

    async def _program(self, network: MapNetwork) -> None:
        programmed = self._networks.get(network.id)
        if programmed is None:
            namespace = self._namespace(network)
            mtu = await self._workers.run(vxlan.create, network, namespace, self._underlay, self._port)
            programmed = _Programmed(network, namespace, mtu)
            self._networks[network.id] = programmed
        programmed.record = network
        wanted = vxlan.peers_of(network, self._underlay)
        added, removed = wanted - programmed.peers, programmed.peers - wanted
        if added or removed:
            try:
                await self._workers.run(vxlan.program_peers, network, programmed.namespace, added, removed)
            except KernelRefused as error:
                logger.warning("network %s: %s; repairing it", network.name, error)
                await self._repair_network(programmed)
            programmed.peers = wanted
        self._resolver.set_names(network.id, {name.name: name.addresses for name in network.names})

    async def _program_sandboxes(self) -> None:
        """All of them, also when one refuses: KernelRefused for the first that did and is still there."""
        refused = None
        for sandbox_id, attached in list(self._sandboxes.items()):
            try:
                await self._program_sandbox(attached)
            except (KernelRefused, OSError) as error:
                if self._sandboxes.get(sandbox_id) is attached and refused is None:
                    refused = KernelRefused(f"container {sandbox_id[:12]}: {error}")
        if refused is not None:
            raise refused

    async def _program_sandbox(self, attached: _Attached) -> None:
        """Its tables as the newest map wants them."""
        async with attached.changing:
            rules = self._sandbox_rules(attached)
            if rules != attached.rules:
                await self._workers.run(nft.apply, rules, attached.namespace)
                attached.rules = rules

    async def _program_ports(self, wanted: NetworkMap) -> None:
        programmed = self._ingress()
        rules = ingress.node_rules(wanted.ports, programmed.record.subnet) if programmed is not None else ""
        if rules == self._node_rules:
            return
        await self._workers.run(nft.apply, rules or ingress.no_rules())
        self._node_rules = rules

    async def _remove_unused(self) -> None:
        """Networks that left the map, once no sandbox is on them."""
        needed = {network.id for network in self._map.networks}
        needed |= {network for attached in self._sandboxes.values() for network in attached.interfaces}
        for network_id in [known for known in self._networks if known not in needed]:
            programmed = self._networks.pop(network_id)
            await self._workers.run(vxlan.destroy, programmed.record, programmed.namespace)
            self._resolver.forget_network(network_id)

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
        """After a restart of the daemon: take over what is in the kernel, remove what nobody needs.

        The node goes on with its last map until the managers send one; the ingress network answers published
        ports also where no task is.
        """
        try:
            saved = msgspec.json.decode(self._map_file.read_bytes(), type=_Saved)
        except (OSError, msgspec.MsgspecError):
            saved = _Saved()
        known = saved.map
        self._underlay = self._underlay or saved.underlay
        used = {endpoint.network for sandbox in live.values() for endpoint in sandbox.endpoints}
        async with self._lock:
            for network in known.networks:
                namespace = self._namespace(network)
                wanted = network.ingress or network.id in used
                if wanted and await self._workers.run(vxlan.exists, network, namespace):
                    programmed = _Programmed(network, namespace, 0)
                    self._networks[network.id] = programmed
                    await self._repair_network(programmed)
                    self._resolver.set_names(network.id, {n.name: n.addresses for n in network.names})
            restored = tuple(n for n in known.networks if n.id in self._networks)
            self._map = msgspec.structs.replace(known, networks=restored)
            for sandbox in live.values():
                interfaces = {
                    e.network: e.interface for e in sandbox.endpoints if e.network in self._networks
                }
                if interfaces:
                    egress = _egress(sandbox, self._networks)
                    self._sandboxes[sandbox.id] = _Attached(Path(sandbox.netns_path), interfaces, egress)
            await self._workers.run(self._remove_leftovers)
            await self._program_ports(self._map)
            try:
                await self._program_sandboxes()
            except KernelRefused as error:
                logger.warning("not programmed, the next map or audit tries again: %s", error)

    def _remove_leftovers(self) -> None:
        kept = {programmed.namespace for programmed in self._networks.values()}
        for pin in self._netns_dir.glob("ov-*"):
            if pin not in kept:
                namespaces.remove(pin)
        names = {vxlan.vxlan_name(p.record) for p in self._networks.values() if p.record.ingress}
        with rtnl.connection() as kernel:
            present = netlink.links(kernel)
        for name in present:
            if name.startswith(vxlan.INGRESS_VXLAN_PREFIX) and name not in names:
                netlink.delete_link(name)
        if self._ingress() is None:
            netlink.delete_link(ingress.BRIDGE)
            nft.apply(ingress.no_rules())

    # ---- audits -------------------------------------------------------------------------------------------

    async def audit(self, tables: TableAudit) -> list[Finding]:
        """Compare devices, peers and rules with the map, repair what differs, report it."""
        findings = []
        for network_id in list(self._networks):
            async with self._lock:
                programmed = self._networks.get(network_id)
                problems = await self._repair_network(programmed) if programmed is not None else []
            if programmed is not None and problems:
                subject = f"network {programmed.record.name}"
                findings += [Finding(subject=subject, problem=text, repaired=True) for text in problems]
        async with self._lock:
            if self._node_rules:
                findings += await self._workers.run(
                    tables.repair, None, [f"ip {ingress.TABLE}"], self._node_rules
                )
        for sandbox_id, attached in list(self._sandboxes.items()):
            async with attached.changing:
                if self._sandboxes.get(sandbox_id) is attached and attached.rules:
                    findings += await self._workers.run(
                        tables.repair, attached.namespace, self._sandbox_tables(attached), attached.rules
                    )
        return findings

    async def _repair_network(self, programmed: _Programmed) -> list[str]:
        """Devices and peers, under the lock."""
        record, namespace = programmed.record, programmed.namespace
        wanted = vxlan.peers_of(record, self._underlay)
        problems = await self._workers.run(vxlan.repair, record, namespace, self._underlay, self._port)
        problems += await self._workers.run(vxlan.repair_peers, record, namespace, wanted)
        programmed.mtu = await self._workers.run(vxlan.mtu_of, record, self._underlay)
        programmed.peers = wanted
        return problems

    def _sandbox_tables(self, attached: _Attached) -> list[str]:
        found = [f"ip {loadbalancer.TABLE}"]
        programmed = self._ingress()
        if programmed is not None and programmed.record.id in attached.interfaces:
            found += [f"ip {ingress.TABLE}", f"netdev {ingress.TABLE}"]
        return found

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
    """Marked packets leave by the ingress interface, for netdev egress to name their node."""
    sandbox.route_answers(
        namespace,
        interface,
        next_hop=ingress.NEXT_HOP,
        mac=ingress.NEXT_HOP_MAC,
        mark=ingress.MARK_BASE,
        table=ingress.ROUTE_TABLE,
    )
