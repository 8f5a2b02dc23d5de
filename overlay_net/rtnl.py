"""Connections to the kernel's network, and the changes to links, addresses, routes and neighbours.

Packed by hand: a library's objects cost half a millisecond per message, which a container start feels.
Message functions return bytes for `Connection.send`. Layouts: linux/netlink.h, rtnetlink.h,
if_link.h, if_addr.h, neighbour.h. What is there is read in netlink.py.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from overlay_net.errors import KernelRefused
from overlay_net.namespaces import inside

_NEWLINK, _DELLINK, _NEWADDR, _NEWROUTE, _NEWNEIGH, _DELNEIGH, _NEWRULE = 16, 17, 20, 24, 28, 29, 32
_REQUEST, _ACK, _REPLACE, _EXCL, _CREATE = 0x1, 0x4, 0x100, 0x200, 0x400
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 1, 3, 4, 10, 18, 28
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_VXLAN_ID, _VXLAN_LOCAL, _VXLAN_LEARNING, _VXLAN_PROXY, _VXLAN_PORT = 1, 4, 7, 11, 15
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _ONLINK = 1, 4, 5, 4
_FRA_PRIORITY, _FRA_FWMARK, _FRA_FWMASK, _TO_TABLE = 6, 10, 16, 1
_NDA_DST, _NDA_LLADDR = 1, 2
_TABLE_MAIN, _PROTOCOL_BOOT, _SCOPE_UNIVERSE, _UNICAST, _SCOPE_LINK = 254, 3, 0, 1, 253
_PERMANENT, _SELF = 0x80, 0x02
_UP = 0x1
_AF_BRIDGE = 7
_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_ERROR, _DONE = 2, 3
_DUMP, _DUMP_INTERRUPTED = 0x300, 0x10
_DUMP_ATTEMPTS = 10
_NESTED_BITS = 0xC000  # of an attribute's kind: "nested" and "network byte order"
_HEADER = struct.Struct("IHHII")  # length, kind, flags, sequence number, port
_EXT_ACK_MESSAGE = 1
_BATCH = 64
_READ_BYTES = 65536
_ANSWER_S = 30  # the kernel answers at once; one that does not must not hold a thread for ever
_IFLA_LINK, _MACVLAN_MODE, _VLAN_ID, _SLAVE_KIND, _SLAVE_DATA, _PORT_ISOLATED = 5, 1, 1, 4, 5, 33
_MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
_NO_DUPLICATE_CHECK = 0x02  # else an IPv6 address cannot be used for a second

Attributes: TypeAlias = dict[int, bytes]  # values by kind


class Connection:
    """A netlink socket of the namespace that the calling thread is in."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        for option in (_CAP_ACK, _EXT_ACK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._socket.settimeout(_ANSWER_S)
        self._socket.bind((0, 0))

    def close(self) -> None:
        self._socket.close()

    def send(self, messages: Sequence[bytes], what: str, *, ignore: Collection[int] = ()) -> None:
        """All messages in order, every acknowledgement read.

        KernelRefused, beginning with `what`, for the first error that is not among `ignore` (errno numbers);
        the messages after it in its batch of 64 have been tried as well.
        """
        for start in range(0, len(messages), _BATCH):
            batch = messages[start : start + _BATCH]
            self._socket.send(b"".join(batch))
            failure = None
            for code, reason in self._acknowledgements(len(batch)):
                if code and code not in ignore and failure is None:
                    failure = KernelRefused(f"{what}: {reason or os.strerror(code)}", code)
            if failure is not None:
                raise failure

    def dump(self, kind: int, request: bytes, what: str) -> list[bytes]:
        """The kernel's whole list of a kind: what follows the header of each message of its answer.

        A list that changed while it was read is read again. KernelRefused, beginning with `what`.
        """
        message = _HEADER.pack(_HEADER.size + len(request), kind, _REQUEST | _DUMP, 0, 0) + request
        for _ in range(_DUMP_ATTEMPTS):
            self._socket.send(message)
            bodies, complete = self._dumped(what)
            if complete:
                return bodies
        raise KernelRefused(f"{what}: they change all the time")

    def _dumped(self, what: str) -> tuple[list[bytes], bool]:
        """One answer to its end; whether nothing changed meanwhile."""
        bodies: list[bytes] = []
        complete = True
        while True:
            for kind, flags, body in self._messages():
                complete = complete and not flags & _DUMP_INTERRUPTED
                if kind in (_ERROR, _DONE):
                    code = -int.from_bytes(body[:4], sys.byteorder, signed=True)
                    if code:
                        raise KernelRefused(f"{what}: {os.strerror(code)}", code)
                    return bodies, complete
                bodies.append(body)

    def _acknowledgements(self, count: int) -> Iterator[tuple[int, str]]:
        while count:
            for kind, _, body in self._messages():
                if kind == _ERROR:
                    (code,) = struct.unpack_from("i", body)
                    count -= 1
                    yield -code, _reason(body[20:])

    def _messages(self) -> Iterator[tuple[int, int, bytes]]:
        """(kind, flags, what follows the header) of what one read returns."""
        try:
            data = self._socket.recv(_READ_BYTES)
        except TimeoutError as error:
            raise KernelRefused(f"the kernel's network gave no answer within {_ANSWER_S} s") from error
        offset = 0
        while offset < len(data):
            length, kind, flags, _, _ = _HEADER.unpack_from(data, offset)
            yield kind, flags, data[offset + _HEADER.size : offset + length]
            offset += (length + 3) & ~3


