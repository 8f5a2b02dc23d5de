"""Plain records in and out of the data plane. It knows no services and no tasks, only what to program.

Addresses are strings; `cidr` fields carry a prefix length, `address` fields do not. Field names of the
`Map*` records equal those of the cluster's network map, so one converts into the other by name.
"""

from __future__ import annotations

import msgspec


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base: immutable, keyword only."""


# ---- local networks ---------------------------------------------------------------------------------------


class IpamBlock(Record, frozen=True):
    subnet: str
    gateway: str = ""
    ip_range: str = ""
    aux_addresses: dict[str, str] = {}


class BridgeDefaults(Record, frozen=True):
    """Of the default bridge, and of networks that name no subnet.

    `bip`: the bridge's address with its prefix length. `pools`: (subnet, prefix length of what is taken out of it).
    """

    bip: str = ""
    mtu: int = 0
    pools: tuple[tuple[str, int], ...] = ()
    icc: bool = True
    ipv6: bool = False
    fixed_cidr_v6: str = ""


NO_DEFAULTS = BridgeDefaults()


class NetworkSpec(Record, frozen=True):
    """A network of this host. `driver`: bridge, host, null, macvlan (overlay ones come from the map)."""

    name: str
    driver: str = "bridge"
    ipam: tuple[IpamBlock, ...] = ()  # empty: a free subnet is chosen
    internal: bool = False
    attachable: bool = False
    config_only: bool = False  # settings for other networks, nothing in the kernel
    config_from: str = ""
    ipv6: bool = False
    options: dict[str, str] = {}
    labels: dict[str, str] = {}


class Network(Record, frozen=True):
    """A network that exists on this host, with its id (64 hex digits) and creation time (Unix seconds)."""

    id: str
    spec: NetworkSpec
    created_at: float
    scope: str = "local"  # or "swarm"


# ---- sandboxes: the network namespace of one container ----------------------------------------------------


class Publish(Record, frozen=True):
    """host_port 0: the driver chooses one (49153-65535). host_ip "": all addresses; 0.0.0.0 and ::, all of that family."""

    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""
    host_port: int = 0


class EndpointRequest(Record, frozen=True):
    """One interface. `network` is a network id. Empty address: allocated; for overlays it is given."""

    network: str
    cidr: str = ""
    mac: str = ""
    aliases: tuple[str, ...] = ()  # DNS names on that network besides the container's name and short id
    cidr6: str = ""
    link_local: tuple[str, ...] = ()  # further addresses, of any family
    interface: str = ""  # its name in the sandbox; empty: the first free one of eth0, eth1, ...
    sysctls: tuple[tuple[str, str], ...] = ()  # net.*, IFNAME in the name stands for the interface's
    priority: int = 0  # the highest one with a gateway gives the default route


class SandboxRequest(Record, frozen=True):
    """`endpoints` in order: the first non-internal one gives the default route. `name`: DNS name."""

    id: str  # container id
    name: str = ""
    endpoints: tuple[EndpointRequest, ...] = ()
    publishes: tuple[Publish, ...] = ()
    dns_servers: tuple[str, ...] = ()  # upstream servers for this container instead of the host's
    ndots_set: bool = False  # the user gave the resolver option ndots
    sysctls: dict[str, str] = {}  # net.* only, applied inside the namespace


class Endpoint(Record, frozen=True):
    id: str  # 64 hex digits
    network: str
    network_name: str
    interface: str  # inside the sandbox: eth0, eth1, ...
    cidr: str
    gateway: str
    mac: str
    aliases: tuple[str, ...] = ()
    dns_names: tuple[str, ...] = ()
    cidr6: str = ""
    gateway6: str = ""
    link_local: tuple[str, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    priority: int = 0


class Sandbox(Record, frozen=True):
    """What was made. `netns_path` can be opened and given to setns; `ports` have their host ports.

    `embedded_dns`: the container must use 127.0.0.11 as its only name server.
    """

    id: str
    netns_path: str
    name: str = ""
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[Publish, ...] = ()
    embedded_dns: bool = False
    dns_servers: tuple[str, ...] = ()
    ndots_set: bool = False


# ---- the overlay map of this node -------------------------------------------------------------------------


class MapPeer(Record, frozen=True):
    address: str
    mac: str
    node_address: str


class MapName(Record, frozen=True):
    name: str
    addresses: tuple[str, ...]


class MapBackend(Record, frozen=True):
    address: str
    task_id: str = ""


class MapVip(Record, frozen=True):
    service_id: str
    service_name: str
    address: str
    backends: tuple[MapBackend, ...] = ()


class MapGateway(Record, frozen=True):
    address: str
    mac: str
    node_address: str


class MapNetwork(Record, frozen=True):
    id: str
    name: str
    vni: int
    subnet: str
    gateway: str
    internal: bool = False
    ingress: bool = False
    options: dict[str, str] = {}
    peers: tuple[MapPeer, ...] = ()
    names: tuple[MapName, ...] = ()
    vips: tuple[MapVip, ...] = ()
    gateways: tuple[MapGateway, ...] = ()
    local_address: str = ""
    local_mac: str = ""
    version: int = 0


class MapPort(Record, frozen=True):
    protocol: str
    published: int
    target: int
    service_id: str
    service_name: str
    backends: tuple[MapBackend, ...] = ()


class NetworkMap(Record, frozen=True):
    version: int = 0
    networks: tuple[MapNetwork, ...] = ()
    ports: tuple[MapPort, ...] = ()


class Finding(Record, frozen=True):
    """One difference that an audit found between the kernel and what should be there, and what was done."""

    subject: str
    problem: str
    repaired: bool
