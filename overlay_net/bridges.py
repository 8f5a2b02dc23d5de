"""The networks of this host alone: their records on disk, their addresses, their bridges and rules.

Invariant: what a failed call had made is undone.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from overlay_net import firewall, ipam, macvlan, namespaces, netlink, network_options, nft, rtnl
from overlay_net.audit import TableAudit
from overlay_net.errors import InvalidNetwork, KernelRefused, NetworkInUse
from overlay_net.files import write_atomically
from overlay_net.firewall import IPV4, IPV6
from overlay_net.namespaces import Workers
from overlay_net.published import PublishedPorts
from overlay_net.records import (
    NO_DEFAULTS,
    BridgeDefaults,
    Endpoint,
    Finding,
    IpamBlock,
    Network,
    NetworkSpec,
    Sandbox,
)
from overlay_net.sandbox import Attachment

logger = logging.getLogger(__name__)

DEFAULT_BRIDGE = "bridge"
GATEWAY_BRIDGE = "swarm_gwbridge"
DRIVERS = ("bridge", "host", "null", "macvlan")
MTU_OPTION = network_options.MTU
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
        self._pools6: dict[str, ipam.AddressPool] = {}
        self.published = PublishedPorts(workers, self._has_device)

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
        for network in self._networks.values():
            self._fill_pools(network)
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
            self.published.adopt(sandbox)
        families = self._families()
        listed = await self._workers.run(nft.listing, f"{IPV6} {firewall.TABLE}")
        if IPV6 not in families and listed:
            families = [IPV4, IPV6]  # of an earlier life of the daemon
        rules = "".join(firewall.no_rules(family) for family in families) + self._chains()
        rules += "".join(self.published.rules(family) for family in self._families())
        await self._workers.run(nft.apply, rules)

    def _default_bridge(self) -> NetworkSpec:
        wished = self._defaults
        blocks = []
        if wished.bip:
            interface = ipaddress.IPv4Interface(wished.bip)
            blocks.append(IpamBlock(subnet=str(interface.network), gateway=str(interface.ip)))
        if wished.ipv6 and wished.fixed_cidr_v6:
            blocks.append(IpamBlock(subnet=wished.fixed_cidr_v6))
        options = {MTU_OPTION: str(wished.mtu)} if wished.mtu else {}
        if not wished.icc:
            options[network_options.ICC] = "false"
        return NetworkSpec(name=DEFAULT_BRIDGE, ipam=tuple(blocks), ipv6=wished.ipv6, options=options)

    def _forget_outdated_default(self, live: Iterable[Sandbox]) -> None:
        """It is made anew as the settings say, unless containers of an earlier life of the daemon are on it."""
        known, wished = self.by_name(DEFAULT_BRIDGE), self._default_bridge()
        if known is None:
            return
        gateways = {block.subnet: block.gateway for block in known.spec.ipam}
        has_blocks = all(
            gateways.get(w.subnet, "") in (w.gateway or gateways.get(w.subnet),) for w in wished.ipam
        )
        if has_blocks and (wished.ipv6, wished.options) == (known.spec.ipv6, known.spec.options):
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
        has_addresses = spec.driver in ("bridge", "macvlan") and not spec.config_only
        if has_addresses:
            network_options.check(spec)
        blocks = await self._blocks(spec, known) if has_addresses else spec.ipam
        network = Network(
            id=secrets.token_hex(32), spec=msgspec.structs.replace(spec, ipam=blocks), created_at=time.time()
        )
        if spec.driver == "macvlan":
            self._check_parent(network)
        elif has_addresses:
            await self._workers.run(_check_device, network)
        self._fill_pools(network)
        self._networks[network.id] = network
        try:
            self._save()  # first: what a crash leaves half made is known by its record
            if spec.driver == "macvlan":
                await self._workers.run(macvlan.make_parent, network)
            elif has_addresses:
                await self._workers.run(_make, network)
                await self._workers.run(nft.apply, self._chains())
        except BaseException:
            await self.remove(network)
            raise
        return network

    async def remove(self, network: Network) -> None:
        del self._networks[network.id]
        self._pools.pop(network.id, None)
        self._pools6.pop(network.id, None)
        self._save()
        if network.spec.driver == "bridge" and not network.spec.config_only:
            last6 = network.spec.ipv6 and not self._of_family(IPV6)
            rules = self._chains() + (firewall.no_rules(IPV6) if last6 else "")
            await self._workers.run(nft.apply, rules)
            await self._workers.run(netlink.delete_link, device(network))
        elif self._made_parent(network):
            await self._workers.run(macvlan.remove_parent, network)

    # ---- addresses ----------------------------------------------------------------------------------------

    def allocate(self, network: Network, wished: str) -> str:
        """An address with its prefix length. AddressInUse; InvalidNetwork where there are none."""
        pool = self._pools.get(network.id)
        if pool is None:
            raise InvalidNetwork(f"network {network.spec.name} ({network.spec.driver}) cannot be attached to")
        return pool.allocate(wished)

    def allocate6(self, network: Network, wished: str) -> str:
        """The same of IPv6; "" on a network without."""
        pool = self._pools6.get(network.id)
        if pool is None and wished:
            raise InvalidNetwork(f"network {network.spec.name} has no IPv6 subnet: {wished} cannot be given")
        return pool.allocate(wished) if pool is not None else ""

    def take(self, network_id: str, cidr: str) -> None:
        """An address that a container of an earlier life of the daemon has."""
        pool = self._pool(network_id, cidr)
        if pool is not None:
            pool.take(cidr)

    def release(self, network_id: str, cidr: str) -> None:
        pool = self._pool(network_id, cidr)
        if pool is not None and cidr:
            pool.release(cidr)

    def shares_a_link(self, network_id: str) -> bool:
        """Its interfaces must be gone before others can have their hardware addresses; a namespace goes later."""
        network = self._networks.get(network_id)
        return network is not None and network.spec.driver == "macvlan"

    def prefix(self, network: Network) -> str:
        """What the names of its interfaces in sandboxes begin with."""
        return network.spec.options.get(network_options.PREFIX, "") or "eth"

    def attachment(self, endpoint: Endpoint) -> Attachment:
        network = self._networks[endpoint.network]
        made = Attachment(
            bridge=device(network),
            bridge_namespace=None,
            interface=endpoint.interface,
            cidr=endpoint.cidr,
            mac=endpoint.mac,
            mtu=network_options.mtu(network.spec),
            more_addresses=tuple(filter(None, (endpoint.cidr6, *endpoint.link_local))),
            sysctls=endpoint.sysctls,
        )
        if network.spec.driver == "macvlan":
            mode, has_mtu = network_options.macvlan(network.spec).mode, MTU_OPTION in network.spec.options
            return msgspec.structs.replace(
                made, bridge=macvlan.parent_of(network), macvlan_mode=mode, mtu=made.mtu if has_mtu else 0
            )
        return msgspec.structs.replace(made, isolated=not network_options.lets_containers_talk(network.spec))

    def _pool(self, network_id: str, cidr: str) -> ipam.AddressPool | None:
        return (self._pools6 if ":" in cidr else self._pools).get(network_id)

    def _fill_pools(self, network: Network) -> None:
        if network.spec.driver not in ("bridge", "macvlan") or network.spec.config_only:
            return
        for block in network.spec.ipam:
            pools = self._pools6 if ":" in block.subnet else self._pools
            pools[network.id] = _pool(block)

    # ---- audits -------------------------------------------------------------------------------------------

    async def audit(self, tables: TableAudit) -> list[Finding]:
        findings = []
        for network in self._with_device():
            if await self._workers.run(_repair, network):
                subject = f"network {network.spec.name}"
                problem = "its bridge was missing, down or without its address"
                findings.append(Finding(subject=subject, problem=problem, repaired=True))
        async with self.published.programming:
            families, rules = self._families(), self._chains()
            for family in families:
                rules += firewall.flush_elements(family) + self.published.rules(family)
            names = [f"{family} {firewall.TABLE}" for family in families]
            return findings + await self._workers.run(tables.repair, None, names, rules)

    # ---- inside -------------------------------------------------------------------------------------------

    async def _blocks(self, spec: NetworkSpec, known: Sequence[Network]) -> tuple[IpamBlock, ...]:
        """One of IPv4, and one of IPv6 where that is wished, each with its gateway."""
        used = [b.subnet for n in known if not n.spec.config_only for b in n.spec.ipam if b.subnet]
        if spec.driver == "bridge":  # a macvlan's subnet is that of a link of the host
            used += await self._workers.run(_host_subnets)
        wished = [block for block in spec.ipam if block.subnet]
        old = [block for block in wished if ":" not in block.subnet]
        new = [block for block in wished if ":" in block.subnet]
        if len(old) > 1 or len(new) > 1:
            raise InvalidNetwork(
                f"a {spec.driver} network has one IPv4 and one IPv6 subnet: give a single one"
            )
        if new and not spec.ipv6:
            raise InvalidNetwork(f"subnet {new[0].subnet} is of IPv6: add --ipv6 (EnableIPv6)")
        blocks = [_complete(old[0] if old else IpamBlock(subnet=self._free_subnet(used)), used)]
        if spec.ipv6:
            blocks.append(_complete(new[0] if new else IpamBlock(subnet=ipam.local_subnet6()), used))
        return tuple(blocks)

    def _free_subnet(self, used: Sequence[str]) -> str:
        pools = ipam.subnets(self._defaults.pools) if self._defaults.pools else ipam.LOCAL_POOLS
        return ipam.free_subnet(pools, used)

    def _check_parent(self, network: Network) -> None:
        parent, mode = macvlan.parent_of(network), network_options.macvlan(network.spec).mode
        for other in self._networks.values():
            if other.spec.driver != "macvlan" or macvlan.parent_of(other) != parent:
                continue
            if "passthru" in (mode, network_options.macvlan(other.spec).mode):
                raise NetworkInUse(
                    f"network {other.spec.name} is already using parent interface {parent}: passthru is for one alone"
                )

    def _made_parent(self, network: Network) -> bool:
        """Whether its parent goes with it: made by us, and no other network has it."""
        if network.spec.driver != "macvlan":
            return False
        wished, parent = network_options.macvlan(network.spec), macvlan.parent_of(network)
        others = (n for n in self._networks.values() if n.spec.driver == "macvlan")
        return not wished.parent and all(macvlan.parent_of(other) != parent for other in others)

    def _has_device(self, network_id: str) -> bool:
        network = self._networks.get(network_id)
        return network is not None and network.spec.driver == "bridge"

    def _with_device(self) -> list[Network]:
        return [n for n in self._networks.values() if n.spec.driver == "bridge" and not n.spec.config_only]

    def _of_family(self, family: str) -> list[Network]:
        return [network for network in self._with_device() if family == IPV4 or network.spec.ipv6]

    def _families(self) -> list[str]:
        return [IPV4, IPV6] if self._of_family(IPV6) else [IPV4]

    def _chains(self) -> str:
        text = ""
        for family in self._families():
            rules = [
                firewall.BridgeRule(
                    bridge=device(network),
                    subnet=_block_of(network, family).subnet,
                    internal=network.spec.internal,
                    masquerade=network_options.masquerades(network.spec),
                )
                for network in self._of_family(family)
            ]
            text += firewall.base_rules(rules, family)
        return text

    def _save(self) -> None:
        write_atomically(self._state_file, msgspec.json.encode(list(self._networks.values())))

    def _remove_leftovers(self) -> None:
        kept = {device(network) for network in self._with_device()}
        with rtnl.connection() as kernel:
            present = netlink.links(kernel)
        kept |= {macvlan.parent_of(n) for n in self._networks.values() if n.spec.driver == "macvlan"}
        for name in present:
            is_ours = name in _DEVICES.values() or name.startswith(_DEVICE_PREFIX) or macvlan.is_own(name)
            if is_ours and name not in kept:
                netlink.delete_link(name)


def device(network: Network) -> str:
    """The bridge's device name: at most 15 characters, recognisable as ours."""
    wished = network.spec.options.get("com.docker.network.bridge.name", "")
    return wished or _DEVICES.get(network.spec.name) or f"{_DEVICE_PREFIX}{network.id[:11]}"


