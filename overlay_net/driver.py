"""All networks of this node: its own bridges, the cluster's overlays, and the sandboxes on them.

The facade that the daemon uses. Owns the records of sandboxes, on disk, and the order in which a sandbox is
made and taken away. Invariant: whatever a failed call had made is undone; what a call acknowledged is found
again after a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Sequence
from pathlib import Path

import msgspec

from overlay_net import adopted, bridges, ipam, namespaces, network_options, sandbox
from overlay_net.adopted import Adopted
from overlay_net.audit import TableAudit
from overlay_net.bridges import Bridges
from overlay_net.dns import Resolver
from overlay_net.errors import InvalidNetwork, KernelRefused, NetworkInUse, NetworkNotFound
from overlay_net.files import write_atomically
from overlay_net.namespaces import Workers
from overlay_net.overlay import Overlays
from overlay_net.ports import HostPorts
from overlay_net.records import (
    NO_DEFAULTS,
    BridgeDefaults,
    Endpoint,
    EndpointRequest,
    Finding,
    Network,
    NetworkMap,
    NetworkSpec,
    Publish,
    Sandbox,
    SandboxRequest,
)
from overlay_net.sandbox import Attachment, Seen

logger = logging.getLogger(__name__)


class NetworkDriver:
    def __init__(
        self,
        *,
        state_dir: Path,
        run_dir: Path,
        underlay_address: str = "",
        vxlan_port: int = 4789,
        bridge_defaults: BridgeDefaults = NO_DEFAULTS,
    ) -> None:
        self._state_dir = state_dir
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
        self._bridges = Bridges(
            state_dir / "networks.json", self._workers, self._overlays.networks, bridge_defaults
        )
        self._ports = HostPorts()
        self._sandboxes: dict[str, Sandbox] = {}
        self._changing = asyncio.Lock()
        self._tables = TableAudit()

    # ---- life ---------------------------------------------------------------------------------------------

    async def start(self, live_sandboxes: set[str]) -> None:
        """Default networks exist, live sandboxes are taken over, everything else of an earlier life goes."""
        for folder in (self._state_dir, self._netns_dir, self._sandbox_dir):
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        live = self._load_sandboxes(live_sandboxes)
        await self._workers.run(self._remove_leftovers, set(live))
        await self._overlays.restore(live)
        await self._bridges.start(live.values())
        for found in live.values():
            await self._adopt(found)

    async def close(self) -> None:
        """Sandboxes go on working, without name resolution until the next start."""
        await self._resolver.close()
        self._workers.close()

    # ---- networks -----------------------------------------------------------------------------------------

    def networks(self) -> list[Network]:
        return [*self._bridges.all(), *self._overlays.networks()]

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
        if spec.driver == "ipvlan":
            raise InvalidNetwork("ipvlan networks are not supported: use macvlan")
        if spec.driver not in bridges.DRIVERS:
            raise InvalidNetwork(
                f'plugin "{spec.driver}" not found: use bridge or macvlan, or overlay on a swarm manager'
            )
        if spec.driver in ("host", "null") and not spec.config_only:
            raise InvalidNetwork(f'only one instance of "{spec.driver}" network is allowed')
        async with self._changing:
            return await self._bridges.add(spec)

    async def remove_network(self, network_id: str) -> None:
        async with self._changing:
            if not self._bridges.has(network_id):
                raise NetworkNotFound(f"network {network_id} not found")
            network = self.find(network_id)
            users = [s.id[:12] for s in self._sandboxes.values() if _is_on(s, network_id)]
            if users:
                raise NetworkInUse(f"network {network.spec.name} has active endpoints: {', '.join(users)}")
            await self._bridges.remove(network)
            self._resolver.forget_network(network_id)

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
            ports = self._ports.reserve(request.id, self._bound(request, endpoints))
            undo.callback(self._ports.release, ports)
            attachments = [self._attachment(endpoint) for endpoint in endpoints]
            undo.callback(namespaces.remove, namespace)
            await self._workers.run(
                sandbox.build, namespace, attachments, _gateways(endpoints), request.sysctls
            )
            undo.callback(self._resolver.close_sandbox, request.id)
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
            await self._name_endpoints(made)
            await self._open_resolver(made)
            await self._bridges.published.publish(made)
            await self._join_overlays(made)
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
        try:
            await self._bridges.published.unpublish(found.ports)
        except KernelRefused as error:
            logger.warning("published ports of %s were gone already: %s", found.id[:12], error)
        self._ports.release(found.ports)
        for endpoint in found.endpoints:
            if self._bridges.shares_a_link(endpoint.network):
                await self._workers.run(sandbox.detach, Path(found.netns_path), endpoint.interface)
        await self._workers.run(namespaces.remove, Path(found.netns_path))
        for endpoint in found.endpoints:
            self._release(endpoint)
        if any(self._overlays.has(endpoint.network) for endpoint in found.endpoints):
            await self._overlays.detached(sandbox_id)

    async def connect(self, sandbox_id: str, request: EndpointRequest) -> Endpoint:
        found = self._require(sandbox_id)
        async with self._changing:
            interface = self._interface(request, found.endpoints)
            endpoint = self._local_endpoint(found.id, found.name, request, interface)
            namespace = Path(found.netns_path)
            updated = msgspec.structs.replace(
                found,
                endpoints=(*found.endpoints, endpoint),
                embedded_dns=found.embedded_dns or self._has_dns(endpoint),
            )
            async with contextlib.AsyncExitStack() as undo:
                undo.callback(self._release, endpoint)
                await self._workers.run(sandbox.attach, namespace, self._attachment(endpoint))
                undo.push_async_callback(self._workers.run, sandbox.detach, namespace, endpoint.interface)
                await self._workers.run(sandbox.set_gateways, namespace, _gateways(updated.endpoints))
                await self._bridges.published.move(found, updated)
                undo.pop_all()
            await self._name_endpoints(updated)
            if not found.embedded_dns:
                await self._open_resolver(updated)
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
            updated = msgspec.structs.replace(
                found, endpoints=tuple(e for e in found.endpoints if e is not endpoint)
            )
            namespace = Path(found.netns_path)
            await self._workers.run(sandbox.detach, namespace, endpoint.interface)
            await self._workers.run(sandbox.set_gateways, namespace, _gateways(updated.endpoints))
            await self._bridges.published.move(found, updated)
            self._resolver.remove_names(sandbox_id, network_id)
            self._release(endpoint)
            self._resolver.set_networks(sandbox_id, updated.endpoints)
            self._sandboxes[sandbox_id] = updated
            self._save_sandbox(updated)

    async def adopt(self, sandbox_id: str, wish: Adopted) -> str:
        """Put an interface that somebody else made into a sandbox; its name there."""
        return await self._workers.run(adopted.adopt, Path(self._require(sandbox_id).netns_path), wish)

    async def give_back(self, sandbox_id: str, name: str, source: str) -> None:
        """Undo `adopt`; a sandbox or an interface that has gone is fine."""
        found = self._sandboxes.get(sandbox_id)
        if found is not None:
            await self._workers.run(adopted.give_back, Path(found.netns_path), name, source)

    # ---- the cluster's map, audits ------------------------------------------------------------------------

    async def apply_map(self, network_map: NetworkMap) -> None:
        await self._overlays.apply_map(network_map)

    async def set_underlay(self, address: str) -> None:
        await self._overlays.set_underlay(address)

    async def audit(self) -> list[Finding]:
        """Compare the kernel with what should be there, repair and report."""
        async with self._changing:
            findings = await self._bridges.audit(self._tables)
        findings += await self._overlays.audit(self._tables)
        bridges_seen: Seen = {}
        for sandbox_id in list(self._sandboxes):
            async with self._changing:
                found = self._sandboxes.get(sandbox_id)
                findings += await self._audit_sandbox(found, bridges_seen) if found is not None else []
        pins = {Path(found.netns_path) for found in self._sandboxes.values()}
        self._tables.forget_all_but({None, *pins})
        return findings

    async def _audit_sandbox(self, found: Sandbox, seen: Seen) -> list[Finding]:
        repaired = True
        try:
            attachments = [self._attachment(endpoint) for endpoint in found.endpoints]
            problems = await self._workers.run(
                sandbox.repair, Path(found.netns_path), attachments, _gateways(found.endpoints), seen
            )
            if problems:
                await self._join_overlays(found)
        except (KernelRefused, NetworkNotFound, OSError) as error:
            problems, repaired = [str(error)], False
        if self._sandboxes.get(found.id) is not found:
            return []  # taken away in the meantime
        subject = f"container {found.id[:12]}"
        return [Finding(subject=subject, problem=problem, repaired=repaired) for problem in problems]

    # ---- endpoints ----------------------------------------------------------------------------------------

    async def _endpoints(self, request: SandboxRequest, undo: contextlib.AsyncExitStack) -> list[Endpoint]:
        """With addresses; those of local networks are given back when `undo` unwinds."""
        wishes = list(request.endpoints)
        overlays = [wish.network for wish in wishes if self._overlays.has(wish.network)]
        if any(not self._overlays.is_internal(network) for network in overlays):
            gateway_bridge = await self._gateway_bridge()
            wishes.append(EndpointRequest(network=gateway_bridge.id))
        endpoints: list[Endpoint] = []
        for wish in wishes:
            interface = self._interface(wish, endpoints)
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
        cidr = self._bridges.allocate(network, wish.cidr)
        try:
            cidr6 = self._bridges.allocate6(network, wish.cidr6)
        except BaseException:
            self._bridges.release(network.id, cidr)
            raise
        gateways = {":" in block.gateway: block.gateway for block in network.spec.ipam}
        names = tuple(dict.fromkeys(filter(None, (name, sandbox_id[:12], *wish.aliases))))
        return Endpoint(
            id=secrets.token_hex(32),
            network=network.id,
            network_name=network.spec.name,
            interface=interface,
            cidr=cidr,
            gateway="" if network.spec.internal else gateways.get(False, "").partition("/")[0],
            mac=wish.mac or ipam.mac_for(cidr.partition("/")[0]),
            aliases=wish.aliases,
            dns_names=names if bridges.has_own_dns(network.spec.name) else (),
            cidr6=cidr6,
            gateway6="" if network.spec.internal else gateways.get(True, "").partition("/")[0],
            link_local=wish.link_local,
            sysctls=wish.sysctls,
            priority=wish.priority,
        )

    def _release(self, endpoint: Endpoint) -> None:
        for cidr in (endpoint.cidr, endpoint.cidr6):
            self._bridges.release(endpoint.network, cidr)

    def _interface(self, wish: EndpointRequest, present: Sequence[Endpoint]) -> str:
        """Its name in the sandbox. InvalidNetwork when the one that was asked for is taken."""
        taken = {endpoint.interface for endpoint in present}
        if wish.interface in taken:
            raise InvalidNetwork(f"interface name {wish.interface} is given twice: choose another one")
        prefix = "eth" if self._overlays.has(wish.network) else self._bridges.prefix(self.find(wish.network))
        free = (
            name for name in (f"{prefix}{number}" for number in range(len(taken) + 1)) if name not in taken
        )
        return wish.interface or next(free)

    def _bound(self, request: SandboxRequest, endpoints: Sequence[Endpoint]) -> list[Publish]:
        """The published ports, with the host address that their network gives to those that name none."""
        first = next((e for e in endpoints if self._bridges.has(e.network)), None)
        address = network_options.binding(self.find(first.network).spec) if first is not None else ""
        return [msgspec.structs.replace(p, host_ip=p.host_ip or address) for p in request.publishes]

    def _attachment(self, endpoint: Endpoint) -> Attachment:
        if not self._overlays.has(endpoint.network):
            return self._bridges.attachment(endpoint)
        return self._overlays.attachment(endpoint.network, endpoint.interface, endpoint.cidr, endpoint.mac)

    async def _join_overlays(self, made: Sandbox) -> None:
        """Virtual addresses and the answers of published ports, on the interfaces that are there."""
        interfaces = {e.network: e.interface for e in made.endpoints if self._overlays.has(e.network)}
        if interfaces:
            outer = next((e for e in made.endpoints if e.gateway), None)
            egress = outer.cidr.partition("/")[0] if outer else ""
            await self._overlays.attached(made.id, Path(made.netns_path), interfaces, egress)

    async def _name_endpoints(self, made: Sandbox) -> None:
        for endpoint in made.endpoints:
            for name in endpoint.dns_names:
                for cidr in filter(None, (endpoint.cidr, endpoint.cidr6)):
                    self._resolver.add_name(endpoint.network, made.id, name, cidr.partition("/")[0])
        self._resolver.set_networks(made.id, made.endpoints)

    async def _open_resolver(self, made: Sandbox) -> None:
        if made.embedded_dns:
            await self._resolver.open(
                made.id, Path(made.netns_path), made.dns_servers, ndots_set=made.ndots_set
            )
            self._resolver.set_networks(made.id, made.endpoints)

    def _has_dns(self, endpoint: Endpoint) -> bool:
        return self._overlays.has(endpoint.network) or bridges.has_own_dns(endpoint.network_name)

    async def _gateway_bridge(self) -> Network:
        async with self._changing:
            known = self._bridges.by_name(bridges.GATEWAY_BRIDGE)
            return known or await self._bridges.add(NetworkSpec(name=bridges.GATEWAY_BRIDGE))

    def _require(self, sandbox_id: str) -> Sandbox:
        found = self._sandboxes.get(sandbox_id)
        if found is None:
            raise NetworkNotFound(f"container {sandbox_id[:12]} has no network of its own")
        return found

    # ---- disk ---------------------------------------------------------------------------------------------

    def _save_sandbox(self, made: Sandbox) -> None:
        write_atomically(self._sandbox_dir / f"{made.id}.json", msgspec.json.encode(made))

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
            for cidr in filter(None, (endpoint.cidr, endpoint.cidr6)):
                self._bridges.take(endpoint.network, cidr)
        self._ports.adopt(found.id, found.ports)
        self._sandboxes[found.id] = found
        await self._name_endpoints(found)
        await self._open_resolver(found)

    def _remove_leftovers(self, live: Sequence[str]) -> None:
        """In a worker thread: pins that belong to nobody."""
        for pin in self._netns_dir.iterdir():
            if pin.name not in live and not pin.name.startswith("ov-"):
                namespaces.remove(pin)


def _is_on(made: Sandbox, network_id: str) -> bool:
    return any(endpoint.network == network_id for endpoint in made.endpoints)


def _gateways(endpoints: Sequence[Endpoint]) -> list[str]:
    """The default routes, one of each family: of the highest priority, then in order."""
    ordered = sorted(endpoints, key=lambda endpoint: -endpoint.priority)
    first = next((endpoint.gateway for endpoint in ordered if endpoint.gateway), "")
    first6 = next((endpoint.gateway6 for endpoint in ordered if endpoint.gateway6), "")
    return [gateway for gateway in (first, first6) if gateway]
