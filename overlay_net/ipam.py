"""Addresses: subnets out of pools, addresses out of subnets. Pure but for the random part of IPv6 subnets.

Invariant: an address is given to one holder at a time, and one that was just released comes last, so that
late packets and caches do not meet a new holder.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TypeAlias

from overlay_net.errors import AddressInUse, InvalidNetwork, SubnetOverlap

LOCAL_POOLS = tuple(f"172.{second}.0.0/16" for second in range(17, 32)) + tuple(
    f"192.168.{third}.0/20" for third in range(0, 256, 16)
)


Subnet: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_subnet(text: str) -> Subnet:
    """InvalidNetwork for anything but a subnet with room for a gateway and an endpoint."""
    try:
        subnet = ipaddress.ip_network(text)
    except ValueError as error:
        raise InvalidNetwork(f"invalid subnet {text}: {error}") from error
    if subnet.max_prefixlen - subnet.prefixlen < 2:
        raise InvalidNetwork(
            f"invalid subnet {text}: it has no room for a gateway and a container; use /{subnet.max_prefixlen - 2} or larger"
        )
    return subnet


def free_subnet(pools: Iterable[str], used: Collection[str]) -> str:
    """The first pool that overlaps with none of `used`. SubnetOverlap when all do."""
    taken = [ipaddress.IPv4Network(text, strict=False) for text in used if ":" not in text]
    for text in pools:
        subnet = ipaddress.IPv4Network(text)
        if not any(subnet.overlaps(other) for other in taken):
            return text
    raise SubnetOverlap(
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network: "
        "give a subnet"
    )


def subnets(pools: Iterable[tuple[str, int]]) -> Iterator[str]:
    """Of each pool (subnet, prefix length) in order; made as they are asked for."""
    for base, size in pools:
        yield from (str(subnet) for subnet in ipaddress.IPv4Network(base).subnets(new_prefix=size))


def local_subnet6() -> str:
    """A unique local /64, random as RFC 4193 wants it."""
    return str(ipaddress.IPv6Network((b"\xfd" + secrets.token_bytes(7) + bytes(8), 64)))


def check_overlap(subnet: str, used: Collection[str]) -> None:
    wanted = ipaddress.ip_network(subnet)
    for text in used:
        other = ipaddress.ip_network(text, strict=False)
        if wanted.version == other.version and wanted.overlaps(other):
            raise SubnetOverlap(f"Pool overlaps with other one on this address space: {subnet} and {text}")


def mac_for(address: str) -> str:
    """02:42 and the four bytes of the address: the same address always has the same hardware address."""
    packed = ipaddress.IPv4Address(address).packed
    return "02:42:" + ":".join(f"{byte:02x}" for byte in packed)


class AddressPool:
    """The addresses of one subnet. `reserved` (gateway, auxiliary ones) are never given out."""

    def __init__(self, subnet: str, ip_range: str = "", reserved: Mapping[str, str] | None = None) -> None:
        self.subnet = parse_subnet(subnet)
        try:
            within = ipaddress.ip_network(ip_range) if ip_range else self.subnet
        except ValueError as error:
            raise InvalidNetwork(f"invalid ip-range {ip_range}: {error}") from error
        if within.version != self.subnet.version or not within.subnet_of(self.subnet):  # type: ignore[arg-type]
            raise InvalidNetwork(f"ip-range {ip_range} is not inside of subnet {subnet}")
        self._first = max(int(within.network_address), int(self.subnet.network_address) + 1)
        # IPv6 has no broadcast address, but the last ones of a subnet may be anycast (RFC 2526).
        self._last = min(int(within.broadcast_address), int(self.subnet.broadcast_address) - 1)
        self._used: set[int] = set()
        for name, address in (reserved or {}).items():
            try:
                self._used.add(int(ipaddress.ip_address(address)))
            except ValueError as error:
                raise InvalidNetwork(f"invalid reserved address {name}={address}: {error}") from error
        self._next = self._first

    def allocate(self, wanted: str = "") -> str:
        """An address with prefix length. AddressInUse when it is taken or none is left."""
        number = self._checked(wanted) if wanted else self._free()
        self._used.add(number)
        return f"{self.subnet.network_address + (number - int(self.subnet.network_address))}/{self.subnet.prefixlen}"

    def take(self, cidr: str) -> None:
        """Remember an address that is in use already."""
        self._used.add(int(ipaddress.ip_interface(cidr).ip))

    def release(self, cidr: str) -> None:
        self._used.discard(int(ipaddress.ip_interface(cidr).ip))

    def _checked(self, wanted: str) -> int:
        try:
            address = ipaddress.ip_interface(wanted).ip
        except ValueError as error:
            raise InvalidNetwork(f"invalid address {wanted}: {error}") from error
        if address not in self.subnet:
            raise InvalidNetwork(f"address {address} is not in subnet {self.subnet}")
        if address in (self.subnet.network_address, self.subnet.broadcast_address):
            raise InvalidNetwork(f"address {address} is the network or broadcast address of {self.subnet}")
        if int(address) in self._used:
            raise AddressInUse(f"Address already in use: {address}")
        return int(address)

    def _free(self) -> int:
        size = self._last - self._first + 1
        for offset in range(size):
            number = self._first + (self._next - self._first + offset) % size
            if number not in self._used:
                self._next = number + 1 if number < self._last else self._first
                return number
        raise AddressInUse(
            f"no available IPv{self.subnet.version} addresses on subnet {self.subnet}: all {size} are in use"
        )
