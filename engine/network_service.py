"""The local networks as the Docker Engine API shows and changes them."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from engine.config import EndpointConfig, NetworkCreate
from engine.container import Container
from engine.containers import Containers
from engine.endpoint_wishes import check_endpoint, endpoint_request
from engine.errors import Conflict, Forbidden, InvalidParameter, NotFound
from engine.events import EventBus
from engine.filter_values import check_filters, has_label, is_spared, matches_pattern, moment, truth
from engine.links import endpoint_links
from engine.networks import IpamBlock, Network, NetworkProvider, NetworkSpec, Sandbox

PREDEFINED = ("bridge", "host", "none")
LISTING = ("dangling", "driver", "id", "label", "name", "scope", "type")
PRUNING = ("label", "label!", "until")


class NetworkService:
    """Verbs on networks of local scope; those of the cluster are the managers' business."""

    def __init__(
        self,
        provider: NetworkProvider,
        containers: Containers,
        events: EventBus,
        update_hosts: Callable[[Container, Sandbox | None], None] = lambda container, before: None,
    ) -> None:
        """`update_hosts`: a running container's networks have changed, and were those of that sandbox."""
        self._update_hosts = update_hosts
        self._provider = provider
        self._containers = containers
        self._events = events

    async def summaries(self, filters: Mapping[str, list[str]]) -> list[dict[str, Any]]:
        check_filters(filters, LISTING)
        return [
            self._to_api(network, detailed=False)
            for network in self._provider.networks()
            if _matches(network, filters, time.time()) and self._dangling_matches(network, filters)
        ]

    async def create(self, body: NetworkCreate) -> str:
        """Conflict when the name is taken. Returns the id."""
        if not body.name:
            raise InvalidParameter("network name cannot be empty")
        if any(network.spec.name == body.name for network in self._provider.networks()):
            if body.name in PREDEFINED:
                raise Forbidden(f"operation is not permitted on predefined {body.name} network")
            raise Conflict(f"network with name {body.name} already exists")
        blocks = tuple(
            IpamBlock(
                subnet=pool.subnet,
                gateway=pool.gateway,
                ip_range=pool.ip_range,
                aux_addresses=pool.auxiliary_addresses or {},
            )
            for pool in (body.ipam.config if body.ipam and body.ipam.config else ())
        )
        spec = NetworkSpec(
            name=body.name,
            driver=body.driver or "bridge",
            ipam=blocks,
            internal=body.internal,
            attachable=body.attachable,
            ipv6=body.enable_ipv6,
            options=body.options or {},
            labels=body.labels or {},
        )
        if body.config_only:
            if body.config_from and body.config_from.network:
                raise Forbidden("a configuration network cannot depend on another configuration network")
            spec = msgspec.structs.replace(spec, driver="null", config_only=True)
        elif body.config_from and body.config_from.network:
            spec = self._from_configuration(spec, body.config_from.network)
        network = await self._provider.create_network(spec)
        self._events.publish("network", "create", network.id, {"name": body.name, "type": spec.driver})
        return network.id

    async def inspect(self, ref: str) -> dict[str, Any]:
        return self._to_api(self._provider.find(ref), detailed=True)

    async def remove(self, ref: str) -> None:
        """Conflict while containers are attached, Forbidden for the predefined ones."""
        network = self._provider.find(ref)
        if network.spec.name in PREDEFINED:
            raise Forbidden(f"{network.spec.name} is a pre-defined network and cannot be removed")
        users = [c for c in self._containers.all() if c.is_running and self._uses(c, network)]
        if users:
            names = ", ".join(f'name:"{c.name}" id:"{c.short_id}"' for c in users)
            raise Conflict(
                f"error while removing network: network {network.spec.name} has active endpoints ({names})"
            )
        users_of_settings = [n for n in self._provider.networks() if n.spec.config_from == network.spec.name]
        if network.spec.config_only and users_of_settings:
            raise Conflict(
                f'configuration network "{network.spec.name}" is in use by {users_of_settings[0].spec.name}'
            )
        await self._provider.remove_network(network.id)
        self._events.publish(
            "network", "destroy", network.id, {"name": network.spec.name, "type": network.spec.driver}
        )

    async def connect(self, ref: str, container_ref: str, wish: EndpointConfig | None) -> None:
        wish = wish or EndpointConfig()
        check_endpoint(ref, wish)
        container = self._containers.find(container_ref)
        network = self._provider.find(ref)
        mode = container.network_mode
        if mode == "host" or mode.startswith("container:"):
            raise InvalidParameter(
                f"container {container.name} shares the network of {mode}: it cannot be connected"
            )
        if mode == "none" or container.config.network_disabled or network.spec.name in ("host", "none"):
            raise InvalidParameter(
                f"container {container.name} cannot be connected to {network.spec.name}: the networks host and none "
                "are chosen when a container is made, and go with no other"
            )
        if network.spec.config_only:
            raise Forbidden(f"network {network.spec.name} is a configuration only: no container can be on it")
        if any(self._same(network, known) for known in container.endpoints):
            raise Forbidden(
                f"endpoint with name {container.name} already exists in network {network.spec.name}"
            )
        request = endpoint_request(network.id, wish, self._provider)
        links = endpoint_links([wish], self._containers.find)
        before = self._provider.sandbox(container.id)
        if container.is_running:
            await self._provider.connect(container.id, request)
        container.endpoints[network.spec.name] = wish
        container.links = [*container.links, *links]
        if container.is_running:
            self._update_hosts(container, before)
        self._containers.save(container)
        self._publish(network, container, "connect")

    async def disconnect(self, ref: str, container_ref: str, *, force: bool) -> None:
        container = self._containers.find(container_ref)
        network = self._provider.find(ref)
        known = next((name for name in container.endpoints if self._same(network, name)), None)
        if known is None:
            if force:
                return
            raise InvalidParameter(
                f"container {container.id} is not connected to network {network.spec.name}"
            )
        before = self._provider.sandbox(container.id)
        if container.is_running:
            await self._provider.disconnect(container.id, network.id)
            self._update_hosts(container, before)
        del container.endpoints[known]
        self._containers.save(container)
        self._publish(network, container, "disconnect")

    async def prune(self, filters: Mapping[str, list[str]]) -> dict[str, Any]:
        check_filters(filters, PRUNING)
        deleted, now = [], time.time()
        for network in tuple(self._provider.networks()):
            is_ours = network.spec.name not in PREDEFINED and network.scope == "local"
            if not is_ours or not _matches(network, filters, now):
                continue
            if not any(self._uses(container, network) for container in self._containers.all()):
                # In use without a record: by the sandboxes of a cluster's tasks.
                with contextlib.suppress(Conflict):
                    await self.remove(network.id)
                    deleted.append(network.spec.name)
        self._events.publish("network", "prune", "", {"reclaimed": "0"})
        return {"NetworksDeleted": deleted}

    def _from_configuration(self, spec: NetworkSpec, ref: str) -> NetworkSpec:
        """Docker's rule: what a configuration network says cannot be said again."""
        source = self._provider.find(ref).spec
        if not source.config_only:
            raise Forbidden(f'"{ref}" is no configuration network: make it with ConfigOnly')
        if spec.ipam or spec.options or spec.ipv6:
            raise Forbidden(
                "user specified configurations are not supported if the network depends on a "
                "configuration network"
            )
        return msgspec.structs.replace(
            spec,
            config_from=source.name,
            ipam=source.ipam,
            options=source.options,
            ipv6=source.ipv6,
            labels={**source.labels, **spec.labels},
        )

    def _uses(self, container: Container, network: Network) -> bool:
        return any(self._same(network, ref) for ref in container.endpoints) or any(
            endpoint.network == network.id for endpoint in container.task_endpoints
        )

    def _same(self, network: Network, ref: str) -> bool:
        try:
            return self._provider.find(ref).id == network.id
        except NotFound:
            return False

    def _publish(self, network: Network, container: Container, action: str) -> None:
        self._events.publish(
            "network",
            action,
            network.id,
            {"container": container.id, "name": network.spec.name, "type": network.spec.driver},
        )

    def _dangling_matches(self, network: Network, filters: Mapping[str, list[str]]) -> bool:
        wanted = filters.get("dangling")
        if not wanted:
            return True
        used = network.spec.name in PREDEFINED or any(self._uses(c, network) for c in self._containers.all())
        return used != truth("dangling", wanted)

    def _to_api(self, network: Network, *, detailed: bool) -> dict[str, Any]:
        spec = network.spec
        created = datetime.datetime.fromtimestamp(network.created_at, datetime.UTC).isoformat()
        return {
            "Name": spec.name,
            "Id": network.id,
            "Created": created.replace("+00:00", "Z"),
            "Scope": network.scope,
            "Driver": spec.driver,
            "EnableIPv4": True,
            "EnableIPv6": spec.ipv6,
            "IPAM": {
                "Driver": "default",
                "Options": None if spec.name in PREDEFINED else {},
                "Config": [_block_to_api(block) for block in spec.ipam],
            },
            "Internal": spec.internal,
            "Attachable": spec.attachable,
            "Ingress": False,
            "ConfigFrom": {"Network": spec.config_from},
            "ConfigOnly": spec.config_only,
            "Containers": self._attached(network) if detailed else {},
            "Options": spec.options,
            "Labels": spec.labels,
        }

    def _attached(self, network: Network) -> dict[str, Any]:
        attached: dict[str, Any] = {}
        for container in self._containers.all():
            sandbox = self._provider.sandbox(container.id) if container.is_running else None
            for endpoint in sandbox.endpoints if sandbox else ():
                if endpoint.network == network.id:
                    attached[container.id] = {
                        "Name": container.name,
                        "EndpointID": endpoint.id,
                        "MacAddress": endpoint.mac,
                        "IPv4Address": endpoint.cidr,
                        "IPv6Address": endpoint.cidr6,
                    }
        return attached


