"""Network resources: subnets and VNIs of networks, virtual addresses and ports of services, task addresses.

Owns every number that two objects must not share. What is in use is what objects hold; nothing is kept
besides, so a release is the end or deletion of the holder. The sets of used numbers are built once per
pass, and only for the networks that something is needed from. Invariant: no address of a network is given
twice. What cannot be allocated keeps waiting and says how much of what is in use.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from raft import defaults
from raft.objects.base import Kind
from raft.objects.cluster import Cluster, IpamConfig, Network
from raft.objects.node import Node, NodeNetwork
from raft.objects.service import Endpoint, PublishMode, Service, VirtualIP
from raft.objects.task import NetworkAttachment, Task, TaskState
from scheduler import ports
from scheduler.actions import Action, Decision, Update, View
from scheduler.addresses import Subnet, free_subnet, mac_of, overlaps, subnet_count, with_gateway
from scheduler.placement import PENDING_MESSAGE
from scheduler.staging import Staging

VNI_LAST = (1 << 24) - 1
WAITING_MESSAGE = "waiting for network resources"


def allocate(view: View, now: float) -> Decision:
    """Everything that waits for numbers, in the order of dependence: networks, nodes, services, tasks."""
    staging = Staging(view)
    staging.stage(_allocate_networks(staging))
    space = _AddressSpace(staging)
    staging.stage(_allocate_nodes(staging, space))
    staging.stage(_allocate_services(staging, space))
    staging.stage(_allocate_tasks(staging, space, now))
    return Decision(staging.merged())


def ingress_network(view: View) -> Network | None:
    return next((n for n in view.networks.values() if n.spec.ingress and not n.pending_delete), None)


class _AddressSpace:
    """The subnets of a pass, each filled from all holders when it is first asked for."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._subnets: dict[str, Subnet] = {}
        self._held: dict[str, list[str]] | None = None

    def subnet(self, network: Network) -> Subnet:
        if network.id not in self._subnets:
            subnet = Subnet(network.ipam[0])
            for address in self._holdings().get(network.id, ()):
                subnet.reserve(address)
            self._subnets[network.id] = subnet
        return self._subnets[network.id]

    def take_all(self, networks: Sequence[Network]) -> list[str]:
        """An address on each network, or none at all when one of them is full: waiting costs nothing."""
        if not all(self.subnet(network).has_room() for network in networks):
            return []
        return [self.subnet(network).take() for network in networks]

    def first_full(self, networks: Sequence[Network]) -> Network | None:
        return next((network for network in networks if not self.subnet(network).has_room()), None)

    def _holdings(self) -> dict[str, list[str]]:
        """Addresses by network. A task that has ended holds none, one that may still run does."""
        if self._held is None:
            self._held = {}
            for task in self._view.tasks.values():
                if not task.status.state.is_terminal:
                    for attachment in task.networks:
                        self._held.setdefault(attachment.network_id, []).append(attachment.address)
            for service in self._view.services.values():
                for vip in service.endpoint.virtual_ips if service.endpoint else ():
                    self._held.setdefault(vip.network_id, []).append(vip.address)
            for node in self._view.nodes.values():
                for own in node.networks:
                    self._held.setdefault(own.network_id, []).append(own.address)
        return self._held


# ---- networks ----


def _allocate_networks(view: View) -> list[Action]:
    waiting = [n for n in view.networks.values() if not n.vni and not n.pending_delete]
    if not waiting or view.cluster is None:
        return []
    subnets = [config.subnet for n in view.networks.values() for config in n.ipam]
    vnis = {n.vni for n in view.networks.values()}
    actions: list[Action] = []
    # Wished subnets first, so that no freely chosen one is put in their way.
    order = sorted(waiting, key=lambda n: (not n.spec.ipam, not n.spec.ingress, n.meta.created_at, n.id))
    for network in order:
        ipam = _ipam(network, view.cluster, subnets)
        vni = next((v for v in range(defaults.VNI_FIRST, VNI_LAST + 1) if v not in vnis), 0)
        if ipam is None or not vni:
            continue
        subnets.extend(config.subnet for config in ipam)
        vnis.add(vni)
        allocated = msgspec.structs.replace(network, ipam=ipam, vni=vni)
        reason = f"network has subnet {ipam[0].subnet} and VNI {vni}"
        actions.append(Update(Kind.NETWORK, allocated, reason))
    return actions


