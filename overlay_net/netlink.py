"""The kernel's links, addresses, routes and neighbours, and the namespaces they live in.

The only module that talks rtnetlink. Topology goes through pyroute2; forwarding and neighbour entries in
bulk are packed by hand, since one by one they cost fifty times as much. Everything here blocks: call it in
worker threads (`Workers`). A thread that enters another namespace always returns to its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from overlay_net.errors import KernelRefused

_T = TypeVar("_T")
_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_MS_BIND = 4096
_MNT_DETACH = 2
_RTM_NEWNEIGH, _RTM_DELNEIGH = 28, 29
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_REPLACE, _NLM_F_CREATE = 1, 4, 0x100, 0x400
_NUD_PERMANENT, _NTF_SELF = 0x80, 0x02
_NDA_DST, _NDA_LLADDR = 1, 2
_AF_BRIDGE = 7
_BATCH = 64

Route: TypeAlias = Any  # the library is not typed


class Workers:
    """Threads for blocking work; `run` from the event loop."""

    def __init__(self, count: int = 8) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="network")

    async def run(self, function: Callable[..., _T], *arguments: Any) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: function(*arguments))

    def close(self) -> None:
        self._pool.shutdown(wait=True)


# ---- namespaces -------------------------------------------------------------------------------------------


def _check(result: int, what: str) -> None:
    if result == -1:
        code = ctypes.get_errno()
        raise KernelRefused(f"{what}: {os.strerror(code)}")


def _own_namespace() -> str:
    return f"/proc/self/task/{threading.get_native_id()}/ns/net"


def create_namespace(path: Path) -> None:
    """A new network namespace with its loopback up, pinned at `path`."""
    path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    home = os.open(_own_namespace(), os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.unshare(_CLONE_NEWNET), "cannot make a network namespace")
        try:
            source, target = _own_namespace().encode(), os.fsencode(path)
            _check(_libc.mount(source, target, None, _MS_BIND, None), f"cannot pin a namespace at {path}")
            _loopback_up()
        finally:
            _check(_libc.setns(home, _CLONE_NEWNET), "cannot return from a network namespace")
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(home)


def remove_namespace(path: Path) -> None:
    """Unpin: the namespace goes, with all its links, when nothing uses it any more."""
    _libc.umount2(os.fsencode(path), _MNT_DETACH)
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def inside(path: str | Path | None) -> Iterator[None]:
    """The calling thread is in that namespace for the duration; None stays where it is."""
    if path is None:
        yield
        return
    home = os.open(_own_namespace(), os.O_RDONLY | os.O_CLOEXEC)
    try:
        target = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.setns(target, _CLONE_NEWNET), f"cannot enter the network namespace {path}")
        finally:
            os.close(target)
        try:
            yield
        finally:
            _check(_libc.setns(home, _CLONE_NEWNET), "cannot return from a network namespace")
    finally:
        os.close(home)


@contextlib.contextmanager
def route(path: str | Path | None = None) -> Iterator[Route]:
    """A netlink connection in that namespace."""
    with inside(path), translated(), IPRoute() as connection:
        yield connection


@contextlib.contextmanager
def translated() -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        raise KernelRefused(f"the kernel refused a network change: {os.strerror(error.code)}") from error


def _loopback_up() -> None:
    """ioctl instead of netlink: it costs a twentieth."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sh", b"lo", 0x1 | 0x40))


def set_sysctl(name: str, value: str, *, required: bool = True) -> None:
    """net.* of the calling thread's namespace. KernelRefused names it."""
    path = Path("/proc/sys") / name.replace("/", "\0").replace(".", "/").replace("\0", ".")
    try:
        if path.read_text().strip() != value:
            path.write_text(value)
    except OSError as error:
        if required:
            raise KernelRefused(f"cannot set {name}={value}: {error.strerror}") from error


def set_device_sysctl(device: str, name: str, value: str) -> None:
    """net.ipv4.conf.<device>.<name>; device names may contain dots."""
    path = Path("/proc/sys/net/ipv4/conf") / device / name
    try:
        path.write_text(value)
    except OSError as error:
        raise KernelRefused(f"cannot set {path}: {error.strerror}") from error


# ---- links, addresses, routes -----------------------------------------------------------------------------


def find_link(ip: Route, name: str) -> int | None:
    found = ip.link_lookup(ifname=name)
    return int(found[0]) if found else None


def add_bridge(ip: Route, name: str, *, mtu: int = 1500, mac: str = "") -> int:
    """The index of the bridge, new or old; up."""
    index = find_link(ip, name)
    if index is None:
        options: dict[str, Any] = {"ifname": name, "kind": "bridge", "mtu": mtu}
        if mac:
            options["address"] = mac
        ip.link("add", **options)
        index = find_link(ip, name)
    assert index is not None, "just added"
    ip.link("set", index=index, state="up", mtu=mtu)
    return index


def add_veth(
    ip: Route, name: str, *, master: int, peer: str, peer_namespace: int, peer_mac: str, mtu: int
) -> None:
    """One end on the bridge, the other directly in the namespace of that descriptor."""
    ip.link(
        "add",
        ifname=name,
        kind="veth",
        mtu=mtu,
        master=master,
        state="up",
        peer={"ifname": peer, "net_ns_fd": peer_namespace, "address": peer_mac, "mtu": mtu},
    )


