"""The network map: what every node has to program, computed from the store, versioned by content.

Owns who is a peer, a name, a backend. Every task that may have a container is a peer; only tasks that run,
are wanted to and whose node is there are answered by DNS and balancing. What is common to all nodes is
computed once (`SharedMap`) and then cut to each node's networks. Invariant: a map's version grows exactly
when its content changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from raft.objects.assignment import (
    MapBackend,
    MapGateway,
    MapName,
    MapNetwork,
    MapPeer,
    MapPort,
    MapVip,
    NetworkMap,
)
from raft.objects.cluster import Network
from raft.objects.node import Node, NodeState
from raft.objects.service import EndpointMode, PublishMode, Service
from raft.objects.task import Task, TaskState
from scheduler.actions import View
from scheduler.addresses import bare

_Names = dict[str, dict[str, None]]  # name -> addresses in order


@dataclass(slots=True)
class _Common:
    """One network's content that does not depend on the node."""

    peers: list[tuple[str, MapPeer]] = field(default_factory=list)  # with the id of the node it is on
    names: _Names = field(default_factory=dict)
    backends: dict[str, list[MapBackend]] = field(default_factory=dict)  # by service
    vips: tuple[MapVip, ...] = ()

    def name(self, name: str, addresses: Iterable[str]) -> None:
        self.names.setdefault(name.lower(), {}).update(dict.fromkeys(addresses))


