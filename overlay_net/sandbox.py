"""The network namespace of one container: made, wired up, taken away. Everything here blocks.

A sandbox is pinned by a file, so it is there before the container's first process and after a restart of
the daemon. Its links die with it, off the hot path: deleting a veth by hand waits for the kernel.
"""

from __future__ import annotations

import contextlib
import errno
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from overlay_net import namespaces, netlink, rtnl
from overlay_net.errors import InvalidNetwork, KernelRefused
from overlay_net.records import Record


class Attachment(Record, frozen=True):
    """One interface: the bridge it goes to, the namespace of that bridge (None: the node's), its address.

    `macvlan_mode`: it is a macvlan of the device `bridge` instead. `isolated`: it reaches the bridge, not its other ports.
    `sysctls`: IFNAME in a name stands for the interface's.
    """

    bridge: str
    bridge_namespace: Path | None
    interface: str
    cidr: str
    mac: str
    mtu: int
    more_addresses: tuple[str, ...] = ()
    macvlan_mode: str = ""
    isolated: bool = False
    sysctls: tuple[tuple[str, str], ...] = ()


def build(
    path: Path, attachments: Sequence[Attachment], gateways: Sequence[str], sysctls: Mapping[str, str]
) -> None:
    """Make the namespace with all its interfaces; nothing is left when it fails."""
    for name in sysctls:
        if not name.startswith("net."):
            raise InvalidNetwork(f"sysctl {name} is not a network setting")
    namespaces.create(path)
    try:
        for attachment in attachments:
            _add_interface(path, attachment)
        with rtnl.connection(path) as connection:
            for name, value in sysctls.items():
                namespaces.set_sysctl(name, value)
            messages = [message for attachment in attachments for message in _configuration(attachment)]
            messages += [rtnl.default_route(gateway) for gateway in gateways]
            connection.send(messages, "cannot give the container its addresses")
            for attachment in attachments:
                _set_sysctls(attachment)
    except BaseException:
        namespaces.remove(path)
        raise


def attach(path: Path, attachment: Attachment) -> None:
    """Add one interface to a sandbox that exists; it is gone when it cannot be configured."""
    _add_interface(path, attachment)
    try:
        with rtnl.connection(path) as connection:
            connection.send(_configuration(attachment), f"cannot set {attachment.cidr}")
            _set_sysctls(attachment)
    except BaseException:
        detach(path, attachment.interface)
        raise


def set_gateways(path: Path, gateways: Sequence[str]) -> None:
    """The default routes, one of each family at most; others go with their interface."""
    if gateways:
        with rtnl.connection(path) as connection:
            connection.send([rtnl.default_route(each) for each in gateways], "cannot set the default route")


def detach(path: Path, interface: str) -> None:
    """An interface or a namespace that is not there is fine."""
    with contextlib.suppress(FileNotFoundError), namespaces.inside(path):
        netlink.delete_link(interface)


def route_answers(path: Path, interface: str, *, next_hop: str, mac: str, mark: int, table: int) -> None:
    """Packets with that mark leave by the interface, to a neighbour that exists in the tables only."""
    with rtnl.connection(path) as connection:
        index = rtnl.index_of(interface)
        if index is None:
            raise KernelRefused(f"interface {interface} is missing in {path.name[:12]}")
        messages = rtnl.neighbours(index, [(next_hop, mac)])
        messages.append(rtnl.default_route(next_hop, index=index, table=table, onlink=True))
        messages.append(rtnl.mark_rule(mark, mark, table, table))
        connection.send(messages, "cannot route answers of published ports", ignore=(errno.EEXIST,))
        # The larger of the two counts. This is the container's namespace, not the host's.
        for name in ("all", interface):
            namespaces.set_device_sysctl(name, "rp_filter", "0")


# The links of each bridge's namespace, listed once per audit: a hundred containers share a bridge.
Seen: TypeAlias = dict[Path | None, dict[str, netlink.Link]]