def _ipam(network: Network, cluster: Cluster, used: list[str]) -> tuple[IpamConfig, ...] | None:
    """The subnets of the spec, or a free one of the pools; None when there is none."""
    wished = tuple(config for config in network.spec.ipam if config.subnet)
    if wished:
        if any(overlaps(config.subnet, used) for config in wished):
            return None
        return tuple(with_gateway(config) for config in wished)
    subnet = free_subnet(cluster.default_address_pools, cluster.subnet_size, used)
    return (with_gateway(IpamConfig(subnet=subnet)),) if subnet else None


def _why_unallocated(network: Network, view: View) -> str:
    """Numbers for the user: what was wanted and how much of it is left."""
    name = network.spec.annotations.name
    cluster = view.cluster
    wished = [config.subnet for config in network.spec.ipam if config.subnet]
    others = [config.subnet for n in view.networks.values() if n.id != network.id for config in n.ipam]
    for subnet in wished:
        other = overlaps(subnet, others)
        if other:
            return f"network {name}: subnet {subnet} overlaps with {other}, which is in use"
    if cluster is None:
        return f"network {name}: the cluster has no address pools yet"
    total = subnet_count(cluster.default_address_pools, cluster.subnet_size)
    pools = ", ".join(cluster.default_address_pools)
    return (
        f"network {name}: no free /{cluster.subnet_size} subnet in the default address pools {pools} "
        f"({len(others)} subnets in use of {total}); remove a network or give this one a --subnet"
    )


# ---- nodes ----


def _allocate_nodes(view: View, space: _AddressSpace) -> list[Action]:
    """Every node has an address on the ingress network: the gateway through which it answers ports."""
    ingress = ingress_network(view)
    if ingress is None or not ingress.vni:
        return []
    actions: list[Action] = []
    for node in sorted(view.nodes.values(), key=lambda n: (n.meta.created_at, n.id)):
        if not any(own.network_id == ingress.id for own in node.networks):
            address = space.subnet(ingress).take()
            if address:
                actions.append(
                    Update(Kind.NODE, _attached(node, ingress, address), f"ingress address {address}")
                )
    return actions


def _attached(node: Node, network: Network, address: str) -> Node:
    own = NodeNetwork(network_id=network.id, address=address, mac=mac_of(address))
    # Of an ingress network that was removed and created anew only the new one counts.
    return msgspec.structs.replace(node, networks=(own,))


# ---- services ----


def _allocate_services(view: View, space: _AddressSpace) -> list[Action]:
    ingress = ingress_network(view)
    waiting = [s for s in view.services.values() if not s.pending_delete and not _is_allocated(s, ingress)]
    if not waiting:
        return []
    taken = {port for service in view.services.values() for port in ports.ingress_ports(service)}
    actions: list[Action] = []
    for service in sorted(waiting, key=lambda s: (s.meta.created_at, s.id)):
        endpoint = _endpoint(service, ingress, view, space, taken)
        if endpoint is not None and endpoint != service.endpoint:
            reason = "service has its virtual addresses and ports"
            actions.append(Update(Kind.SERVICE, msgspec.structs.replace(service, endpoint=endpoint), reason))
    return actions


def _vip_networks(service: Service, ingress: Network | None) -> list[str] | None:
    """Ids of the networks that the service needs a virtual address on; None: the ingress is missing."""
    ids = [attachment.target for attachment in service.spec.task.networks]
    if ports.has_ingress(service.spec):
        if ingress is None:
            return None
        ids.append(ingress.id)
    return ids if ports.wants_vip(service.spec) else []


def _is_allocated(service: Service, ingress: Network | None) -> bool:
    endpoint = service.endpoint
    if endpoint is None or endpoint.spec != service.spec.endpoint:
        return False
    return [vip.network_id for vip in endpoint.virtual_ips] == _vip_networks(service, ingress)


def _endpoint(
    service: Service, ingress: Network | None, view: View, space: _AddressSpace, taken: set[ports.Published]
) -> Endpoint | None:
    """None when something of it cannot be had now; then nothing is taken."""
    network_ids = _vip_networks(service, ingress)
    if network_ids is None:
        return None
    before = service.endpoint
    numbered = ports.number(service.spec.endpoint.ports, before, taken)
    if any(port.mode is PublishMode.INGRESS and not port.published for port in numbered):
        return None
    held = {vip.network_id: vip.address for vip in before.virtual_ips} if before else {}
    missing = _ready_networks([id for id in network_ids if id not in held], view)
    addresses = space.take_all(missing) if missing is not None else []
    if missing is None or len(addresses) < len(missing):
        return None
    held.update(zip((network.id for network in missing), addresses, strict=True))
    vips = tuple(VirtualIP(network_id=id, address=held[id]) for id in network_ids)
    return Endpoint(spec=service.spec.endpoint, ports=tuple(numbered), virtual_ips=vips)


