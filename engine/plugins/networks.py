"""Networks whose driver is a plugin, beside those of the data plane: NetworkDriver.* of the plugin protocol.

Source: github.com/moby/moby/libnetwork/docs/remote.md. The plugin makes an interface for each endpoint; the data plane
puts it into the sandbox. Owns the records of these networks and endpoints (<root>/plugin-networks.json). Invariant:
what a failed call made is undone, also at the plugin; an endpoint is recorded before its interface moves.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from engine.errors import Conflict, EngineError, EngineFailure, InvalidParameter, NotFound
from engine.networks import (
    Endpoint,
    EndpointRequest,
    Network,
    NetworkProvider,
    NetworkSpec,
    PluginInterface,
    Sandbox,
    SandboxRequest,
)
from engine.plugins.addresses import complete_block, free_address
from engine.plugins.catalog import NETWORK, Catalog
from engine.registry.pull import finished

BUILT_IN = ("", "bridge", "host", "none", "null", "overlay", "ingress", "macvlan", "ipvlan")
GENERIC_OPTIONS = "com.docker.network.generic"

logger = logging.getLogger(__name__)


class _Endpoint(msgspec.Struct):
    sandbox: str
    endpoint: Endpoint
    source: str = ""  # of its interface on the host; "" has none
    joined: bool = False


class _Records(msgspec.Struct):
    networks: list[Network] = []
    endpoints: list[_Endpoint] = []


class PluginNetworks:
    """Implements engine.networks.NetworkProvider on top of another one."""

    def __init__(self, inner: NetworkProvider, catalog: Catalog, path: Path) -> None:
        self._inner = inner
        self._catalog = catalog
        self._path = path
        self._changing = asyncio.Lock()
        try:
            self._records = msgspec.json.decode(path.read_bytes(), type=_Records)
        except FileNotFoundError:
            self._records = _Records()
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise EngineFailure(
                f"{path} is damaged: {error}; move it away, and make the networks of plugins anew"
            ) from error

    # ---- networks -----------------------------------------------------------------------------------------

    def networks(self) -> Sequence[Network]:
        return (*self._inner.networks(), *self._records.networks)

    def find(self, ref: str) -> Network:
        for network in self._records.networks:
            if ref in (network.id, network.spec.name):
                return network
        try:
            return self._inner.find(ref)
        except NotFound:
            found = [network for network in self._records.networks if ref and network.id.startswith(ref)]
            if len(found) != 1:
                raise
            return found[0]

    async def create_network(self, spec: NetworkSpec) -> Network:
        if spec.driver in BUILT_IN:
            return await self._inner.create_network(spec)
        async with self._changing:
            if any(network.spec.name == spec.name for network in self.networks()):
                raise Conflict(f"network with name {spec.name} already exists")
            client = await asyncio.to_thread(self._catalog.find, spec.driver, NETWORK)
            spec = msgspec.structs.replace(spec, driver=client.name)
            scope = (await self._call(spec.driver, "GetCapabilities", {})).get("Scope")
            if scope == "global":
                raise InvalidParameter(
                    f'the networks of plugin "{spec.driver}" span hosts, which is not supported: use overlay'
                )
            taken = [block.subnet for network in self.networks() for block in network.spec.ipam]
            block = complete_block(spec.ipam, taken)
            network = Network(
                id=secrets.token_hex(32),
                spec=msgspec.structs.replace(spec, ipam=(block,)),
                created_at=time.time(),
            )
            await self._call(spec.driver, "CreateNetwork", _network_body(network))
            self._records.networks.append(network)
            try:
                await self._save()
            except OSError:
                self._records.networks.remove(network)
                await self._call(spec.driver, "DeleteNetwork", {"NetworkID": network.id})
                raise
            return network

    async def remove_network(self, network_id: str) -> None:
        network = self._own(network_id)
        if network is None:
            await self._inner.remove_network(network_id)
            return
        async with self._changing:
            if any(known.endpoint.network == network_id for known in self._records.endpoints):
                raise Conflict(f"network {network.spec.name} has active endpoints")
            await self._call(network.spec.driver, "DeleteNetwork", {"NetworkID": network_id})
            self._records.networks.remove(network)
            await self._save()

    def users_of_driver(self, driver: str) -> list[str]:
        return [network.spec.name for network in self._records.networks if network.spec.driver == driver]

    # ---- sandboxes ----------------------------------------------------------------------------------------

    def sandbox(self, sandbox_id: str) -> Sandbox | None:
        """Also one whose namespace is gone, as long as a plugin has endpoints for it."""
        inner = self._inner.sandbox(sandbox_id)
        own = tuple(known.endpoint for known in self._of_sandbox(sandbox_id))
        if not own:
            return inner
        if inner is None:
            return Sandbox(id=sandbox_id, netns_path="", endpoints=own)
        return msgspec.structs.replace(inner, endpoints=(*inner.endpoints, *own))

    async def create_sandbox(self, request: SandboxRequest) -> Sandbox:
        own = [wish for wish in request.endpoints if self._own(wish.network) is not None]
        if not own:
            return await self._inner.create_sandbox(request)
        await self._leave_all(request.id)
        others = tuple(wish for wish in request.endpoints if wish not in own)
        if request.publishes and not others:
            raise InvalidParameter(
                "ports cannot be published on the network of a plugin: add a bridge network"
            )
        await self._inner.create_sandbox(msgspec.structs.replace(request, endpoints=others))
        try:
            for wish in own:
                await self.connect(request.id, wish)
        except BaseException:
            await self.remove_sandbox(request.id)
            raise
        made = self.sandbox(request.id)
        assert made is not None, "it was just made"
        return made

    async def remove_sandbox(self, sandbox_id: str) -> None:
        await self._leave_all(sandbox_id)
        await self._inner.remove_sandbox(sandbox_id)

    async def connect(self, sandbox_id: str, request: EndpointRequest) -> Endpoint:
        network = self._own(request.network)
        if network is None:
            return await self._inner.connect(sandbox_id, request)
        sandbox = self._inner.sandbox(sandbox_id)
        if sandbox is None:
            raise NotFound(f"no sandbox {sandbox_id[:12]}")
        async with self._changing:
            known = _Endpoint(sandbox_id, self._new_endpoint(network, request))
            self._records.endpoints.append(known)
            try:
                await self._save()
                await self._join(network, known, sandbox.netns_path)
                await self._save()
            except BaseException:
                await self._leave(known)
                raise
        return known.endpoint

    async def disconnect(self, sandbox_id: str, network_id: str) -> None:
        if self._own(network_id) is None:
            await self._inner.disconnect(sandbox_id, network_id)
            return
        async with self._changing:
            for known in self._of_sandbox(sandbox_id):
                if known.endpoint.network == network_id:
                    await self._leave(known)

    async def adopt(self, sandbox_id: str, wish: PluginInterface) -> str:
        return await self._inner.adopt(sandbox_id, wish)

    async def give_back(self, sandbox_id: str, name: str, source: str) -> None:
        await self._inner.give_back(sandbox_id, name, source)

    # ---- inside -------------------------------------------------------------------------------------------

    def _own(self, network_id: str) -> Network | None:
        return next((network for network in self._records.networks if network.id == network_id), None)

    def _of_sandbox(self, sandbox_id: str) -> list[_Endpoint]:
        return [known for known in self._records.endpoints if known.sandbox == sandbox_id]

    def _new_endpoint(self, network: Network, request: EndpointRequest) -> Endpoint:
        block = network.spec.ipam[0]
        taken = {
            known.endpoint.cidr.partition("/")[0]
            for known in self._records.endpoints
            if known.endpoint.network == network.id
        }
        cidr = request.cidr or free_address(block, taken)
        address = cidr.partition("/")[0]
        if address in taken:
            raise Conflict(f"Address already in use: {address}")
        mac = request.mac or ":".join(
            f"{byte:02x}" for byte in b"\x02\x42" + ipaddress.ip_address(address).packed
        )
        return Endpoint(
            id=secrets.token_hex(32),
            network=network.id,
            network_name=network.spec.name,
            interface="",
            cidr=cidr,
            gateway=block.gateway.partition("/")[0],
            mac=mac,
            aliases=request.aliases,
        )

    async def _join(self, network: Network, known: _Endpoint, netns_path: str) -> None:
        driver, endpoint = network.spec.driver, known.endpoint
        ids = {"NetworkID": network.id, "EndpointID": endpoint.id}
        wish = {"Address": endpoint.cidr, "AddressIPv6": "", "MacAddress": endpoint.mac}
        made = await self._call(driver, "CreateEndpoint", {**ids, "Interface": wish, "Options": {}})
        mac = str((made.get("Interface") or {}).get("MacAddress") or endpoint.mac)
        known.joined = True
        told = await self._call(driver, "Join", {**ids, "SandboxKey": netns_path, "Options": {}})
        names = told.get("InterfaceName") or {}
        known.source = str(names.get("SrcName") or "")
        gateway = str(told.get("Gateway") or "")
        interface = ""
        if known.source:
            await self._save()
            interface = await self._inner.adopt(
                known.sandbox,
                PluginInterface(
                    source=known.source,
                    prefix=str(names.get("DstPrefix") or "eth"),
                    cidr=endpoint.cidr,
                    mac=mac,
                    gateway=gateway,
                    routes=_routes(told.get("StaticRoutes") or ()),
                ),
            )
        known.endpoint = msgspec.structs.replace(endpoint, interface=interface, mac=mac, gateway=gateway)

    async def _leave_all(self, sandbox_id: str) -> None:
        if self._of_sandbox(sandbox_id):
            async with self._changing:
                for known in self._of_sandbox(sandbox_id):
                    await self._leave(known)

    async def _leave(self, known: _Endpoint) -> None:
        """Forgets the endpoint whatever the plugin says: the container has gone."""
        network = self._own(known.endpoint.network)
        ids = {"NetworkID": known.endpoint.network, "EndpointID": known.endpoint.id}
        if known.source and known.endpoint.interface:
            with contextlib.suppress(EngineError):
                await self._inner.give_back(known.sandbox, known.endpoint.interface, known.source)
        if known.joined and network is not None:
            for method in ("Leave", "DeleteEndpoint"):
                try:
                    await self._call(network.spec.driver, method, ids)
                except EngineError as error:
                    logger.warning("network %s: %s", network.spec.name, error)
        if known in self._records.endpoints:
            self._records.endpoints.remove(known)
            await self._save()

    async def _call(self, driver: str, method: str, body: object) -> dict[str, Any]:
        def call() -> dict[str, Any]:
            return self._catalog.find(driver, NETWORK).call(f"NetworkDriver.{method}", body)

        return await finished(asyncio.to_thread(call))

    async def _save(self) -> None:
        await asyncio.to_thread(_write, self._path, msgspec.json.encode(self._records))


def _network_body(network: Network) -> dict[str, Any]:
    spec, block = network.spec, network.spec.ipam[0]
    address = {
        "AddressSpace": "LocalDefault",
        "Pool": block.subnet,
        "Gateway": block.gateway,
        "AuxAddresses": block.aux_addresses,
    }
    options = {GENERIC_OPTIONS: spec.options, "com.docker.network.enable_ipv6": False}
    return {"NetworkID": network.id, "Options": options, "IPv4Data": [address], "IPv6Data": []}


def _routes(told: Sequence[dict[str, Any]]) -> tuple[tuple[str, str], ...]:
    return tuple((str(route["Destination"]), str(route.get("NextHop") or "")) for route in told)


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
