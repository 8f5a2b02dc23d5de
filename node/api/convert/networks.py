"""Networks, both ways, and what of a network is refused."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from typing import Any

from engine.config import Ipam, IpamPool, NetworkCreate
from node.api.convert.times import rfc3339
from raft.errors import InvalidArgument
from raft.objects.base import Annotations, Driver
from raft.objects.cluster import IpamConfig, Network, NetworkSpec

_RESERVED_OPTIONS = "com.docker.network.driver.overlay.vxlanid_list"
SUBNET_SIZE_MAX = 29
SUBNET_SIZE_DEFAULT = 24


def check_address_pools(pools: Sequence[str], subnet_size: int) -> None:
    """DefaultAddrPool and SubnetSize (0: the default) of a new cluster."""
    if subnet_size and not 8 <= subnet_size <= SUBNET_SIZE_MAX:
        raise InvalidArgument(f"SubnetSize: subnet size is out of range: {subnet_size}")
    known: list[ipaddress.IPv4Network] = []
    for text in pools:
        try:
            pool = ipaddress.IPv4Network(text, strict=False)
        except ValueError as error:
            raise InvalidArgument(f"DefaultAddrPool: invalid base pool {text}: {error}") from error
        for other in known:
            if pool.overlaps(other):
                raise InvalidArgument(f"DefaultAddrPool: invalid base pool {text}: it overlaps with {other}")
        if pool.prefixlen > (subnet_size or SUBNET_SIZE_DEFAULT):
            raise InvalidArgument(f'invalid CIDR: "{text}". Subnet size is too small for pool: {subnet_size}')
        known.append(pool)


def network_to_api(network: Network) -> dict[str, Any]:
    """The shape of GET /networks/{id}, for a network of the cluster."""
    spec = network.spec
    options = dict(spec.driver.options)
    if network.vni:
        options[_RESERVED_OPTIONS] = str(network.vni)
    return {
        "Name": spec.annotations.name,
        "Id": network.id,
        "Created": rfc3339(network.meta.created_at),
        "Scope": "swarm",
        "Driver": spec.driver.name or "overlay",
        "EnableIPv4": True,
        "EnableIPv6": spec.ipv6,
        "IPAM": {
            "Driver": "default",
            "Options": None,
            "Config": [
                {"Subnet": c.subnet, "Gateway": c.gateway, **({"IPRange": c.ip_range} if c.ip_range else {})}
                for c in network.ipam or spec.ipam
            ],
        },
        "Internal": spec.internal,
        "Attachable": spec.attachable,
        "Ingress": spec.ingress,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": None,
        "Options": options,
        "Labels": spec.annotations.labels,
    }


def check_local_network(body: NetworkCreate) -> None:
    """InvalidArgument names what no network has here."""
    _refuse_network(body, ("Ingress", body.ingress))
    problems = [problem for pool in _pools(body) for problem in _pool_problems(pool)]
    if problems:
        raise InvalidArgument("invalid network config: " + "; ".join(problems))


def _refuse_network(body: NetworkCreate, *more: tuple[str, bool]) -> None:
    ipam = body.ipam or Ipam()
    for name, given in (
        ("EnableIPv4=false", body.enable_ipv4 is False),
        ("IPAM.Driver", ipam.driver not in ("", "default")),
        ("IPAM.Options", bool(ipam.options)),
        *more,
    ):
        if given:
            raise InvalidArgument(
                f"{name} is not supported yet for {body.driver or 'bridge'} networks: leave it out"
            )


def network_spec_from_api(body: NetworkCreate) -> NetworkSpec:
    pools = _pools(body)
    auxiliary = any(pool.auxiliary_addresses for pool in pools)
    taken_from = bool(body.config_from and body.config_from.network)
    _refuse_network(
        body,
        ("IPAM.Config.AuxiliaryAddresses", auxiliary),
        ("ConfigOnly", body.config_only),
        ("ConfigFrom", taken_from),
    )
    return NetworkSpec(
        annotations=Annotations(name=body.name, labels=body.labels or {}),
        driver=Driver(name=body.driver or "overlay", options=body.options or {}),
        ipam=tuple(IpamConfig(subnet=p.subnet, ip_range=p.ip_range, gateway=p.gateway) for p in pools),
        internal=body.internal,
        attachable=body.attachable,
        ingress=body.ingress,
        ipv6=body.enable_ipv6,
    )


def _pools(body: NetworkCreate) -> list[IpamPool]:
    return (body.ipam.config if body.ipam else None) or []


def _pool_problems(pool: IpamPool) -> Iterator[str]:
    """In Docker's words (moby: api/types/network/ipam.go)."""
    inside = {
        "ip-range": pool.ip_range,
        "gateway": pool.gateway,
        **{f"auxiliary address {name}": value for name, value in (pool.auxiliary_addresses or {}).items()},
    }
    if not pool.subnet:
        for word, value in inside.items():
            if value:
                yield f"invalid {word} {value}: there is no subnet"
        return
    try:
        subnet = ipaddress.ip_network(pool.subnet, strict=False)
    except ValueError:
        yield f"invalid subnet {pool.subnet}: invalid CIDR block notation"
        return
    if str(subnet) != pool.subnet and "/" in pool.subnet and subnet.version == 4:
        yield f"invalid subnet {pool.subnet}: it should be {subnet}"
    for word, value in inside.items():
        if not value:
            continue
        try:
            inner = ipaddress.ip_network(value, strict=False)
        except ValueError:
            yield f"invalid {word} {value}: it is no address"
            continue
        if inner.version != subnet.version or not inner.subnet_of(subnet):  # type: ignore[arg-type]
            yield f"invalid {word} {value}: parent subnet {subnet} doesn't contain this address"