class SharedMap:
    """The cluster's networks at one moment; build it once and ask it for every node's map."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._ingress_ids = {n.id for n in view.networks.values() if n.spec.ingress}
        self._networks = {n.id: _Common() for n in view.networks.values() if n.vni}
        self._of_node: dict[str, set[str]] = {}
        for task in view.tasks.values():
            if task.networks and task.status.state.uses_node:
                self._add_task(task)
        for service in view.services.values():
            self._add_service(service)
        for common in self._networks.values():
            common.peers.sort(key=lambda entry: entry[1].address)
        self._ports = self._published_ports()
        self._gateways = self._node_gateways()
        self._templates = {
            network_id: self._template(view.networks[network_id], common)
            for network_id, common in self._networks.items()
        }

    def of_node(self, node_id: str, previous: NetworkMap | None, floor: int = 0) -> NetworkMap:
        """The node's map; `previous` itself when nothing changed. A new version is above `floor`."""
        wanted = set(self._of_node.get(node_id, ()))
        if self._ports:
            wanted |= self._ingress_ids & self._networks.keys()
        before = {n.id: n for n in previous.networks} if previous else {}
        version = max(previous.version if previous else 0, floor) + 1
        networks = tuple(
            self._network(network_id, node_id, before.get(network_id), version)
            for network_id in sorted(wanted)
        )
        if previous is not None and networks == previous.networks and self._ports == previous.ports:
            return previous
        return NetworkMap(version=version, networks=networks, ports=self._ports)

    def _add_task(self, task: Task) -> None:
        node = self._view.nodes.get(task.node_id)
        if node is None:
            return
        routable = _is_routable(task, node)
        used = self._of_node.setdefault(task.node_id, set())
        for attachment in task.networks:
            common = self._networks.get(attachment.network_id)
            if common is None:
                continue
            used.add(attachment.network_id)
            address = bare(attachment.address)
            if node.status.address:
                peer = MapPeer(address=address, mac=attachment.mac, node_address=node.status.address)
                common.peers.append((task.node_id, peer))
            if routable:
                backend = MapBackend(address=address, task_id=task.id)
                common.backends.setdefault(task.service_id, []).append(backend)
                common.name(task.name, [address])

    def _add_service(self, service: Service) -> None:
        """The service's names on each of its networks. The ingress network answers no names."""
        name = service.spec.annotations.name
        vips = (
            {vip.network_id: bare(vip.address) for vip in service.endpoint.virtual_ips}
            if service.endpoint
            else {}
        )
        by_vip = service.spec.endpoint.mode is EndpointMode.VIP
        for attachment in service.spec.task.networks:
            common = self._networks.get(attachment.target)
            if common is None or attachment.target in self._ingress_ids:
                continue
            backends = common.backends.setdefault(service.id, [])
            backends.sort(key=lambda b: (b.address, b.task_id))
            addresses = [backend.address for backend in backends]
            vip = vips.get(attachment.target, "") if by_vip else ""
            for alias in (name, *attachment.aliases):
                common.name(alias, [vip] if vip else addresses)
            common.name(f"tasks.{name}", addresses)
            if vip:
                entry = MapVip(
                    service_id=service.id, service_name=name, address=vip, backends=tuple(backends)
                )
                common.vips = (*common.vips, entry)

    def _published_ports(self) -> tuple[MapPort, ...]:
        found = []
        for service in self._view.services.values():
            backends = sorted(
                (
                    backend
                    for network_id in self._ingress_ids & self._networks.keys()
                    for backend in self._networks[network_id].backends.get(service.id, ())
                ),
                key=lambda b: (b.address, b.task_id),
            )
            for port in service.endpoint.ports if service.endpoint else ():
                if port.mode is PublishMode.INGRESS and port.published:
                    found.append(
                        MapPort(
                            protocol=port.protocol,
                            published=port.published,
                            target=port.target,
                            service_id=service.id,
                            service_name=service.spec.annotations.name,
                            backends=tuple(backends),
                        )
                    )
        return tuple(sorted(found, key=lambda p: (p.protocol, p.published)))

    def _node_gateways(self) -> dict[str, tuple[MapGateway, ...]]:
        gateways: dict[str, list[MapGateway]] = {}
        for node in self._view.nodes.values():
            for own in node.networks if node.status.address else ():
                gateway = MapGateway(address=bare(own.address), mac=own.mac, node_address=node.status.address)
                gateways.setdefault(own.network_id, []).append(gateway)
        return {key: tuple(sorted(found, key=lambda g: g.address)) for key, found in gateways.items()}

    def _template(self, network: Network, common: _Common) -> MapNetwork:
        """The network as a node without tasks would see it."""
        names = tuple(
            MapName(name=name, addresses=tuple(sorted(addresses)))
            for name, addresses in sorted(common.names.items())
            if addresses
        )
        return MapNetwork(
            id=network.id,
            name=network.spec.annotations.name,
            vni=network.vni,
            subnet=network.ipam[0].subnet,
            gateway=network.ipam[0].gateway,
            internal=network.spec.internal,
            ingress=network.spec.ingress,
            options=network.spec.driver.options,
            names=() if network.spec.ingress else names,
            vips=tuple(sorted(common.vips, key=lambda v: v.service_id)),
            gateways=self._gateways.get(network.id, ()),
        )

    def _network(self, network_id: str, node_id: str, before: MapNetwork | None, version: int) -> MapNetwork:
        node = self._view.nodes.get(node_id)
        own = next((n for n in node.networks if n.network_id == network_id), None) if node else None
        cut = msgspec.structs.replace(
            self._templates[network_id],
            peers=tuple(peer for owner, peer in self._networks[network_id].peers if owner != node_id),
            local_address=own.address if own else "",
            local_mac=own.mac if own else "",
            version=before.version if before else version,
        )
        if before is None or cut == before:
            return cut
        return msgspec.structs.replace(cut, version=version)


def network_map(view: View, node_id: str, previous: NetworkMap | None = None) -> NetworkMap:
    """One node's map. For several nodes, build one `SharedMap` and ask it."""
    return SharedMap(view).of_node(node_id, previous)


def _is_routable(task: Task, node: Node) -> bool:
    return (
        task.status.state is TaskState.RUNNING
        and task.desired_state is TaskState.RUNNING
        and node.status.state is not NodeState.DOWN
    )