def _block_to_api(block: IpamBlock) -> dict[str, Any]:
    shown: dict[str, Any] = {"Subnet": block.subnet}
    if block.ip_range:
        shown["IPRange"] = block.ip_range
    if block.gateway:
        shown["Gateway"] = str(ipaddress.ip_interface(block.gateway).ip)
    if block.aux_addresses:
        shown["AuxiliaryAddresses"] = block.aux_addresses
    return shown


def _matches(network: Network, filters: Mapping[str, list[str]], now: float) -> bool:
    """All filters but `dangling`; `now` in Unix seconds, for durations of `until`."""
    return all(_matches_one(network, key, values, now) for key, values in filters.items() if values)


def _matches_one(network: Network, key: str, values: list[str], now: float) -> bool:
    spec = network.spec
    if key == "name":
        return any(matches_pattern(spec.name, value) for value in values)
    if key == "id":
        return any(matches_pattern(network.id, value) for value in values)
    if key == "driver":
        return spec.driver in values
    if key == "scope":
        return network.scope in values
    if key == "type":
        return ("builtin" if spec.name in PREDEFINED else "custom") in values
    if key == "label":
        return all(has_label(spec.labels, value) for value in values)
    if key == "label!":
        return not is_spared(spec.labels, values)
    if key == "until":
        return all(network.created_at < moment(value, now) for value in values)
    return True