@contextlib.contextmanager
def connection(path: str | Path | None = None) -> Iterator[Connection]:
    """A connection in that namespace, with the calling thread inside for the duration."""
    with inside(path):
        opened = Connection()
        try:
            yield opened
        finally:
            opened.close()


def index_of(name: str) -> int | None:
    """The index of a device of the namespace that the calling thread is in."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None


# ---- messages ---------------------------------------------------------------------------------------------


def new_bridge(name: str, *, mtu: int, mac: str = "", index: int = 0, namespace: int | None = None) -> bytes:
    """Up. `index` 0: the kernel chooses; `namespace`: descriptor of the one to make it in."""
    attributes = _name(name) + attribute(_IFLA_MTU, _u32(mtu)) + _in_namespace(namespace)
    attributes += _fixed_address(mac)
    return _new_link(index, attributes + _kind("bridge"))


def new_vxlan(
    name: str, *, vni: int, local: str, port: int, mtu: int, master: int, namespace: int | None = None
) -> bytes:
    """On that bridge and up; learns nothing and answers ARP itself.

    Its packets travel in the namespace of the connection, though it may be made in another one: moving it
    there later would cost ten times as much.
    """
    data = attribute(_VXLAN_ID, _u32(vni)) + attribute(_VXLAN_LOCAL, socket.inet_aton(local))
    data += attribute(_VXLAN_LEARNING, b"\0") + attribute(_VXLAN_PROXY, b"\1")
    data += attribute(_VXLAN_PORT, struct.pack(">H", port))
    attributes = _name(name) + attribute(_IFLA_MTU, _u32(mtu)) + attribute(_IFLA_MASTER, _u32(master))
    attributes += _fixed_address()
    return _new_link(0, attributes + _in_namespace(namespace) + _kind("vxlan", data))


def new_veth(name: str, *, master: int, mtu: int, peer: str, peer_namespace: int, peer_mac: str) -> bytes:
    """One end up on the bridge, the other down in the namespace of that descriptor."""
    inner = struct.pack("BxHiII", 0, 0, 0, 0, 0) + _name(peer)
    inner += attribute(_IFLA_MTU, _u32(mtu)) + attribute(_IFLA_ADDRESS, _mac(peer_mac))
    inner += _in_namespace(peer_namespace)
    attributes = _name(name) + attribute(_IFLA_MTU, _u32(mtu)) + attribute(_IFLA_MASTER, _u32(master))
    attributes += _fixed_address()
    return _new_link(0, attributes + _kind("veth", attribute(_VETH_PEER, inner)))


def new_macvlan(name: str, *, parent: int, mode: str, mac: str, mtu: int, namespace: int) -> bytes:
    """Down, in the namespace of that descriptor. The parent's own address is the only one for passthru."""
    attributes = _name(name) + attribute(_IFLA_LINK, _u32(parent)) + _in_namespace(namespace)
    attributes += attribute(_IFLA_MTU, _u32(mtu)) if mtu else b""
    attributes += attribute(_IFLA_ADDRESS, _mac(mac)) if mac else b""
    data = attribute(_MACVLAN_MODE, _u32(_MACVLAN_MODES[mode]))
    header = struct.pack("BxHiII", 0, 0, 0, 0, 0)
    return _message(_NEWLINK, _CREATE | _EXCL, header + attributes + _kind("macvlan", data))