def repair(path: Path, attachments: Sequence[Attachment], gateways: Sequence[str], seen: Seen) -> list[str]:
    """Wire up again what has come loose; what was wrong, one sentence each. `seen` is filled on the way.

    What a container did to the settings of its own interfaces is its business and stays.
    """
    problems = []
    with rtnl.connection(path) as kernel:
        inside = netlink.links(kernel)
    for attachment in attachments:
        if attachment.bridge_namespace not in seen:
            with rtnl.connection(attachment.bridge_namespace) as kernel:
                seen[attachment.bridge_namespace] = netlink.links(kernel)
        outside = seen[attachment.bridge_namespace]
        bridge = outside.get(attachment.bridge)
        if bridge is None:
            raise KernelRefused(f"bridge {attachment.bridge} is missing")
        mine = inside.get(attachment.interface)
        if attachment.macvlan_mode:
            if mine is None:
                attach(path, attachment)
                problems.append(f"interface {attachment.interface} was missing")
            continue
        other = next((link for link in outside.values() if mine and link.index == mine.peer), None)
        if mine is None or other is None or other.kind != "veth":
            detach(path, attachment.interface)
            attach(path, attachment)
            problems.append(f"interface {attachment.interface} was not connected")
        elif other.master != bridge.index or not other.up:
            with rtnl.connection(attachment.bridge_namespace) as connection:
                messages = [rtnl.set_link(other.index, master=bridge.index)]
                messages += [rtnl.isolate_port(other.index)] if attachment.isolated else []
                connection.send(messages, f"cannot join {other.name}")
            problems.append(f"interface {attachment.interface} was not on its bridge")
    if problems:
        set_gateways(path, gateways)
    return problems


def _configuration(attachment: Attachment) -> list[bytes]:
    """Address and state, in the namespace of the calling thread."""
    index = rtnl.index_of(attachment.interface)
    if index is None:
        raise KernelRefused(f"interface {attachment.interface} vanished while it was made")
    addresses = filter(None, (attachment.cidr, *attachment.more_addresses))
    return [*(rtnl.new_address(index, cidr) for cidr in addresses), rtnl.set_link(index)]


def _set_sysctls(attachment: Attachment) -> None:
    interface = attachment.interface.replace(".", "/")
    for name, value in attachment.sysctls:
        namespaces.set_sysctl(name.replace("IFNAME", interface), value)


def _add_interface(path: Path, attachment: Attachment) -> None:
    with (
        namespaces.descriptor(path) as sandbox,
        rtnl.connection(attachment.bridge_namespace) as connection,
    ):
        device = rtnl.index_of(attachment.bridge)
        if device is None:
            what = "interface" if attachment.macvlan_mode else "bridge"
            raise KernelRefused(f"{what} {attachment.bridge} is missing on this host: restart the daemon")
        name = f"sv{secrets.token_hex(5)}"
        if attachment.macvlan_mode:
            made = _macvlan(attachment, device, sandbox)
        else:
            made = rtnl.new_veth(
                name,
                master=device,
                mtu=attachment.mtu,
                peer=attachment.interface,
                peer_namespace=sandbox,
                peer_mac=attachment.mac,
            )
        connection.send([made], f"cannot connect {attachment.interface} to {attachment.bridge}")
        if attachment.isolated:
            port = rtnl.index_of(name)
            if port is not None:
                connection.send([rtnl.isolate_port(port)], f"cannot isolate {attachment.interface}")


def _macvlan(attachment: Attachment, parent: int, sandbox: int) -> bytes:
    """With passthru it has the parent's own hardware address."""
    mode = attachment.macvlan_mode
    mac = "" if mode == "passthru" else attachment.mac
    return rtnl.new_macvlan(
        attachment.interface, parent=parent, mode=mode, mac=mac, mtu=attachment.mtu, namespace=sandbox
    )
