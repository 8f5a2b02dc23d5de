"""Cluster networks: create, remove, look at. Subnets and VNIs are the allocator's business."""

from __future__ import annotations

from node.manager.control import listing
from node.manager.control.base import Control, Filters, find_network
from raft import validate
from raft.errors import AlreadyExists, FailedPrecondition, InvalidArgument
from raft.objects.base import Kind, new_id
from raft.objects.cluster import Network, NetworkSpec
from raft.objects.request import Request
from raft.objects.task import Task, TaskState
from raft.store import Transaction, View
from scheduler import ports
from scheduler.addresses import overlaps

PREDEFINED = frozenset({"bridge", "host", "none", "default"})


class NetworkControl(Control):
    async def create_network(self, spec: NetworkSpec, *, request: Request | None = None) -> Network:
        validate.require(spec)
        network_id = new_id()

        def create(tx: Transaction) -> str:
            _check_new(tx, spec)
            tx.put(Network(id=network_id, spec=spec))
            return network_id

        written = await self._update_alone(create, request)
        return self._store.view().networks.get(written) or Network(id=written, spec=spec)

    async def remove_network(self, ref: str, *, request: Request | None = None) -> None:
        def remove(tx: Transaction) -> None:
            network = find_network(tx, ref)
            _check_unused(tx, network)
            tx.delete(Kind.NETWORK, network.id)

        await self._update_alone(remove, request)

    async def prune_networks(self, filters: Filters, *, request: Request | None = None) -> list[str]:
        """Remove what nothing uses; the names. Filters: label, label!, until (Unix seconds)."""

        def prune(tx: Transaction) -> list[str]:
            names: list[str] = []
            passing = listing.passing(
                tx.networks.values(),
                filters,
                {
                    "label": lambda n, values: listing.has_labels(n.spec.annotations.labels, values),
                    "label!": lambda n, values: not listing.has_labels(n.spec.annotations.labels, values),
                    "until": lambda n, values: n.meta.created_at < float(values[0]),
                },
            )
            for network in passing:
                if not network.spec.ingress and _is_unused(tx, network):
                    tx.delete(Kind.NETWORK, network.id)
                    names.append(network.spec.annotations.name)
            return names

        return await self._update_alone(prune, request)

    async def get_network(self, ref: str) -> Network:
        return find_network(self._store.view(), ref)

    async def list_networks(self, filters: Filters) -> list[Network]:
        view = self._store.view()
        return listing.passing(
            view.networks.values(),
            filters,
            {
                "id": listing.by_id,
                "name": lambda n, values: any(value in n.spec.annotations.name for value in values),
                "label": lambda n, values: listing.has_labels(n.spec.annotations.labels, values),
                "driver": lambda n, values: n.spec.driver.name in values,
                "scope": lambda _, values: "swarm" in values,
                "type": lambda n, values: "custom" in listing.one_of("type", ("custom", "builtin"), values),
                "dangling": lambda n, values: _is_unused(view, n) is (values[0].lower() in ("true", "1")),
            },
        )


def _check_new(view: View, spec: NetworkSpec) -> None:
    name = spec.annotations.name
    if spec.driver.name != "overlay":
        raise InvalidArgument(f"network driver {spec.driver.name} has no swarm scope; use overlay")
    if name in PREDEFINED:
        raise InvalidArgument(f"operation is not permitted on predefined {name} network")
    if view.by_name(Kind.NETWORK, name) is not None:
        raise AlreadyExists(f"network with name {name} already exists")
    if spec.ingress:
        present = next((n for n in view.networks.values() if n.spec.ingress), None)
        if present is not None:
            raise AlreadyExists(f"ingress network ({present.id}) is already present")
    used = [config.subnet for n in view.networks.values() for config in (n.ipam or n.spec.ipam)]
    for config in spec.ipam:
        other = overlaps(config.subnet, [u for u in used if u]) if config.subnet else ""
        if other:
            raise InvalidArgument(
                f"invalid pool request: Pool overlaps with other one on this address space: "
                f"{config.subnet} with {other}"
            )


def _check_unused(view: View, network: Network) -> None:
    name = network.spec.annotations.name
    if network.spec.ingress:
        for service in view.services.values():
            if ports.has_ingress(service.spec):
                raise FailedPrecondition(
                    f"ingress network cannot be removed because service {service.id} depends on it"
                )
        return
    for service in view.services.values():
        if any(attachment.target == network.id for attachment in service.spec.task.networks):
            raise FailedPrecondition(f"network {name} is in use by service {service.spec.annotations.name}")
    for task in view.tasks.values():
        if _uses(task, network):
            raise FailedPrecondition(f"network {name} is in use by task {task.id}")


def _uses(task: Task, network: Network) -> bool:
    """A task that was told to stop does not keep the network, as in Docker."""
    live = task.desired_state <= TaskState.RUNNING and task.status.state <= TaskState.RUNNING
    return live and any(attachment.network_id == network.id for attachment in task.networks)


def _is_unused(view: View, network: Network) -> bool:
    try:
        _check_unused(view, network)
    except FailedPrecondition:
        return False
    return True