def add_bridge_in(ip: Route, name: str, namespace: int, *, index: int, mtu: int) -> None:
    """A bridge with that index in the namespace of that descriptor; up."""
    ip.link("add", ifname=name, kind="bridge", index=index, mtu=mtu, state="up", net_ns_fd=namespace)


def add_vxlan(
    ip: Route,
    name: str,
    *,
    vni: int,
    local: str,
    port: int,
    mtu: int,
    master: int,
    namespace: int | None = None,
) -> None:
    """On that bridge and up. Its packets travel in the namespace of `ip`, though it may be made in another one:
    moving it there later would cost ten times as much."""
    options: dict[str, Any] = {} if namespace is None else {"net_ns_fd": namespace}
    ip.link(
        "add",
        ifname=name,
        kind="vxlan",
        vxlan_id=vni,
        vxlan_local=local,
        vxlan_port=port,
        vxlan_learning=0,
        vxlan_proxy=1,
        mtu=mtu,
        master=master,
        state="up",
        **options,
    )


def configure(ip: Route, index: int, *, name: str, cidr: str) -> None:
    """Inside a sandbox: final name, address, up."""
    ip.link("set", index=index, ifname=name)
    address, _, prefix = cidr.partition("/")
    ip.addr("add", index=index, address=address, prefixlen=int(prefix))
    ip.link("set", index=index, state="up")


def add_address(ip: Route, index: int, cidr: str) -> None:
    address, _, prefix = cidr.partition("/")
    with contextlib.suppress(FileExistsError):
        try:
            ip.addr("add", index=index, address=address, prefixlen=int(prefix))
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise


def default_route(ip: Route, gateway: str) -> None:
    ip.route("replace", dst="default", gateway=gateway)


def delete_link(ip: Route, name: str) -> bool:
    index = find_link(ip, name)
    if index is None:
        return False
    ip.link("del", index=index)
    return True


def link_names(ip: Route) -> list[str]:
    return [str(link.get_attr("IFLA_IFNAME")) for link in ip.get_links()]


def route_subnets(ip: Route) -> list[str]:
    """Destinations of the main table, without the default route."""
    found = []
    for entry in ip.get_routes(family=socket.AF_INET, table=254):
        destination = entry.get_attr("RTA_DST")
        if destination:
            found.append(f"{destination}/{entry['dst_len']}")
    return found


def mtu_toward(ip: Route, address: str) -> int:
    """The MTU of the device that has this address; 1500 when none has."""
    for entry in ip.get_addr(family=socket.AF_INET):
        if entry.get_attr("IFA_ADDRESS") == address or entry.get_attr("IFA_LOCAL") == address:
            link = next(iter(ip.get_links(entry["index"])))
            return int(link.get_attr("IFLA_MTU"))
    return 1500


# ---- neighbours in bulk -----------------------------------------------------------------------------------


def change_forwarding(index: int, entries: Iterable[tuple[str, str]], *, remove: bool = False) -> None:
    """(hardware address, address of the node behind which it is) on a VXLAN device of the own namespace."""
    _bulk([_forwarding(index, mac, node, remove) for mac, node in entries], remove)


def change_neighbours(index: int, entries: Iterable[tuple[str, str]], *, remove: bool = False) -> None:
    """(address, hardware address), permanent, on a device of the own namespace."""
    _bulk([_neighbour(index, address, mac, remove) for address, mac in entries], remove)


def _forwarding(index: int, mac: str, node: str, remove: bool) -> bytes:
    return _message(_AF_BRIDGE, index, _NTF_SELF, socket.inet_aton(node), _mac(mac), remove)


def _neighbour(index: int, address: str, mac: str, remove: bool) -> bytes:
    return _message(socket.AF_INET, index, 0, socket.inet_aton(address), _mac(mac), remove)


def _message(family: int, index: int, flags: int, destination: bytes, mac: bytes, remove: bool) -> bytes:
    body = struct.pack("BxxxiHBB", family, index, _NUD_PERMANENT, flags, 0)
    attributes = _attribute(_NDA_DST, destination) + _attribute(_NDA_LLADDR, mac)
    kind = _RTM_DELNEIGH if remove else _RTM_NEWNEIGH
    options = _NLM_F_REQUEST | _NLM_F_ACK | (0 if remove else _NLM_F_CREATE | _NLM_F_REPLACE)
    return struct.pack("IHHII", 16 + len(body) + len(attributes), kind, options, 0, 0) + body + attributes


def _attribute(kind: int, data: bytes) -> bytes:
    padding = b"\0" * (-len(data) % 4)
    return struct.pack("HH", 4 + len(data), kind) + data + padding


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _bulk(messages: Sequence[bytes], remove: bool) -> None:
    """Send in batches and read every acknowledgement. KernelRefused for the first error."""
    if not messages:
        return
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as connection:
        connection.bind((0, 0))
        for start in range(0, len(messages), _BATCH):
            batch = messages[start : start + _BATCH]
            connection.send(b"".join(batch))
            _read_acknowledgements(connection, len(batch), remove)


def _read_acknowledgements(connection: socket.socket, count: int, remove: bool) -> None:
    while count:
        data = connection.recv(65536)
        offset = 0
        while offset < len(data):
            length, kind = struct.unpack_from("IH", data, offset)
            if kind == 2:
                (code,) = struct.unpack_from("i", data, offset + 16)
                if code and not (remove and -code in (errno.ENOENT, errno.ENODEV)):
                    raise KernelRefused(f"the kernel refused a neighbour entry: {os.strerror(-code)}")
                count -= 1
            offset += (length + 3) & ~3