def new_vlan(name: str, *, parent: int, vlan: int) -> bytes:
    attributes = _name(name) + attribute(_IFLA_LINK, _u32(parent))
    return _new_link(0, attributes + _kind("vlan", attribute(_VLAN_ID, struct.pack("H", vlan))))


def new_dummy(name: str) -> bytes:
    return _new_link(0, _name(name) + _fixed_address() + _kind("dummy"))


def isolate_port(index: int) -> bytes:
    """A port of a bridge that hears of no other isolated port, only of the bridge itself."""
    data = attribute(_PORT_ISOLATED, b"\1")
    inner = attribute(_SLAVE_KIND, b"bridge") + attribute(_SLAVE_DATA, data)
    header = struct.pack("BxHiII", 0, 0, index, 0, 0)
    return _message(_NEWLINK, 0, header + attribute(_IFLA_LINKINFO, inner))


def set_link(index: int, *, up: bool = True, master: int | None = None, mtu: int | None = None) -> bytes:
    attributes = b"" if master is None else attribute(_IFLA_MASTER, _u32(master))
    attributes += b"" if mtu is None else attribute(_IFLA_MTU, _u32(mtu))
    flags = _UP if up else 0
    return _message(_NEWLINK, 0, struct.pack("BxHiII", 0, 0, index, flags, _UP) + attributes)


def move_link(index: int, namespace: int, name: str = "") -> bytes:
    """Into the namespace of that descriptor, there with that name."""
    attributes = _in_namespace(namespace) + (_name(name) if name else b"")
    return _message(_NEWLINK, 0, struct.pack("BxHiII", 0, 0, index, 0, 0) + attributes)


def rename_link(index: int, name: str) -> bytes:
    """One that is down."""
    return _message(_NEWLINK, 0, struct.pack("BxHiII", 0, 0, index, 0, 0) + _name(name))


def set_address(index: int, mac: str) -> bytes:
    attributes = attribute(_IFLA_ADDRESS, _mac(mac))
    return _message(_NEWLINK, 0, struct.pack("BxHiII", 0, 0, index, 0, 0) + attributes)


def delete_link(index: int) -> bytes:
    return _message(_DELLINK, 0, struct.pack("BxHiII", 0, 0, index, 0, 0))


def new_address(index: int, cidr: str) -> bytes:
    """Replaces nothing: EEXIST when the device has it."""
    text, _, prefix = cidr.partition("/")
    family, address = _address(text)
    length, flags = int(prefix), 0
    attributes = attribute(_IFA_LOCAL, address) + attribute(_IFA_ADDRESS, address)
    if family == socket.AF_INET6:
        flags = _NO_DUPLICATE_CHECK
    elif length < 31:
        host_bits = (1 << (32 - length)) - 1
        broadcast = struct.pack(">I", struct.unpack(">I", address)[0] | host_bits)
        attributes += attribute(_IFA_BROADCAST, broadcast)
    body = struct.pack("BBBBI", family, length, flags, _SCOPE_UNIVERSE, index)
    return _message(_NEWADDR, _CREATE | _EXCL, body + attributes)


def default_route(gateway: str, *, index: int = 0, table: int = _TABLE_MAIN, onlink: bool = False) -> bytes:
    """`index`: of the device, 0 when the gateway's subnet tells; `onlink`: the gateway needs no subnet."""
    flags = _ONLINK if onlink else 0
    family, address = _address(gateway)
    body = struct.pack("BBBBBBBBI", family, 0, 0, 0, table, _PROTOCOL_BOOT, _SCOPE_UNIVERSE, _UNICAST, flags)
    attributes = attribute(_RTA_GATEWAY, address)
    attributes += attribute(_RTA_OIF, _u32(index)) if index else b""
    return _message(_NEWROUTE, _CREATE | _REPLACE, body + attributes)


