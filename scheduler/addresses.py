"""Address arithmetic of the allocator: free subnets of the pools, free addresses of a subnet.

Owns numbers only; which object holds an address is the allocator's knowledge. Addresses are handed out
upwards from the highest one in use and from the start again at the end, so that a freed address rests.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from raft.objects.cluster import IpamConfig


class Subnet:
    """The addresses of one network. Never hands out the network, broadcast or gateway address."""

    def __init__(self, config: IpamConfig) -> None:
        network = ipaddress.ip_network(config.subnet)
        block = ipaddress.ip_network(config.ip_range) if config.ip_range else network
        self._v4 = network.version == 4
        self.prefix_length = network.prefixlen
        self._first = max(int(block.network_address), int(network.network_address) + 1)
        self._last = min(int(block.broadcast_address), int(network.broadcast_address) - 1)
        gateway = _number(config.gateway) if config.gateway else 0
        self._used = {gateway} if gateway else set()
        self._next = self._first
        self._is_full = False
        # Addresses that can be given to tasks, virtual addresses and nodes, used or not.
        self.size = self._last - self._first + 1 - (self._first <= gateway <= self._last)

    def reserve(self, address: str) -> bool:
        """Note an address that an object holds; False when another one holds it already."""
        number = _number(address)
        if number in self._used:
            return False
        self._used.add(number)
        if self._first <= number <= self._last:
            self._next = max(self._next, number + 1)
        return True

    def take(self) -> str:
        """A free address with prefix length, or "" when there is none."""
        number = self._free(self._next, self._last) or self._free(self._first, self._next - 1)
        if number is None:
            return ""
        self._used.add(number)
        self._next = number + 1
        return f"{_text(number, self._v4)}/{self.prefix_length}"

    def has_room(self) -> bool:
        if self._is_full:
            return False  # looked for once is enough: thousands of tasks may wait for this network
        free = self._free(self._next, self._last) or self._free(self._first, self._next - 1)
        self._is_full = free is None
        return not self._is_full

    def _free(self, first: int, last: int) -> int | None:
        number = first
        while number <= last:
            if number not in self._used:
                return number
            number += 1
        return None


def mac_of(address: str) -> str:
    """A locally administered MAC made from the address: no two endpoints of a network share one."""
    low = (_number(address) & 0xFFFFFFFF).to_bytes(4, "big")
    return "02:42:" + ":".join(f"{byte:02x}" for byte in low)


def with_gateway(config: IpamConfig) -> IpamConfig:
    """The configuration with the first host address as gateway, if it names none."""
    if config.gateway:
        return config
    network = ipaddress.ip_network(config.subnet)
    gateway = str(network.network_address + 1)
    return IpamConfig(subnet=config.subnet, ip_range=config.ip_range, gateway=gateway)


def overlaps(subnet: str, others: Iterable[str]) -> str:
    """The first of `others` that shares addresses with `subnet`, or ""."""
    network = ipaddress.ip_network(subnet)
    for other in others:
        if network.overlaps(ipaddress.ip_network(other)):
            return other
    return ""


def free_subnet(pools: Iterable[str], prefix_length: int, used: Iterable[str]) -> str:
    """The lowest subnet of that size in the pools that overlaps no used one, or ""."""
    taken = sorted(_bounds(subnet) for subnet in used)
    for pool in pools:
        network = ipaddress.ip_network(pool)
        step = 1 << (network.max_prefixlen - prefix_length)
        start, end = int(network.network_address), int(network.broadcast_address)
        for low, high in taken:
            if high < start or low > start + step - 1:
                continue
            # Jump to the first aligned block behind the one in the way.
            start = (high // step + 1) * step
        if start + step - 1 <= end:
            return f"{_text(start, network.version == 4)}/{prefix_length}"
    return ""


def subnet_count(pools: Iterable[str], prefix_length: int) -> int:
    """How many subnets of that size the pools have."""
    return sum(1 << max(0, prefix_length - ipaddress.ip_network(pool).prefixlen) for pool in pools)


def bare(address: str) -> str:
    """Without the prefix length."""
    return address.partition("/")[0]


def _bounds(subnet: str) -> tuple[int, int]:
    network = ipaddress.ip_network(subnet)
    return int(network.network_address), int(network.broadcast_address)


def _number(address: str) -> int:
    text = bare(address)
    if "." in text:
        # An order of magnitude quicker than ipaddress, and this runs for every address of every pass.
        a, b, c, d = text.split(".")
        return int(a) << 24 | int(b) << 16 | int(c) << 8 | int(d)
    return int(ipaddress.IPv6Address(text))


def _text(number: int, v4: bool) -> str:
    if v4:
        return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return str(ipaddress.IPv6Address(number))
