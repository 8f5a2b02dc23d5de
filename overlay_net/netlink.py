"""What the kernel has: links, addresses, routes and neighbours of a namespace, read through pyroute2.

Changes that every container start makes are in rtnl.py. Everything here blocks: call it in worker threads.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from overlay_net import rtnl
from overlay_net.errors import KernelRefused
from overlay_net.namespaces import inside
from overlay_net.records import Record

_AF_BRIDGE = 7
_UP = 0x1
_PERMANENT = 0x80

Route: TypeAlias = Any  # the library is not typed


class Link(Record, frozen=True):
    """One device. `peer`: index of the other end of a veth, 0 for other kinds. `vni`, `local`: of a VXLAN."""

    index: int
    name: str
    kind: str
    up: bool
    mtu: int
    mac: str
    master: int
    peer: int
    vni: int
    local: str


@contextlib.contextmanager
def route(path: str | Path | None = None) -> Iterator[Route]:
    """A connection of the library in that namespace. KernelRefused for what the kernel refuses."""
    with inside(path):
        try:
            with IPRoute() as connection:
                yield connection
        except NetlinkError as error:
            reason = os.strerror(error.code)
            raise KernelRefused(f"the kernel refused a network change: {reason}", error.code) from error


def links(ip: Route) -> dict[str, Link]:
    """By name."""
    found = {}
    for entry in ip.get_links():
        information = entry.get_attr("IFLA_LINKINFO")
        kind = (information.get_attr("IFLA_INFO_KIND") if information else "") or ""
        data = information.get_attr("IFLA_INFO_DATA") if kind == "vxlan" else None
        name = str(entry.get_attr("IFLA_IFNAME"))
        found[name] = Link(
            index=entry["index"],
            name=name,
            kind=kind,
            up=bool(entry["flags"] & _UP),
            mtu=int(entry.get_attr("IFLA_MTU")),
            mac=str(entry.get_attr("IFLA_ADDRESS") or ""),
            master=int(entry.get_attr("IFLA_MASTER") or 0),
            peer=int(entry.get_attr("IFLA_LINK") or 0) if kind == "veth" else 0,
            vni=int(data.get_attr("IFLA_VXLAN_ID") or 0) if data else 0,
            local=str(data.get_attr("IFLA_VXLAN_LOCAL") or "") if data else "",
        )
    return found


def addresses(ip: Route) -> dict[int, set[str]]:
    """IPv4 addresses with their prefix lengths, by the index of the device."""
    found: dict[int, set[str]] = {}
    for entry in ip.get_addr(family=socket.AF_INET):
        local = entry.get_attr("IFA_LOCAL") or entry.get_attr("IFA_ADDRESS")
        found.setdefault(entry["index"], set()).add(f"{local}/{entry['prefixlen']}")
    return found


def route_subnets(ip: Route) -> list[str]:
    """Destinations of the main table, without the default route."""
    found = []
    for entry in ip.get_routes(family=socket.AF_INET, table=254):
        destination = entry.get_attr("RTA_DST")
        if destination:
            found.append(f"{destination}/{entry['dst_len']}")
    return found


def forwarding(ip: Route, index: int) -> set[tuple[str, str]]:
    """(hardware address, node) of a VXLAN device's own table."""
    return {
        (str(entry.get_attr("NDA_LLADDR")), str(entry.get_attr("NDA_DST")))
        for entry in ip.get_neighbours(family=_AF_BRIDGE, ifindex=index)
        if entry["ifindex"] == index and entry.get_attr("NDA_DST")
    }


def neighbours(ip: Route, index: int) -> set[tuple[str, str]]:
    """(address, hardware address): the permanent ones of a device."""
    return {
        (str(entry.get_attr("NDA_DST")), str(entry.get_attr("NDA_LLADDR")))
        for entry in ip.get_neighbours(family=socket.AF_INET, ifindex=index)
        if entry["ifindex"] == index and entry["state"] & _PERMANENT
    }


def mtu_toward(address: str) -> int:
    """The MTU of the device that has this address; 1500 when none has."""
    with route() as ip:
        for index, found in addresses(ip).items():
            if any(cidr.partition("/")[0] == address for cidr in found):
                return next(link.mtu for link in links(ip).values() if link.index == index)
    return 1500


def delete_link(name: str) -> None:
    """In the namespace of the calling thread; one that is not there is fine."""
    index = rtnl.index_of(name)
    if index is not None:
        with rtnl.connection() as connection:
            connection.send([rtnl.delete_link(index)], f"cannot delete {name}")
