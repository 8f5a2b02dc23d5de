"""The seam to the data plane: what the engine asks of networks, and nothing of how they are made.

The engine imports no network code; the daemon gives it a `NetworkProvider`. Addresses are strings, `cidr`
carries a prefix length. Errors of the provider are engine errors (NotFound, Conflict, InvalidParameter, ...).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base: immutable, keyword only."""


class IpamBlock(Record, frozen=True):
    subnet: str
    gateway: str = ""
    ip_range: str = ""
    aux_addresses: dict[str, str] = {}


class NetworkSpec(Record, frozen=True):
    name: str
    driver: str = "bridge"
    ipam: tuple[IpamBlock, ...] = ()
    internal: bool = False
    attachable: bool = False
    config_only: bool = False  # settings for other networks, nothing in the kernel
    config_from: str = ""
    ipv6: bool = False
    options: dict[str, str] = {}
    labels: dict[str, str] = {}


class Network(Record, frozen=True):
    """A network of this host; `scope` is local, or swarm for one that the cluster put here."""

    id: str
    spec: NetworkSpec
    created_at: float
    scope: str = "local"


class Publish(Record, frozen=True):
    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""
    host_port: int = 0


class EndpointRequest(Record, frozen=True):
    network: str
    cidr: str = ""
    mac: str = ""
    aliases: tuple[str, ...] = ()
    cidr6: str = ""
    link_local: tuple[str, ...] = ()
    interface: str = ""
    sysctls: tuple[tuple[str, str], ...] = ()
    priority: int = 0


class SandboxRequest(Record, frozen=True):
    id: str
    name: str = ""
    endpoints: tuple[EndpointRequest, ...] = ()
    publishes: tuple[Publish, ...] = ()
    dns_servers: tuple[str, ...] = ()
    ndots_set: bool = False
    sysctls: dict[str, str] = {}


class PluginInterface(Record, frozen=True):
    """An interface that a network plugin made: `source` on the host, `prefix` and a number in the sandbox.

    `routes`: (destination, next hop); "" is on the link.
    """

    source: str
    prefix: str
    cidr: str = ""
    mac: str = ""
    gateway: str = ""
    routes: tuple[tuple[str, str], ...] = ()


class Endpoint(Record, frozen=True):
    id: str
    network: str
    network_name: str
    interface: str
    cidr: str
    gateway: str
    mac: str
    aliases: tuple[str, ...] = ()
    dns_names: tuple[str, ...] = ()
    cidr6: str = ""
    gateway6: str = ""
    link_local: tuple[str, ...] = ()
    priority: int = 0


class Sandbox(Record, frozen=True):
    """A network namespace that is ready for a container. `embedded_dns`: its name server is 127.0.0.11."""

    id: str
    netns_path: str
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[Publish, ...] = ()
    embedded_dns: bool = False


class NetworkProvider(Protocol):
    """Implemented by the daemon on the data plane. All waits inside are bounded."""

    def networks(self) -> Sequence[Network]: ...

    def find(self, ref: str) -> Network: ...

    async def create_network(self, spec: NetworkSpec) -> Network: ...

    async def remove_network(self, network_id: str) -> None: ...

    async def create_sandbox(self, request: SandboxRequest) -> Sandbox: ...

    async def remove_sandbox(self, sandbox_id: str) -> None: ...

    def sandbox(self, sandbox_id: str) -> Sandbox | None: ...

    async def connect(self, sandbox_id: str, request: EndpointRequest) -> Endpoint: ...

    async def disconnect(self, sandbox_id: str, network_id: str) -> None: ...

    async def adopt(self, sandbox_id: str, wish: PluginInterface) -> str:
        """Its name in the sandbox."""

    async def give_back(self, sandbox_id: str, name: str, source: str) -> None: ...
