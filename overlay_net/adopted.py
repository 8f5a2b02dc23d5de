"""Interfaces that somebody else made (a network plugin), put into a sandbox and taken out again. Everything here blocks.

Invariant: an interface is in the sandbox with its whole configuration, or back where it came from with its old name.
"""

from __future__ import annotations

import errno
from pathlib import Path

from overlay_net import namespaces, rtnl
from overlay_net.errors import KernelRefused
from overlay_net.records import Record

INTERFACES_MAX = 256


class Adopted(Record, frozen=True):
    """`source`: its name on the host. In the sandbox it is `prefix` and the first free number.

    `routes`: (destination, next hop); "" is on the link.
    """

    source: str
    prefix: str
    cidr: str = ""
    mac: str = ""
    gateway: str = ""
    routes: tuple[tuple[str, str], ...] = ()


def adopt(path: Path, wish: Adopted) -> str:
    """Its name in the sandbox."""
    with namespaces.descriptor(path) as sandbox, rtnl.connection() as connection:
        index = rtnl.index_of(wish.source)
        if index is None:
            raise KernelRefused(f"the interface {wish.source}, which a network plugin named, is not there")
        connection.send([rtnl.move_link(index, sandbox)], f"cannot move {wish.source} into the sandbox")
    name = wish.source
    try:
        with rtnl.connection(path) as connection:
            name = next(
                candidate
                for candidate in (f"{wish.prefix}{number}" for number in range(INTERFACES_MAX))
                if rtnl.index_of(candidate) is None
            )
            moved = rtnl.index_of(wish.source)
            if moved is None:
                raise KernelRefused(f"the interface {wish.source} vanished on its way into the sandbox")
            connection.send(_configuration(moved, name, wish), f"cannot configure {wish.source}")
    except BaseException:
        give_back(path, name, wish.source)
        give_back(path, wish.source, wish.source)
        raise
    return name


def give_back(path: Path, name: str, source: str) -> None:
    """To the namespace of the calling thread; one that has gone is fine."""
    try:
        with namespaces.descriptor("/proc/thread-self/ns/net") as home, rtnl.connection(path) as connection:
            index = rtnl.index_of(name)
            if index is not None:
                messages = [rtnl.set_link(index, up=False), rtnl.move_link(index, home, source)]
                connection.send(messages, f"cannot take {name} out of the sandbox", ignore=(errno.ENODEV,))
    except FileNotFoundError:
        return


def _configuration(index: int, name: str, wish: Adopted) -> list[bytes]:
    messages = [rtnl.set_link(index, up=False), rtnl.rename_link(index, name)]
    if wish.mac:
        messages.append(rtnl.set_address(index, wish.mac))
    if wish.cidr:
        messages.append(rtnl.new_address(index, wish.cidr))
    messages.append(rtnl.set_link(index))
    messages += [rtnl.route(destination, hop, index) for destination, hop in wish.routes]
    if wish.gateway:
        messages.append(rtnl.default_route(wish.gateway))
    return messages
