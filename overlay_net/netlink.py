"""What the kernel has: links, addresses, routes and neighbours of a namespace, read from its dumps.

Takes a connection of rtnl.py, which packs the changes. Layouts: linux/rtnetlink.h, if_link.h, if_addr.h,
neighbour.h. Everything here blocks: call it in worker threads.
"""

from __future__ import annotations

import ipaddress
import socket
import struct

from overlay_net import rtnl
from overlay_net.records import Record
from overlay_net.rtnl import Attributes, Connection

_LINKS, _ADDRESSES, _ROUTES, _NEIGHBOURS = 18, 22, 26, 30
_LINK = struct.Struct("BxHiII")  # family, type, index, flags, changed flags
_ADDRESS = struct.Struct("BBBBI")  # family, prefix length, flags, scope, index
_ROUTE = struct.Struct("BBBBBBBBI")  # family, prefix lengths (2), tos, table, protocol, scope, type, flags
_NEIGHBOUR = struct.Struct("BxxxiHBB")  # family, index, state, flags, type
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 4, 5, 10, 18
_INFO_KIND, _INFO_DATA, _VXLAN_ID, _VXLAN_LOCAL = 1, 2, 1, 4
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _TABLE_MAIN = 1, 254
_NDA_DST, _NDA_LLADDR, _PERMANENT = 1, 2, 0x80
_IFLA_EXT_MASK, _SKIP_STATISTICS = 29, 8
_AF_BRIDGE = 7
_UP = 0x1
_IPV4_BYTES = 4
_EVERY_LINK: dict[int, tuple[bytes, ...]] = {socket.AF_INET: (), socket.AF_INET6: (b"\xfe\x80", b"\xff\x00")}


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


def links(kernel: Connection) -> dict[str, Link]:
    """By name."""
    request = _LINK.pack(0, 0, 0, 0, 0) + rtnl.attribute(_IFLA_EXT_MASK, struct.pack("I", _SKIP_STATISTICS))
    found = {}
    for body in kernel.dump(_LINKS, request, "cannot list devices"):
        _, _, index, flags, _ = _LINK.unpack_from(body)
        link = _link(index, flags, rtnl.attributes_of(body, _LINK.size))
        found[link.name] = link
    return found


def _link(index: int, flags: int, has: Attributes) -> Link:
    information = rtnl.attributes_of(has.get(_IFLA_LINKINFO, b""))
    kind = _text(information.get(_INFO_KIND, b""))
    data = rtnl.attributes_of(information.get(_INFO_DATA, b"")) if kind == "vxlan" else {}
    local = data.get(_VXLAN_LOCAL)
    return Link(
        index=index,
        name=_text(has[_IFLA_IFNAME]),
        kind=kind,
        up=bool(flags & _UP),
        mtu=_number(has.get(_IFLA_MTU)),
        mac=has.get(_IFLA_ADDRESS, b"").hex(":"),
        master=_number(has.get(_IFLA_MASTER)),
        peer=_number(has.get(_IFLA_LINK)) if kind == "veth" else 0,
        vni=_number(data.get(_VXLAN_ID)),
        local=socket.inet_ntoa(local) if local else "",
    )


def addresses(kernel: Connection) -> dict[int, set[str]]:
    """Addresses of both families with their prefix lengths, by the index of the device."""
    found: dict[int, set[str]] = {}
    request = _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    for body in kernel.dump(_ADDRESSES, request, "cannot list addresses"):
        family, length, _, _, index = _ADDRESS.unpack_from(body)
        if family not in (socket.AF_INET, socket.AF_INET6):
            continue
        has = rtnl.attributes_of(body, _ADDRESS.size)
        local = has.get(_IFA_LOCAL) or has[_IFA_ADDRESS]
        found.setdefault(index, set()).add(f"{_unpacked(local)}/{length}")
    return found


def route_subnets(kernel: Connection) -> list[str]:
    """Destinations of the main table, without the default routes; of IPv6 without those of every link."""
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        request = _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        for body in kernel.dump(_ROUTES, request, "cannot list routes"):
            _, length, _, _, table, _, _, _, _ = _ROUTE.unpack_from(body)
            destination = rtnl.attributes_of(body, _ROUTE.size).get(_RTA_DST)
            if table == _TABLE_MAIN and destination and destination[:2] not in _EVERY_LINK[family]:
                found.append(f"{_unpacked(destination)}/{length}")
    return found


def forwarding(kernel: Connection, index: int) -> set[tuple[str, str]]:
    """(hardware address, node) of a VXLAN device's own table."""
    return {(mac, node) for node, mac, _ in _neighbours(kernel, _AF_BRIDGE, index)}


def neighbours(kernel: Connection, index: int) -> set[tuple[str, str]]:
    """(address, hardware address): the permanent ones of a device."""
    found = _neighbours(kernel, socket.AF_INET, index)
    return {(address, mac) for address, mac, state in found if state & _PERMANENT}


def _neighbours(kernel: Connection, family: int, index: int) -> list[tuple[str, str, int]]:
    """(IPv4 address, hardware address, state) of that device's entries which have an address."""
    found = []
    request = _NEIGHBOUR.pack(family, 0, 0, 0, 0)
    for body in kernel.dump(_NEIGHBOURS, request, "cannot list neighbours"):
        _, at, state, _, _ = _NEIGHBOUR.unpack_from(body)
        if at != index:
            continue
        has = rtnl.attributes_of(body, _NEIGHBOUR.size)
        address = has.get(_NDA_DST, b"")
        if len(address) == _IPV4_BYTES:
            found.append((socket.inet_ntoa(address), has.get(_NDA_LLADDR, b"").hex(":"), state))
    return found


def mtu_toward(address: str) -> int:
    """The MTU of the device that has this address; 1500 when none has."""
    with rtnl.connection() as kernel:
        for index, found in addresses(kernel).items():
            if any(cidr.partition("/")[0] == address for cidr in found):
                return next(link.mtu for link in links(kernel).values() if link.index == index)
    return 1500


def delete_link(name: str) -> None:
    """In the namespace of the calling thread; one that is not there is fine."""
    index = rtnl.index_of(name)
    if index is not None:
        with rtnl.connection() as connection:
            connection.send([rtnl.delete_link(index)], f"cannot delete {name}")


def _unpacked(address: bytes) -> str:
    """Not by inet_ntop: pysyncobj puts one of its own into the socket module."""
    return socket.inet_ntoa(address) if len(address) == _IPV4_BYTES else str(ipaddress.IPv6Address(address))


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="surrogateescape")


def _number(data: bytes | None) -> int:
    """Of 4 bytes, in the machine's order; 0 when it is not there."""
    return struct.unpack("I", data)[0] if data else 0
