"""What a user wishes of a container's place in one network, checked and as a request to the data plane. Pure.

Source: Docker Engine API, EndpointSettings; driver options: docs.docker.com/reference/cli/docker/network/connect.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

from engine.config import EndpointConfig, EndpointIpam
from engine.errors import InvalidParameter
from engine.networks import EndpointRequest, Network, NetworkProvider

IFNAME = "com.docker.network.endpoint.ifname"
SYSCTLS = "com.docker.network.endpoint.sysctls"
_INTERFACE = re.compile(r"[^\s/:%]{1,15}")
_SYSCTL = re.compile(r"net\.(ipv4|ipv6|mpls)\.\w+\.IFNAME\.\w+", re.ASCII)
_LINK_LOCAL_BITS = {4: 16, 6: 64}


def check_endpoint(network: str, wish: EndpointConfig) -> None:
    """InvalidParameter for what no network of this engine can give."""
    _interface(wish.driver_opts or {})
    _sysctls(wish.driver_opts or {})
    for name in wish.driver_opts or {}:
        if name not in (IFNAME, SYSCTLS):
            raise InvalidParameter(
                f"EndpointsConfig[{network}].DriverOpts: {name} is not supported by this engine: leave it out"
            )
    ipam = wish.ipam_config or EndpointIpam()
    _given(ipam.ipv4_address, 4)
    _given(ipam.ipv6_address, 6)
    _link_local(ipam)


def endpoint_request(network_id: str, wish: EndpointConfig, provider: NetworkProvider) -> EndpointRequest:
    """A user's wish for one network as a request. A bare address gets the prefix length of its subnet."""
    network, ipam, options = (
        provider.find(network_id),
        wish.ipam_config or EndpointIpam(),
        wish.driver_opts or {},
    )
    return EndpointRequest(
        network=network_id,
        cidr=_within(network, _given(ipam.ipv4_address, 4)),
        cidr6=_within(network, _given(ipam.ipv6_address, 6)),
        link_local=_link_local(ipam),
        mac=wish.mac_address,
        aliases=tuple(wish.aliases or ()),
        interface=_interface(options),
        sysctls=_sysctls(options),
        priority=wish.gw_priority,
    )


def _given(text: str, version: int) -> str:
    if not text:
        return ""
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise InvalidParameter(f"invalid IPv{version} address: {text}") from error
    if address.version != version:
        raise InvalidParameter(f"invalid IPv{version} address: {text}")
    return str(address)


def _within(network: Network, address: str) -> str:
    if not address:
        return ""
    wanted = ipaddress.ip_address(address)
    subnets = [ipaddress.ip_network(block.subnet) for block in network.spec.ipam if block.subnet]
    home = next((subnet for subnet in subnets if wanted in subnet), None)
    if home is None:
        raise InvalidParameter(
            f"invalid config for network {network.spec.name}: no configured subnet contains IP address {address}"
        )
    return f"{address}/{home.prefixlen}"


def _link_local(ipam: EndpointIpam) -> tuple[str, ...]:
    found = []
    for text in ipam.link_local_ips or ():
        try:
            address = ipaddress.ip_address(text)
        except ValueError as error:
            raise InvalidParameter(f"invalid link-local IP address: {text}") from error
        if address.is_multicast or not address.is_link_local:
            raise InvalidParameter(f"invalid link-local IP address: {text}: use 169.254.0.0/16 or fe80::/10")
        found.append(f"{address}/{_LINK_LOCAL_BITS[address.version]}")
    return tuple(found)


def _interface(options: Mapping[str, str]) -> str:
    name = options.get(IFNAME, "")
    if name and (not _INTERFACE.fullmatch(name) or name in (".", "..", "lo", "all", "default")):
        raise InvalidParameter(
            f"invalid {IFNAME}: {name!r}: 1 to 15 characters, no space, /, : or %, and not lo"
        )
    return name


def _sysctls(options: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """`net.ipv4.conf.IFNAME.log_martians=1,...`"""
    found = []
    for entry in filter(None, options.get(SYSCTLS, "").split(",")):
        name, separator, value = entry.partition("=")
        if not separator or not _SYSCTL.fullmatch(name):
            raise InvalidParameter(
                f"invalid {SYSCTLS}: {entry!r}: such as net.ipv4.conf.IFNAME.log_martians=1"
            )
        found.append((name, value))
    return tuple(found)
