"""All networks of this node: its own bridges, the cluster's overlays, and the sandboxes on them.

The facade that the daemon uses. Owns the records of local networks and of sandboxes, on disk, and the
order in which a sandbox is made and taken away. Invariant: whatever a failed call had made is undone; what
a call acknowledged is found again after a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import secrets
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from overlay_net import firewall, ipam, netlink, nft, sandbox
from overlay_net.dns import Resolver
from overlay_net.errors import InvalidNetwork, KernelRefused, NetworkInUse, NetworkNotFound
from overlay_net.netlink import Workers
from overlay_net.overlay import Overlays
from overlay_net.ports import HostPorts
from overlay_net.records import (
    Endpoint,
    EndpointRequest,
    Finding,
    IpamBlock,
    Network,
    NetworkMap,
    NetworkSpec,
    Sandbox,
    SandboxRequest,
)
from overlay_net.sandbox import Attachment

logger = logging.getLogger(__name__)

DEFAULT_BRIDGE = "bridge"
GATEWAY_BRIDGE = "swarm_gwbridge"
DRIVERS = ("bridge", "host", "null")
_DEVICES = {DEFAULT_BRIDGE: "swbr0", GATEWAY_BRIDGE: "sw-gwbridge"}
BRIDGE_MTU = 1500


class NetworkDriver:
    def __init__(
        self, *, state_dir: Path, run_dir: Path, underlay_address: str = "", vxlan_port: int = 4789
    ) -> None:
        self._state_file = state_dir / "networks.json"
        self._netns_dir = run_dir / "netns"
        self._sandbox_dir = run_dir / "sandboxes"
        self._workers = Workers()
        self._resolver = Resolver(self._workers)
        self._overlays = Overlays(
            run_dir=run_dir,
            underlay_address=underlay_address,
            vxlan_port=vxlan_port,
            resolver=self._resolver,
            workers=self._workers,
        )
        self._networks: dict[str, Network] = {}
        self._pools: dict[str, ipam.AddressPool] = {}
        self._ports = HostPorts()
        self._sandboxes: dict[str, Sandbox] = {}
        self._changing = asyncio.Lock()

    # ---- life ---------------------------------------------------------------------------------------------

    async def start(self, live_sandboxes: set[str]) -> None:
        """Default networks exist, live sandboxes are taken over, everything else of an earlier life goes."""
        for folder in (self._state_file.parent, self._netns_dir, self._sandbox_dir):
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._load_networks()
        live = self._load_sandboxes(live_sandboxes)
        await self._workers.run(self._remove_leftovers, set(live))
        await self._overlays.restore(live)
        for name, driver in ((DEFAULT_BRIDGE, "bridge"), ("host", "host"), ("none", "null")):
            if not any(network.spec.name == name for network in self._networks.values()):
                await self._add(NetworkSpec(name=name, driver=driver))
        for network in self._bridges():
            await self._workers.run(self._make_bridge, network)
        await self._workers.run(nft.apply, self._base_rules())
        for found in live.values():
            await self._adopt(found)

    async def close(self) -> None:
        """Sandboxes go on working, without name resolution until the next start."""
        await self._resolver.close()
        self._workers.close()

    # ---- networks -----------------------------------------------------------------------------------------

    def networks(self) -> list[Network]:
        return [*self._networks.values(), *self._overlays.networks()]

    def find(self, ref: str) -> Network:
        """By id, name or unique id prefix."""
        known = self.networks()
        for network in known:
            if ref in (network.id, network.spec.name):
                return network
        matches = [network for network in known if ref and network.id.startswith(ref)]
        if len(matches) != 1:
            raise NetworkNotFound(
                f"network {ref} not found" if not matches else f"network {ref} is ambiguous"
            )
        return matches[0]

    async def create_network(self, spec: NetworkSpec) -> Network:
        if spec.driver not in DRIVERS:
            raise InvalidNetwork(
                f'plugin "{spec.driver}" not found: use bridge, or overlay on a swarm manager'
            )
        if spec.driver != "bridge":
            raise InvalidNetwork(f'only one instance of "{spec.driver}" network is allowed')
        if spec.ipv6:
            raise InvalidNetwork("IPv6 networks are not supported yet: leave EnableIPv6 out")
        async with self._changing:
            return await self._add(spec)

    async def remove_network(self, network_id: str) -> None:
        async with self._changing:
            network = self._networks.get(network_id)
            if network is None:
                raise NetworkNotFound(f"network {network_id} not found")
            users = [s.id[:12] for s in self._sandboxes.values() if _is_on(s, network_id)]
            if users:
                raise NetworkInUse(f"network {network.spec.name} has active endpoints: {', '.join(users)}")
            del self._networks[network_id]
            self._pools.pop(network_id, None)
            self._save_networks()
            await self._workers.run(nft.apply, self._base_rules())
            await self._workers.run(_delete_link, _device(network))

    async def _add(self, spec: NetworkSpec) -> Network:
        if any(network.spec.name == spec.name for network in self.networks()):
            raise NetworkInUse(f"network with name {spec.name} already exists")
        blocks: tuple[IpamBlock, ...] = ()
        if spec.driver == "bridge":
            blocks = (await self._block(spec),)
        network = Network(
            id=secrets.token_hex(32), spec=msgspec.structs.replace(spec, ipam=blocks), created_at=time.time()
        )
        if blocks:
            self._pools[network.id] = _pool(blocks[0])
            await self._workers.run(self._make_bridge, network)
        self._networks[network.id] = network
        if blocks:
            try:
                await self._workers.run(nft.apply, self._base_rules())
            except KernelRefused:
                del self._networks[network.id]
                await self._workers.run(_delete_link, _device(network))
                raise
        self._save_networks()
        return network

    async def _block(self, spec: NetworkSpec) -> IpamBlock:
        used = [block.subnet for network in self.networks() for block in network.spec.ipam]
        if len(spec.ipam) > 1:
            raise InvalidNetwork("a bridge network has one IPv4 subnet: give a single one")
        wished = spec.ipam[0] if spec.ipam and spec.ipam[0].subnet else None
        routes = await self._workers.run(_host_subnets)
        if wished is None:
            block = IpamBlock(subnet=ipam.free_subnet(ipam.LOCAL_POOLS, [*used, *routes]))
        else:
            ipam.parse_subnet(wished.subnet)
            ipam.check_overlap(wished.subnet, [*used, *routes])
            block = wished
        if block.gateway:
            return block
        aux = dict(block.aux_addresses)
        gateway = ipam.AddressPool(block.subnet, block.ip_range, aux).allocate()
        return msgspec.structs.replace(block, gateway=gateway.partition("/")[0])

    def _make_bridge(self, network: Network) -> None:
        """In a worker thread: the device with the gateway's address; what is there already stays."""
        block = network.spec.ipam[0]
        prefix = ipaddress.IPv4Network(block.subnet).prefixlen
        with netlink.route() as ip:
            index = netlink.add_bridge(ip, _device(network), mtu=_mtu(network))
            netlink.add_address(ip, index, f"{block.gateway}/{prefix}")
        netlink.set_device_sysctl(_device(network), "route_localnet", "1")
        if not network.spec.internal:
            netlink.set_sysctl("net.ipv4.ip_forward", "1", required=False)

    # ---- sandboxes ----------------------------------------------------------------------------------------

    def sandbox(self, sandbox_id: str) -> Sandbox | None:
        return self._sandboxes.get(sandbox_id)

    async def create_sandbox(self, request: SandboxRequest) -> Sandbox:
        """A namespace with all that was asked for; nothing is left when it fails."""
        if request.id in self._sandboxes:
            await self.remove_sandbox(request.id)
        namespace = self._netns_dir / request.id
        async with contextlib.AsyncExitStack() as undo:
            endpoints = await self._endpoints(request, undo)
            ports = self._ports.reserve(request.id, request.publishes)
            undo.callback(self._ports.release, ports)
            gateway = next((e.gateway for e in endpoints if e.gateway), "")
            attachments = [self._attachment(endpoint) for endpoint in endpoints]
            await self._workers.run(sandbox.build, namespace, attachments, gateway, request.sysctls)
            undo.callback(netlink.remove_namespace, namespace)
            made = Sandbox(
                id=request.id,
                netns_path=str(namespace),
                name=request.name,
                endpoints=tuple(endpoints),
                ports=ports,
                embedded_dns=any(self._has_dns(endpoint) for endpoint in endpoints),
                dns_servers=request.dns_servers,
                ndots_set=request.ndots_set,
            )
            undo.callback(self._resolver.remove_names, made.id)
            undo.callback(self._resolver.close_sandbox, made.id)
            await self._finish(made)
            undo.pop_all()
        self._sandboxes[made.id] = made
        self._save_sandbox(made)
        return made

    async def remove_sandbox(self, sandbox_id: str) -> None:
        """Give everything back; a sandbox that does not exist is fine."""
        found = self._sandboxes.pop(sandbox_id, None)
        if found is None:
            return
        (self._sandbox_dir / f"{sandbox_id}.json").unlink(missing_ok=True)
        self._resolver.close_sandbox(sandbox_id)
        self._resolver.remove_names(sandbox_id)
        if found.ports:
            await self._unpublish(found)
        self._ports.release(found.ports)
        await self._workers.run(netlink.remove_namespace, Path(found.netns_path))
        for endpoint in found.endpoints:
            self._release(endpoint)
        if any(self._overlays.has(endpoint.network) for endpoint in found.endpoints):
            await self._overlays.detached(sandbox_id)

    async def connect(self, sandbox_id: str, request: EndpointRequest) -> Endpoint:
        found = self._require(sandbox_id)
        async with self._changing:
            taken = {endpoint.interface for endpoint in found.endpoints}
            interface = next(name for name in (f"eth{n}" for n in range(256)) if name not in taken)
            endpoint = self._local_endpoint(found.id, found.name, request, interface)
            try:
                await self._workers.run(sandbox.attach, Path(found.netns_path), self._attachment(endpoint))
            except BaseException:
                self._release(endpoint)
                raise
            updated = msgspec.structs.replace(
                found,
                endpoints=(*found.endpoints, endpoint),
                embedded_dns=found.embedded_dns or self._has_dns(endpoint),
            )
            await self._name_endpoints(updated)
            self._sandboxes[sandbox_id] = updated
            self._save_sandbox(updated)
            return endpoint

    async def disconnect(self, sandbox_id: str, network_id: str) -> None:
        found = self._require(sandbox_id)
        async with self._changing:
            endpoint = next((e for e in found.endpoints if e.network == network_id), None)
            if endpoint is None:
                raise NetworkNotFound(
                    f"container {sandbox_id[:12]} is not connected to network {network_id[:12]}"
                )
            await self._workers.run(sandbox.detach, Path(found.netns_path), endpoint.interface)
            self._resolver.remove_names(sandbox_id, network_id)
            self._release(endpoint)
            updated = msgspec.structs.replace(
                found, endpoints=tuple(e for e in found.endpoints if e is not endpoint)
            )
            self._resolver.set_networks(sandbox_id, updated.endpoints)
            self._sandboxes[sandbox_id] = updated
            self._save_sandbox(updated)

    # ---- the cluster's map --------------------------------------------------------------------------------

    async def apply_map(self, network_map: NetworkMap) -> None:
        await self._overlays.apply_map(network_map)

    async def set_underlay(self, address: str) -> None:
        await self._overlays.set_underlay(address)

    async def audit(self) -> list[Finding]:
        """Compare the kernel with what should be there, repair and report."""
        findings = await self._overlays.audit()
        present = set(await self._workers.run(_link_names))
        for network in self._bridges():
            if _device(network) not in present:
                await self._workers.run(self._make_bridge, network)
                findings.append(
                    Finding(
                        subject=f"network {network.spec.name}",
                        problem="its bridge was missing",
                        repaired=True,
                    )
                )
        if not await self._workers.run(nft.has_table, "ip", firewall.TABLE):
            await self._workers.run(nft.apply, self._base_rules())
            for found in self._sandboxes.values():
                await self._publish(found)
            findings.append(
                Finding(subject=f"nft table {firewall.TABLE}", problem="it was missing", repaired=True)
            )
        return findings

    # ---- endpoints ----------------------------------------------------------------------------------------

    async def _endpoints(self, request: SandboxRequest, undo: contextlib.AsyncExitStack) -> list[Endpoint]:
        """With addresses; those of local networks are given back when `undo` unwinds."""
        wishes = list(request.endpoints)
        overlays = [wish.network for wish in wishes if self._overlays.has(wish.network)]
        if any(not self._overlays.is_internal(network) for network in overlays):
            gateway_bridge = await self._gateway_bridge()
            wishes.append(EndpointRequest(network=gateway_bridge.id))
        endpoints = []
        for number, wish in enumerate(wishes):
            interface = f"eth{number}"
            if self._overlays.has(wish.network):
                endpoints.append(self._overlay_endpoint(wish, interface))
            else:
                endpoint = self._local_endpoint(request.id, request.name, wish, interface)
                undo.callback(self._release, endpoint)
                endpoints.append(endpoint)
        return endpoints

    def _overlay_endpoint(self, wish: EndpointRequest, interface: str) -> Endpoint:
        network = self.find(wish.network)
        if not wish.cidr:
            raise InvalidNetwork(
                f"network {network.spec.name} belongs to the swarm: attach containers by running a service on it"
            )
        return Endpoint(
            id=secrets.token_hex(32),
            network=network.id,
            network_name=network.spec.name,
            interface=interface,
            cidr=wish.cidr,
            gateway="",
            mac=wish.mac or ipam.mac_for(wish.cidr.partition("/")[0]),
            aliases=wish.aliases,
        )

    def _local_endpoint(self, sandbox_id: str, name: str, wish: EndpointRequest, interface: str) -> Endpoint:
        network = self.find(wish.network)
        pool = self._pools.get(network.id)
        if pool is None:
            raise InvalidNetwork(f"network {network.spec.name} ({network.spec.driver}) cannot be attached to")
        cidr = pool.allocate(wish.cidr)
        block = network.spec.ipam[0]
        names = tuple(dict.fromkeys(filter(None, (name, sandbox_id[:12], *wish.aliases))))
        return Endpoint(
            id=secrets.token_hex(32),
            network=network.id,
            network_name=network.spec.name,
            interface=interface,
            cidr=cidr,
            gateway="" if network.spec.internal else block.gateway,
            mac=wish.mac or ipam.mac_for(cidr.partition("/")[0]),
            aliases=wish.aliases,
            dns_names=names if network.spec.name not in _DEVICES else (),
        )

    def _attachment(self, endpoint: Endpoint) -> Attachment:
        if self._overlays.has(endpoint.network):
            return self._overlays.attachment(
                endpoint.network, endpoint.interface, endpoint.cidr, endpoint.mac
            )
        network = self._networks[endpoint.network]
        return Attachment(
            bridge=_device(network),
            bridge_namespace=None,
            interface=endpoint.interface,
            cidr=endpoint.cidr,
            mac=endpoint.mac,
            mtu=_mtu(network),
        )

    async def _finish(self, made: Sandbox) -> None:
        """What comes after the wiring: names, published ports, rules of overlay networks."""
        await self._name_endpoints(made)
        await self._publish(made)
        interfaces = {e.network: e.interface for e in made.endpoints if self._overlays.has(e.network)}
        if interfaces:
            outer = next((e for e in made.endpoints if e.gateway), None)
            egress = outer.cidr.partition("/")[0] if outer else ""
            await self._overlays.attached(made.id, Path(made.netns_path), interfaces, egress)

    async def _name_endpoints(self, made: Sandbox) -> None:
        for endpoint in made.endpoints:
            for name in endpoint.dns_names:
                self._resolver.add_name(endpoint.network, made.id, name, endpoint.cidr.partition("/")[0])
        if made.embedded_dns:
            await self._resolver.open(
                made.id, Path(made.netns_path), made.dns_servers, ndots_set=made.ndots_set
            )
            self._resolver.set_networks(made.id, made.endpoints)

    async def _publish(self, made: Sandbox) -> None:
        text = firewall.publish_elements(made.ports, self._published_address(made)) if made.ports else ""
        if text:
            await self._workers.run(nft.apply, text)

    async def _unpublish(self, made: Sandbox) -> None:
        text = firewall.publish_elements(made.ports, self._published_address(made), remove=True)
        try:
            await self._workers.run(nft.apply, text)
        except KernelRefused as error:
            logger.warning("published ports of %s were gone already: %s", made.id[:12], error)

    def _published_address(self, made: Sandbox) -> str:
        endpoint = next((e for e in made.endpoints if e.network in self._networks), None)
        if endpoint is None:
            raise InvalidNetwork("ports can only be published on a bridge network")
        return endpoint.cidr.partition("/")[0]

    def _release(self, endpoint: Endpoint) -> None:
        pool = self._pools.get(endpoint.network)
        if pool is not None:
            pool.release(endpoint.cidr)

    def _has_dns(self, endpoint: Endpoint) -> bool:
        return self._overlays.has(endpoint.network) or endpoint.network_name not in _DEVICES

    async def _gateway_bridge(self) -> Network:
        async with self._changing:
            known = next((n for n in self._networks.values() if n.spec.name == GATEWAY_BRIDGE), None)
            return known or await self._add(NetworkSpec(name=GATEWAY_BRIDGE))

    def _require(self, sandbox_id: str) -> Sandbox:
        found = self._sandboxes.get(sandbox_id)
        if found is None:
            raise NetworkNotFound(f"container {sandbox_id[:12]} has no network of its own")
        return found

    # ---- disk ---------------------------------------------------------------------------------------------

    def _bridges(self) -> list[Network]:
        return [network for network in self._networks.values() if network.spec.driver == "bridge"]

    def _base_rules(self) -> str:
        return firewall.base_rules(
            [
                firewall.BridgeRule(
                    bridge=_device(network),
                    subnet=network.spec.ipam[0].subnet,
                    internal=network.spec.internal,
                    masquerade=network.spec.options.get("com.docker.network.bridge.enable_ip_masquerade")
                    != "false",
                )
                for network in self._bridges()
            ]
        )

    def _load_networks(self) -> None:
        if self._state_file.exists():
            loaded = msgspec.json.decode(self._state_file.read_bytes(), type=list[Network])
            self._networks = {network.id: network for network in loaded}
        self._pools = {network.id: _pool(network.spec.ipam[0]) for network in self._bridges()}

    def _save_networks(self) -> None:
        temporary = self._state_file.with_suffix(".new")
        temporary.write_bytes(msgspec.json.encode(list(self._networks.values())))
        temporary.rename(self._state_file)

    def _save_sandbox(self, made: Sandbox) -> None:
        temporary = self._sandbox_dir / f"{made.id}.new"
        temporary.write_bytes(msgspec.json.encode(made))
        temporary.rename(self._sandbox_dir / f"{made.id}.json")

    def _load_sandboxes(self, live: set[str]) -> dict[str, Sandbox]:
        found = {}
        for path in self._sandbox_dir.iterdir():
            if path.suffix == ".json" and path.stem in live and (self._netns_dir / path.stem).exists():
                found[path.stem] = msgspec.json.decode(path.read_bytes(), type=Sandbox)
            else:
                path.unlink()
        return found

    async def _adopt(self, found: Sandbox) -> None:
        """A container runs on with this sandbox: its addresses, ports and names are known again."""
        for endpoint in found.endpoints:
            pool = self._pools.get(endpoint.network)
            if pool is not None:
                pool.take(endpoint.cidr)
        self._ports.adopt(found.id, found.ports)
        self._sandboxes[found.id] = found
        await self._name_endpoints(found)
        await self._publish(found)

    def _remove_leftovers(self, live: set[str]) -> None:
        """In a worker thread: pins, bridges and rules that belong to nobody."""
        for pin in self._netns_dir.iterdir():
            if pin.name not in live and not pin.name.startswith("ov-"):
                netlink.remove_namespace(pin)
        devices = {_device(network) for network in self._bridges()}
        with netlink.route() as ip:
            for name in netlink.link_names(ip):
                ours = name == _DEVICES[DEFAULT_BRIDGE] or name.startswith(("sw-n", _DEVICES[GATEWAY_BRIDGE]))
                if ours and name not in devices:
                    netlink.delete_link(ip, name)
        nft.apply(f"table ip {firewall.TABLE} {{}}\ndelete table ip {firewall.TABLE}\n")


def _device(network: Network) -> str:
    """The bridge's device name: at most 15 characters, recognisable as ours."""
    wished = network.spec.options.get("com.docker.network.bridge.name", "")
    return wished or _DEVICES.get(network.spec.name) or f"sw-n{network.id[:11]}"


def _mtu(network: Network) -> int:
    wished = network.spec.options.get("com.docker.network.driver.mtu", "")
    return int(wished) if wished.isdecimal() else BRIDGE_MTU


def _pool(block: IpamBlock) -> ipam.AddressPool:
    return ipam.AddressPool(block.subnet, block.ip_range, {**block.aux_addresses, "gateway": block.gateway})


def _is_on(made: Sandbox, network_id: str) -> bool:
    return any(endpoint.network == network_id for endpoint in made.endpoints)


def _host_subnets() -> list[str]:
    with netlink.route() as ip:
        return netlink.route_subnets(ip)


def _link_names() -> Iterable[str]:
    with netlink.route() as ip:
        return netlink.link_names(ip)


def _delete_link(name: str) -> None:
    with netlink.route() as ip:
        netlink.delete_link(ip, name)