def has_own_dns(name: str) -> bool:
    """Containers on user-defined networks are found by name; on the default ones as Docker does it, not."""
    return name not in _DEVICES


def _block_of(network: Network, family: str) -> IpamBlock:
    return next(block for block in network.spec.ipam if (":" in block.subnet) == (family == IPV6))


def _addresses(network: Network) -> list[str]:
    """The gateways' addresses, which the bridge has."""
    return [
        f"{block.gateway.partition('/')[0]}/{ipaddress.ip_network(block.subnet).prefixlen}"
        for block in network.spec.ipam
    ]


def _check_device(network: Network) -> None:
    """InvalidNetwork when the bridge's name is that of a device of the host: it would be taken, and removed."""
    wished = network.spec.options.get(network_options.NAME, "")
    if wished and rtnl.index_of(wished) is not None:
        raise InvalidNetwork(
            f"bridge name {wished} is taken: this host has such a device, choose another name"
        )


def _make(network: Network) -> None:
    """The device with the gateways' addresses; what is there already stays. Blocks."""
    name, mtu = device(network), network_options.mtu(network.spec)
    with rtnl.connection() as connection:
        connection.send(
            [rtnl.new_bridge(name, mtu=mtu)], f"cannot make bridge {name}", ignore=(errno.EEXIST,)
        )
        index = rtnl.index_of(name)
        if index is None:
            raise KernelRefused(f"bridge {name} vanished while it was made")
        if network.spec.ipv6:
            namespaces.set_device_sysctl(name, "disable_ipv6", "0", "ipv6")
        addresses = [rtnl.new_address(index, cidr) for cidr in _addresses(network)]
        connection.send(
            [rtnl.set_link(index, mtu=mtu), *addresses],
            f"cannot set up bridge {name}",
            ignore=(errno.EEXIST,),
        )
    namespaces.set_device_sysctl(name, "route_localnet", "1")
    if not network.spec.internal:
        namespaces.set_sysctl("net.ipv4.ip_forward", "1", required=False)
        if network.spec.ipv6:
            namespaces.forward_ipv6()


def _repair(network: Network) -> bool:
    """Whether something was wrong. Blocks."""
    with rtnl.connection() as kernel:
        link = netlink.links(kernel).get(device(network))
        found = netlink.addresses(kernel).get(link.index, set()) if link is not None else set()
    if link is not None and link.up and found.issuperset(_addresses(network)):
        return False
    _make(network)
    return True


def _complete(block: IpamBlock, used: Sequence[str]) -> IpamBlock:
    """Checked, with a gateway."""
    subnet = str(ipam.parse_subnet(block.subnet))
    ipam.check_overlap(subnet, used)
    aux = {name: address.partition("/")[0] for name, address in block.aux_addresses.items()}
    pool = ipam.AddressPool(subnet, block.ip_range, aux)
    gateway = pool.allocate(block.gateway).partition("/")[0]
    return msgspec.structs.replace(block, subnet=subnet, aux_addresses=aux, gateway=gateway)


def _pool(block: IpamBlock) -> ipam.AddressPool:
    gateway = block.gateway.partition("/")[0]
    return ipam.AddressPool(block.subnet, block.ip_range, {**block.aux_addresses, "gateway": gateway})


def _host_subnets() -> list[str]:
    with rtnl.connection() as kernel:
        return netlink.route_subnets(kernel)