def _ready_networks(network_ids: Sequence[str], view: View) -> list[Network] | None:
    """None when one of them is not there, or has no subnet yet."""
    networks = [view.networks.get(id) for id in network_ids]
    ready = [network for network in networks if network is not None and network.vni]
    return ready if len(ready) == len(networks) else None


# ---- tasks ----


def _allocate_tasks(view: View, space: _AddressSpace, now: float) -> list[Action]:
    waiting = [
        task
        for task in view.tasks.values()
        if task.status.state is TaskState.NEW and task.desired_state <= TaskState.RUNNING
    ]
    ingress = ingress_network(view)
    actions: list[Action] = []
    for task in sorted(waiting, key=lambda t: (t.meta.created_at, t.service_id, t.slot, t.id)):
        service = view.services.get(task.service_id)
        if service is None:
            continue
        problem = _problem(service, task, ingress, view)
        attachments: list[NetworkAttachment] | str = problem or _attach(service, task, ingress, view, space)
        if isinstance(attachments, str):
            actions.extend(_waits(task, attachments, now))
            continue
        status = msgspec.structs.replace(
            task.status, state=TaskState.PENDING, timestamp=now, message=PENDING_MESSAGE, error=""
        )
        allocated = msgspec.structs.replace(
            task, networks=tuple(attachments), endpoint=service.endpoint, status=status
        )
        actions.append(Update(Kind.TASK, allocated, "allocated"))
    return actions


def _needs(task: Task, service: Service, ingress: Network | None) -> list[tuple[str, tuple[str, ...]]]:
    """(network id, aliases) of every endpoint the task must have."""
    needs = [(attachment.target, attachment.aliases) for attachment in task.spec.networks]
    if ports.has_ingress(service.spec) and ingress is not None:
        needs.append((ingress.id, ()))
    return needs


def _problem(service: Service, task: Task, ingress: Network | None, view: View) -> str:
    """What is missing before the task can have its addresses; "" when nothing is."""
    if ports.has_ingress(service.spec) and ingress is None:
        return "the cluster has no ingress network; create one with --ingress, or publish with mode=host"
    for network_id, _ in _needs(task, service, ingress):
        network = view.networks.get(network_id)
        if network is None:
            return f"network {network_id} not found"
        if not network.vni:
            return _why_unallocated(network, view)
    return ""


def _attach(
    service: Service, task: Task, ingress: Network | None, view: View, space: _AddressSpace
) -> list[NetworkAttachment] | str:
    if not _is_allocated(service, ingress):
        return _exhausted(service, ingress, view, space)
    needs = _needs(task, service, ingress)
    networks = [view.networks[network_id] for network_id, _ in needs]
    addresses = space.take_all(networks)
    if len(addresses) < len(networks):
        return _no_address(networks, space)
    return [
        NetworkAttachment(network_id=network_id, address=address, mac=mac_of(address), aliases=aliases)
        for (network_id, aliases), address in zip(needs, addresses, strict=True)
    ]


def _exhausted(service: Service, ingress: Network | None, view: View, space: _AddressSpace) -> str:
    """Why a service whose networks are there has no endpoint."""
    networks = _ready_networks(_vip_networks(service, ingress) or (), view) or []
    if space.first_full(networks) is not None:
        return _no_address(networks, space)
    first, last = defaults.PUBLISHED_PORT_FIRST, defaults.PUBLISHED_PORT_LAST
    return f"no free published port: all {last - first + 1} of {first}-{last} are in use"


def _no_address(networks: Sequence[Network], space: _AddressSpace) -> str:
    full = space.first_full(networks)
    assert full is not None, "asked why although every network has room"
    return (
        f"network {full.spec.annotations.name} has no free address: all {space.subnet(full).size} of "
        f"{full.ipam[0].subnet} are in use; create a larger network"
    )


def _waits(task: Task, reason: str, now: float) -> list[Action]:
    if task.status.error == reason:
        return []
    status = msgspec.structs.replace(task.status, timestamp=now, message=WAITING_MESSAGE, error=reason)
    return [Update(Kind.TASK, msgspec.structs.replace(task, status=status), reason)]
