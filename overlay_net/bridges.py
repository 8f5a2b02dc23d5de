"""The networks of this host alone: their records on disk, their addresses, their bridges and rules.

Owns the node's table of published ports. Invariant: what a failed call had made is undone.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from overlay_net import firewall, ipam, namespaces, netlink, nft, rtnl
from overlay_net.audit import TableAudit
from overlay_net.errors import InvalidNetwork, KernelRefused, NetworkInUse
from overlay_net.files import write_atomically
from overlay_net.namespaces import Workers
from overlay_net.records import (
    NO_DEFAULTS,
    BridgeDefaults,
    Finding,
    IpamBlock,
    Network,
    NetworkSpec,
    Publish,
    Sandbox,
)
from overlay_net.sandbox import Attachment

logger = logging.getLogger(__name__)

DEFAULT_BRIDGE = "bridge"
GATEWAY_BRIDGE = "swarm_gwbridge"
DRIVERS = ("bridge", "host", "null")
BRIDGE_MTU = 1500
MTU_OPTION = "com.docker.network.driver.mtu"
_DEVICES = {DEFAULT_BRIDGE: "swbr0", GATEWAY_BRIDGE: "sw-gwbridge"}
_DEVICE_PREFIX = "sw-n"


class Bridges:
    """`others`: the networks that are not this host's own, whose names and subnets are taken as well."""

    def __init__(
        self,
        state_file: Path,
        workers: Workers,
        others: Callable[[], Sequence[Network]],
        defaults: BridgeDefaults = NO_DEFAULTS,
    ) -> None:
        self._state_file = state_file
        self._workers = workers
        self._others = others
        self._defaults = defaults
        self._networks: dict[str, Network] = {}
        self._pools: dict[str, ipam.AddressPool] = {}
        self._published: dict[tuple[str, str, int], tuple[str, int]] = {}
        self._programming = asyncio.Lock()  # what is published and what the kernel has change together

    # ---- networks -----------------------------------------------------------------------------------------

    async def start(self, live: Iterable[Sandbox]) -> None:
        """Devices and rules of the networks on disk, and of the default ones; those of nobody go.

        `live`: what runs on from an earlier life of the daemon; its published ports answer all the time.
        """
        live = tuple(live)
        if self._state_file.exists():
            loaded = msgspec.json.decode(self._state_file.read_bytes(), type=list[Network])
            self._networks = {network.id: network for network in loaded}
            self._forget_outdated_default(live)
        self._pools = {network.id: _pool(network.spec.ipam[0]) for network in self._with_device()}
        await self._workers.run(self._remove_leftovers)
        for name, driver in ((DEFAULT_BRIDGE, "bridge"), ("host", "host"), ("none", "null")):
            if not any(network.spec.name == name for network in self._networks.values()):
                wished = (
                    self._default_bridge()
                    if name == DEFAULT_BRIDGE
                    else NetworkSpec(name=name, driver=driver)
                )
                await self.add(wished)
        for network in self._with_device():
            await self._workers.run(_make, network)
        for sandbox in live:
            self._published |= self._elements(sandbox)
        anew = f"table ip {firewall.TABLE} {{}}\ndelete table ip {firewall.TABLE}\n"
        rules = anew + self._chains() + firewall.publish_elements(self._published)
        await self._workers.run(nft.apply, rules)

    def _default_bridge(self) -> NetworkSpec:
        bip, mtu = self._defaults.bip, self._defaults.mtu
        interface = ipaddress.IPv4Interface(bip) if bip else None
        block = (
            ()
            if interface is None
            else (IpamBlock(subnet=str(interface.network), gateway=str(interface.ip)),)
        )
        return NetworkSpec(
            name=DEFAULT_BRIDGE, driver="bridge", ipam=block, options={MTU_OPTION: str(mtu)} if mtu else {}
        )

    def _forget_outdated_default(self, live: Iterable[Sandbox]) -> None:
        """It is made anew as the settings say, unless containers of an earlier life of the daemon are on it."""
        known, wished = self.by_name(DEFAULT_BRIDGE), self._default_bridge()
        if known is None:
            return
        is_other = bool(wished.ipam) and wished.ipam != known.spec.ipam
        if not is_other and (not wished.options or wished.options == known.spec.options):
            return
        if any(endpoint.network == known.id for sandbox in live for endpoint in sandbox.endpoints):
            logger.warning(
                "the default bridge stays as it is: containers are on it; stop them and start swarmd again"
            )
            return
        del self._networks[known.id]

    def all(self) -> list[Network]:
        return list(self._networks.values())

    def has(self, network_id: str) -> bool:
        return network_id in self._networks

    def by_name(self, name: str) -> Network | None:
        return next((network for network in self._networks.values() if network.spec.name == name), None)

    async def add(self, spec: NetworkSpec) -> Network:
        known = [*self._networks.values(), *self._others()]
        if any(network.spec.name == spec.name for network in known):
            raise NetworkInUse(f"network with name {spec.name} already exists")
        blocks: tuple[IpamBlock, ...] = ()
        if spec.driver == "bridge":
            blocks = (await self._block(spec, known),)
        network = Network(
            id=secrets.token_hex(32), spec=msgspec.structs.replace(spec, ipam=blocks), created_at=time.time()
        )
        self._networks[network.id] = network
        if blocks:
            self._pools[network.id] = _pool(blocks[0])
            try:
                await self._workers.run(_make, network)
                await self._workers.run(nft.apply, self._chains())
            except BaseException:
                del self._networks[network.id], self._pools[network.id]
                await self._workers.run(netlink.delete_link, device(network))
                raise
        self._save()
        return network

    async def remove(self, network: Network) -> None:
        del self._networks[network.id]
        self._pools.pop(network.id, None)
        self._save()
        await self._workers.run(nft.apply, self._chains())
        if network.spec.driver == "bridge":
            await self._workers.run(netlink.delete_link, device(network))

    # ---- addresses ----------------------------------------------------------------------------------------

    def allocate(self, network: Network, wished: str) -> str:
        """An address with its prefix length. AddressInUse; InvalidNetwork where there are none."""
        pool = self._pools.get(network.id)
        if pool is None:
            raise InvalidNetwork(f"network {network.spec.name} ({network.spec.driver}) cannot be attached to")
        return pool.allocate(wished)

    def take(self, network_id: str, cidr: str) -> None:
        """An address that a container of an earlier life of the daemon has."""
        if network_id in self._pools:
            self._pools[network_id].take(cidr)

    def release(self, network_id: str, cidr: str) -> None:
        if network_id in self._pools:
            self._pools[network_id].release(cidr)

    def attachment(self, network_id: str, interface: str, cidr: str, mac: str) -> Attachment:
        network = self._networks[network_id]
        return Attachment(
            bridge=device(network),
            bridge_namespace=None,
            interface=interface,
            cidr=cidr,
            mac=mac,
            mtu=_mtu(network),
        )

    # ---- published ports ----------------------------------------------------------------------------------

    async def publish(self, made: Sandbox) -> None:
        """InvalidNetwork when it has ports and no bridge network."""
        elements = self._elements(made)
        if not elements:
            return
        async with self._programming:
            await self._workers.run(nft.apply, firewall.publish_elements(elements))
            self._published |= elements

    async def unpublish(self, ports: Iterable[Publish]) -> None:
        """KernelRefused when they were gone already."""
        async with self._programming:
            keys = [_key(port) for port in ports]
            elements = {key: self._published.pop(key) for key in keys if key in self._published}
            if elements:
                await self._workers.run(nft.apply, firewall.publish_elements(elements, remove=True))

    # ---- audits -------------------------------------------------------------------------------------------

    async def audit(self, tables: TableAudit) -> list[Finding]:
        findings = []
        for network in self._with_device():
            if await self._workers.run(_repair, network):
                subject = f"network {network.spec.name}"
                problem = "its bridge was missing, down or without its address"
                findings.append(Finding(subject=subject, problem=problem, repaired=True))
        async with self._programming:
            rules = self._chains() + firewall.flush_elements() + firewall.publish_elements(self._published)
            return findings + await self._workers.run(tables.repair, None, [f"ip {firewall.TABLE}"], rules)

    # ---- inside -------------------------------------------------------------------------------------------

    async def _block(self, spec: NetworkSpec, known: Sequence[Network]) -> IpamBlock:
        used = [block.subnet for network in known for block in network.spec.ipam]
        if len(spec.ipam) > 1:
            raise InvalidNetwork("a bridge network has one IPv4 subnet: give a single one")
        wished = spec.ipam[0] if spec.ipam and spec.ipam[0].subnet else None
        routes = await self._workers.run(_host_subnets)
        if wished is None:
            pools = ipam.subnets(self._defaults.pools) if self._defaults.pools else ipam.LOCAL_POOLS
            block = IpamBlock(subnet=ipam.free_subnet(pools, [*used, *routes]))
        else:
            ipam.parse_subnet(wished.subnet)
            ipam.check_overlap(wished.subnet, [*used, *routes])
            block = wished
        if block.gateway:
            return block
        aux = dict(block.aux_addresses)
        gateway = ipam.AddressPool(block.subnet, block.ip_range, aux).allocate()
        return msgspec.structs.replace(block, gateway=gateway.partition("/")[0])

    def _elements(self, made: Sandbox) -> dict[tuple[str, str, int], tuple[str, int]]:
        if not made.ports:
            return {}
        endpoint = next((e for e in made.endpoints if self.has(e.network)), None)
        if endpoint is None:
            raise InvalidNetwork("ports can only be published on a bridge network")
        address = endpoint.cidr.partition("/")[0]
        return {_key(port): (address, port.container_port) for port in made.ports}

    def _with_device(self) -> list[Network]:
        return [network for network in self._networks.values() if network.spec.driver == "bridge"]

    def _chains(self) -> str:
        return firewall.base_rules(
            [
                firewall.BridgeRule(
                    bridge=device(network),
                    subnet=network.spec.ipam[0].subnet,
                    internal=network.spec.internal,
                    masquerade=network.spec.options.get("com.docker.network.bridge.enable_ip_masquerade")
                    != "false",
                )
                for network in self._with_device()
            ]
        )

    def _save(self) -> None:
        write_atomically(self._state_file, msgspec.json.encode(list(self._networks.values())))

    def _remove_leftovers(self) -> None:
        kept = {device(network) for network in self._with_device()}
        with rtnl.connection() as kernel:
            present = netlink.links(kernel)
        for name in present:
            if name not in kept and (name in _DEVICES.values() or name.startswith(_DEVICE_PREFIX)):
                netlink.delete_link(name)


