"""The network namespace of one container: made, wired up, taken away. Everything here blocks.

A sandbox is pinned by a file, so it is there before the container's first process and after a restart of
the daemon. Its links die with it, off the hot path: deleting a veth by hand waits for the kernel.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from overlay_net import netlink
from overlay_net.errors import InvalidNetwork
from overlay_net.records import Record


class Attachment(Record, frozen=True):
    """One interface: the bridge it goes to, the namespace of that bridge (None: the node's), its address."""

    bridge: str
    bridge_namespace: Path | None
    interface: str
    cidr: str
    mac: str
    mtu: int


def build(path: Path, attachments: Sequence[Attachment], gateway: str, sysctls: Mapping[str, str]) -> None:
    """Make the namespace with all its interfaces; nothing is left when it fails."""
    for name in sysctls:
        if not name.startswith("net."):
            raise InvalidNetwork(f"sysctl {name} is not a network setting")
    netlink.create_namespace(path)
    try:
        for attachment in attachments:
            attach(path, attachment)
        with netlink.inside(path):
            for name, value in sysctls.items():
                netlink.set_sysctl(name, value)
        if gateway:
            with netlink.route(path) as ip:
                netlink.default_route(ip, gateway)
    except BaseException:
        netlink.remove_namespace(path)
        raise


def attach(path: Path, attachment: Attachment) -> None:
    """Add one interface to a sandbox that exists."""
    sandbox = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with netlink.route(attachment.bridge_namespace) as ip:
            bridge = netlink.find_link(ip, attachment.bridge)
            if bridge is None:
                raise InvalidNetwork(
                    f"bridge {attachment.bridge} is missing on this host: restart the daemon"
                )
            netlink.add_veth(
                ip,
                f"sv{secrets.token_hex(5)}",
                master=bridge,
                peer=attachment.interface,
                peer_namespace=sandbox,
                peer_mac=attachment.mac,
                mtu=attachment.mtu,
            )
    finally:
        os.close(sandbox)
    with netlink.route(path) as ip:
        index = netlink.find_link(ip, attachment.interface)
        assert index is not None, "just made there"
        netlink.configure(ip, index, name=attachment.interface, cidr=attachment.cidr)


def detach(path: Path, interface: str) -> None:
    with netlink.route(path) as ip:
        netlink.delete_link(ip, interface)
