"""Published ports of this host's bridge networks: elements of the maps of firewall.py.

Owns which port leads where, by address family. Invariant: what is published here and what the kernel has change together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TypeAlias

from overlay_net import firewall, nft
from overlay_net.errors import InvalidNetwork
from overlay_net.firewall import IPV4, IPV6
from overlay_net.namespaces import Workers
from overlay_net.records import Publish, Sandbox

FAMILIES = (IPV4, IPV6)
_LOOPBACK = "::1"
Elements: TypeAlias = dict[tuple[str, str, int], tuple[str, int]]


class PublishedPorts:
    """`publishes`: whether ports can be published on that network. `programming` is held while rules change."""

    def __init__(self, workers: Workers, publishes: Callable[[str], bool]) -> None:
        self._workers = workers
        self._publishes = publishes
        self._elements: dict[str, Elements] = {family: {} for family in FAMILIES}
        self.programming = asyncio.Lock()

    def adopt(self, made: Sandbox) -> None:
        """It runs on from an earlier life of the daemon; the rules are programmed later."""
        for family in FAMILIES:
            self._elements[family] |= self._wanted(made, family)

    def rules(self, family: str) -> str:
        return firewall.publish_elements(self._elements[family], family)

    async def publish(self, made: Sandbox) -> None:
        """InvalidNetwork for a port that no network of the sandbox can have."""
        wanted = {family: self._wanted(made, family) for family in FAMILIES}
        served = {key for elements in wanted.values() for key in elements}
        for port in made.ports:
            if port.host_ip == _LOOPBACK:
                raise InvalidNetwork(
                    f"cannot publish at [{_LOOPBACK}]: the kernel translates nothing there: use 127.0.0.1 or [::]"
                )
            if _key(port) not in served:
                address = f"[{port.host_ip}]:{port.host_port}"
                more = f" with IPv6 addresses: {address} has none" if ":" in port.host_ip else ""
                raise InvalidNetwork(f"ports can only be published on a bridge network{more}")
        await self._change({}, wanted)

    async def unpublish(self, ports: Iterable[Publish]) -> None:
        """KernelRefused when they were gone already."""
        keys = [_key(port) for port in ports]
        await self._change({f: {k: e[k] for k in keys if k in e} for f, e in self._elements.items()}, {})

    async def move(self, before: Sandbox, after: Sandbox) -> None:
        """Its networks have changed: ports follow to another one, or wait for the next."""
        if before.ports:
            old = {family: self._wanted(before, family) for family in FAMILIES}
            new = {family: self._wanted(after, family) for family in FAMILIES}
            if old != new:
                await self._change(old, new)

    async def _change(self, old: dict[str, Elements], new: dict[str, Elements]) -> None:
        async with self.programming:
            rules = ""
            for family in FAMILIES:
                known = self._elements[family]
                gone = {key: known[key] for key in old.get(family, {}) if key in known}
                rules += firewall.publish_elements(gone, family, remove=True)
                rules += firewall.publish_elements(new.get(family, {}), family)
            for family in FAMILIES:
                for key in old.get(family, {}):
                    self._elements[family].pop(key, None)
            if rules:
                await self._workers.run(nft.apply, rules)
            for family in FAMILIES:
                self._elements[family] |= new.get(family, {})

    def _wanted(self, made: Sandbox, family: str) -> Elements:
        """Through the first of its networks that leads outside and has such addresses, or else any."""
        ports = [port for port in made.ports if _is_of(port, family)]
        having = [
            (endpoint, cidr)
            for endpoint in made.endpoints
            if self._publishes(endpoint.network)
            and (cidr := endpoint.cidr if family == IPV4 else endpoint.cidr6)
        ]
        having.sort(key=lambda each: (not each[0].gateway, -each[0].priority))
        if not ports or not having:
            return {}
        address = having[0][1].partition("/")[0]
        return {_key(port): (address, port.container_port) for port in ports}


def _is_of(port: Publish, family: str) -> bool:
    return not port.host_ip or (":" in port.host_ip) == (family == IPV6)


def _key(port: Publish) -> tuple[str, str, int]:
    return port.host_ip, port.protocol, port.host_port