def device(network: Network) -> str:
    """The bridge's device name: at most 15 characters, recognisable as ours."""
    wished = network.spec.options.get("com.docker.network.bridge.name", "")
    return wished or _DEVICES.get(network.spec.name) or f"{_DEVICE_PREFIX}{network.id[:11]}"


def has_own_dns(name: str) -> bool:
    """Containers on user-defined networks are found by name; on the default ones as Docker does it, not."""
    return name not in _DEVICES


def _make(network: Network) -> None:
    """The device with the gateway's address; what is there already stays. Blocks."""
    name, block = device(network), network.spec.ipam[0]
    prefix = ipaddress.IPv4Network(block.subnet).prefixlen
    with rtnl.connection() as connection:
        connection.send(
            [rtnl.new_bridge(name, mtu=_mtu(network))], f"cannot make bridge {name}", ignore=(errno.EEXIST,)
        )
        index = rtnl.index_of(name)
        if index is None:
            raise KernelRefused(f"bridge {name} vanished while it was made")
        connection.send(
            [rtnl.set_link(index, mtu=_mtu(network)), rtnl.new_address(index, f"{block.gateway}/{prefix}")],
            f"cannot set up bridge {name}",
            ignore=(errno.EEXIST,),
        )
    namespaces.set_device_sysctl(name, "route_localnet", "1")
    if not network.spec.internal:
        namespaces.set_sysctl("net.ipv4.ip_forward", "1", required=False)


def _repair(network: Network) -> bool:
    """Whether something was wrong. Blocks."""
    with rtnl.connection() as kernel:
        link = netlink.links(kernel).get(device(network))
        found = netlink.addresses(kernel).get(link.index, set()) if link is not None else set()
    block = network.spec.ipam[0]
    cidr = f"{block.gateway}/{ipaddress.IPv4Network(block.subnet).prefixlen}"
    if link is not None and link.up and cidr in found:
        return False
    _make(network)
    return True


def _mtu(network: Network) -> int:
    wished = network.spec.options.get(MTU_OPTION, "")
    return int(wished) if wished.isdecimal() else BRIDGE_MTU


def _pool(block: IpamBlock) -> ipam.AddressPool:
    return ipam.AddressPool(block.subnet, block.ip_range, {**block.aux_addresses, "gateway": block.gateway})


def _key(port: Publish) -> tuple[str, str, int]:
    return port.host_ip, port.protocol, port.host_port


def _host_subnets() -> list[str]:
    with rtnl.connection() as kernel:
        return netlink.route_subnets(kernel)
