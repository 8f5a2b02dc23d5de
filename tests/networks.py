"""A data plane in memory, for tests of what stands on `engine.networks.NetworkProvider`."""

from __future__ import annotations

from collections.abc import Sequence

from engine.errors import Conflict, NotFound
from engine.networks import (
    Endpoint,
    EndpointRequest,
    IpamBlock,
    Network,
    NetworkSpec,
    PluginInterface,
    Sandbox,
    SandboxRequest,
)


class MemoryNetworks:
    """The predefined networks and those of a test; `requests` is what sandboxes were asked for."""

    def __init__(self) -> None:
        self.known: dict[str, Network] = {}
        self.requests: dict[str, SandboxRequest] = {}
        self.sandboxes: dict[str, Sandbox] = {}
        self.adopted: list[tuple[str, PluginInterface]] = []
        self.given_back: list[tuple[str, str, str]] = []
        for name, driver in (("bridge", "bridge"), ("host", "host"), ("none", "null")):
            self.add(name, driver, "172.17.0.0/16" if name == "bridge" else "")

    def add(self, name: str, driver: str = "bridge", subnet: str = "", **fields: object) -> Network:
        blocks = (IpamBlock(subnet=subnet),) if subnet else ()
        created_at = float(str(fields.pop("created_at", 1_700_000_000.0)))
        scope = str(fields.pop("scope", "local"))
        spec = NetworkSpec(name=name, driver=driver, ipam=blocks, **fields)
        network = Network(
            id=(name.encode().hex() + "0" * 64)[:64], spec=spec, created_at=created_at, scope=scope
        )
        self.known[network.id] = network
        return network

    def networks(self) -> Sequence[Network]:
        return tuple(self.known.values())

    def find(self, ref: str) -> Network:
        for network in self.known.values():
            if ref in (network.id, network.spec.name) or (len(ref) > 3 and network.id.startswith(ref)):
                return network
        raise NotFound(f"network {ref} not found")

    async def create_network(self, spec: NetworkSpec) -> Network:
        network = Network(id=spec.name.encode().hex(), spec=spec, created_at=1_700_000_000.0)
        self.known[network.id] = network
        return network

    async def remove_network(self, network_id: str) -> None:
        if any(e.network == network_id for sandbox in self.sandboxes.values() for e in sandbox.endpoints):
            raise Conflict(f"network {network_id} has active endpoints")
        del self.known[network_id]

    async def create_sandbox(self, request: SandboxRequest) -> Sandbox:
        self.requests[request.id] = request
        made = Sandbox(
            id=request.id,
            netns_path=f"/run/netns/{request.id}",
            endpoints=tuple(self._endpoint(number, e) for number, e in enumerate(request.endpoints, 2)),
            ports=request.publishes,
            embedded_dns=any(self.find(e.network).spec.name != "bridge" for e in request.endpoints),
        )
        self.sandboxes[request.id] = made
        return made

    async def remove_sandbox(self, sandbox_id: str) -> None:
        del self.sandboxes[sandbox_id]

    def sandbox(self, sandbox_id: str) -> Sandbox | None:
        return self.sandboxes.get(sandbox_id)

    async def connect(self, sandbox_id: str, request: EndpointRequest) -> Endpoint:
        sandbox = self.sandboxes[sandbox_id]
        endpoint = self._endpoint(len(sandbox.endpoints) + 2, request)
        self._set_endpoints(sandbox, (*sandbox.endpoints, endpoint))
        return endpoint

    async def disconnect(self, sandbox_id: str, network_id: str) -> None:
        sandbox = self.sandboxes[sandbox_id]
        self._set_endpoints(sandbox, tuple(e for e in sandbox.endpoints if e.network != network_id))

    def _set_endpoints(self, sandbox: Sandbox, endpoints: tuple[Endpoint, ...]) -> None:
        self.sandboxes[sandbox.id] = Sandbox(
            id=sandbox.id,
            netns_path=sandbox.netns_path,
            endpoints=endpoints,
            ports=sandbox.ports,
            embedded_dns=sandbox.embedded_dns,
        )

    async def adopt(self, sandbox_id: str, wish: PluginInterface) -> str:
        self.adopted.append((sandbox_id, wish))
        return f"{wish.prefix}9"

    async def give_back(self, sandbox_id: str, name: str, source: str) -> None:
        self.given_back.append((sandbox_id, name, source))

    def _endpoint(self, number: int, request: EndpointRequest) -> Endpoint:
        network = self.find(request.network)
        return Endpoint(
            id=f"endpoint-{number}",
            network=network.id,
            network_name=network.spec.name,
            interface=f"eth{number - 2}",
            cidr=request.cidr or f"172.17.0.{number}/16",
            gateway="172.17.0.1",
            mac=request.mac or f"02:42:ac:11:00:{number:02x}",
            aliases=request.aliases,
        )
