"""Subnets and addresses for the networks of plugins, chosen as for bridge networks. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator

from engine.errors import Conflict, InvalidParameter
from engine.networks import IpamBlock

_POOLS = (("172.16.0.0/12", 16), ("192.168.0.0/16", 20))


def complete_block(blocks: Collection[IpamBlock], taken: Iterable[str]) -> IpamBlock:
    """One subnet with a gateway: the one that was asked for, or the first that overlaps none of `taken`."""
    if len(blocks) > 1:
        raise InvalidParameter("networks of plugins have one subnet: give one")
    block = next(iter(blocks), IpamBlock(subnet=""))
    others = [ipaddress.ip_network(subnet, strict=False) for subnet in taken if subnet]
    if block.subnet:
        subnet = ipaddress.ip_network(block.subnet, strict=False)
        if subnet.version != 4:
            raise InvalidParameter(f"networks of plugins have IPv4 subnets only: {block.subnet}")
    else:
        free = (each for each in _subnets() if not any(each.overlaps(other) for other in others))
        chosen = next(free, None)
        if chosen is None:
            raise Conflict("could not find an available, non-overlapping IPv4 address pool: give --subnet")
        subnet = chosen
    gateway = block.gateway.partition("/")[0] or str(next(iter(subnet.hosts())))
    return IpamBlock(
        subnet=str(subnet),
        gateway=f"{gateway}/{subnet.prefixlen}",
        ip_range=block.ip_range,
        aux_addresses=block.aux_addresses,
    )


def free_address(block: IpamBlock, taken: Collection[str]) -> str:
    """With its prefix length. Conflict when there is none left."""
    subnet = ipaddress.ip_network(block.subnet)
    used = {*taken, block.gateway.partition("/")[0], *block.aux_addresses.values()}
    for host in ipaddress.ip_network(block.ip_range or block.subnet, strict=False).hosts():
        if str(host) not in used:
            return f"{host}/{subnet.prefixlen}"
    raise Conflict(f"no available IPv4 addresses on this network's address pool {block.subnet}")


def _subnets() -> Iterator[ipaddress.IPv4Network]:
    for pool, length in _POOLS:
        yield from ipaddress.IPv4Network(pool).subnets(new_prefix=length)