def route(destination: str, gateway: str, index: int) -> bytes:
    """To a subnet; without a gateway it is on the link."""
    text, _, prefix = destination.partition("/")
    family, address = _address(text)
    scope = _SCOPE_UNIVERSE if gateway else _SCOPE_LINK
    length = int(prefix or 8 * len(address))
    body = struct.pack("BBBBBBBBI", family, length, 0, 0, _TABLE_MAIN, _PROTOCOL_BOOT, scope, _UNICAST, 0)
    attributes = attribute(_RTA_DST, address) + attribute(_RTA_OIF, _u32(index))
    attributes += attribute(_RTA_GATEWAY, _address(gateway)[1]) if gateway else b""
    return _message(_NEWROUTE, _CREATE | _REPLACE, body + attributes)


def mark_rule(mark: int, mask: int, table: int, priority: int) -> bytes:
    """Packets with that mark are routed by that table. EEXIST when the rule is there."""
    body = struct.pack("BBBBBBBBI", socket.AF_INET, 0, 0, 0, table, 0, 0, _TO_TABLE, 0)
    attributes = attribute(_FRA_PRIORITY, _u32(priority)) + attribute(_FRA_FWMARK, _u32(mark))
    attributes += attribute(_FRA_FWMASK, _u32(mask))
    return _message(_NEWRULE, _CREATE | _EXCL, body + attributes)


def forwarding(index: int, entries: Iterable[tuple[str, str]], *, remove: bool = False) -> list[bytes]:
    """(hardware address, address of the node behind which it is) of a VXLAN device."""
    return [_neighbour(_AF_BRIDGE, index, _SELF, node, mac, remove) for mac, node in entries]


def neighbours(index: int, entries: Iterable[tuple[str, str]], *, remove: bool = False) -> list[bytes]:
    """(address, hardware address), permanent."""
    return [_neighbour(socket.AF_INET, index, 0, address, mac, remove) for address, mac in entries]


def _neighbour(family: int, index: int, flags: int, destination: str, mac: str, remove: bool) -> bytes:
    body = struct.pack("BxxxiHBB", family, index, _PERMANENT, flags, 0)
    attributes = attribute(_NDA_DST, socket.inet_aton(destination)) + attribute(_NDA_LLADDR, _mac(mac))
    if remove:
        return _message(_DELNEIGH, 0, body + attributes)
    return _message(_NEWNEIGH, _CREATE | _REPLACE, body + attributes)


def _new_link(index: int, attributes: bytes) -> bytes:
    header = struct.pack("BxHiII", 0, 0, index, _UP, _UP)
    return _message(_NEWLINK, _CREATE | _EXCL, header + attributes)


def _kind(kind: str, data: bytes = b"") -> bytes:
    inner = attribute(_INFO_KIND, kind.encode()) + (attribute(_INFO_DATA, data) if data else b"")
    return attribute(_IFLA_LINKINFO, inner)


def _fixed_address(mac: str = "") -> bytes:
    """A hardware address that was set, not left to the kernel: those udev exchanges a moment later
    (systemd.link(5), MACAddressPolicy=persistent), and the kernel then forgets the device's ARP entries."""
    return attribute(_IFLA_ADDRESS, _mac(mac) if mac else b"\x02" + os.urandom(5))


def _name(name: str) -> bytes:
    return attribute(_IFLA_IFNAME, name.encode() + b"\0")


def _in_namespace(descriptor: int | None) -> bytes:
    return b"" if descriptor is None else attribute(_IFLA_NET_NS_FD, _u32(descriptor))


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack("IHHII", 16 + len(body), kind, _REQUEST | _ACK | flags, 0, 0) + body


def attribute(kind: int, data: bytes) -> bytes:
    padding = b"\0" * (-len(data) % 4)
    return struct.pack("HH", 4 + len(data), kind) + data + padding


def _address(text: str) -> tuple[int, bytes]:
    """Its family, and packed. Not by inet_pton: pysyncobj puts one of its own into the socket module."""
    if ":" in text:
        return socket.AF_INET6, ipaddress.IPv6Address(text).packed
    return socket.AF_INET, socket.inet_aton(text)


def _u32(number: int) -> bytes:
    return struct.pack("I", number)


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def attributes_of(data: bytes, offset: int = 0) -> Attributes:
    """Those that begin at `offset`; nested ones are packed in their value."""
    found = {}
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("HH", data, offset)
        if length < 4:
            break
        found[kind & ~_NESTED_BITS] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def _reason(data: bytes) -> str:
    """The kernel's own words, from the extended acknowledgement."""
    return attributes_of(data).get(_EXT_ACK_MESSAGE, b"").rstrip(b"\0").decode(errors="replace")
