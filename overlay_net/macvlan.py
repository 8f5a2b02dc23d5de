"""Parents of macvlan networks: looked up, or made for the network. Everything here blocks.

Invariant: what was there before stays; a device that was made for a network goes with it. The containers' own
interfaces are made in sandbox.py, and go with the sandbox.
"""

from __future__ import annotations

import errno

from overlay_net import netlink, network_options, rtnl
from overlay_net.errors import InvalidNetwork, KernelRefused
from overlay_net.records import Network

_OWN_PREFIX = "sw-m"


def parent_of(network: Network) -> str:
    """The parent's device name; one of the network's own when the user named none."""
    return network_options.macvlan(network.spec).parent or f"{_OWN_PREFIX}{network.id[:11]}"


def is_own(name: str) -> bool:
    """By its name: it was made for a network without a parent."""
    return name.startswith(_OWN_PREFIX)


def make_parent(network: Network) -> bool:
    """Whether it had to be made. InvalidNetwork when there is none and the kernel makes none."""
    wished, name = network_options.macvlan(network.spec), parent_of(network)
    if rtnl.index_of(name) is not None:
        return False
    with rtnl.connection() as kernel:
        message = rtnl.new_dummy(name)
        if wished.parent:
            base = rtnl.index_of(wished.parent.rpartition(".")[0]) if wished.vlan else None
            if base is None:
                raise InvalidNetwork(f"invalid subinterface or parent {name}: no such interface on this host")
            message = rtnl.new_vlan(name, parent=base, vlan=wished.vlan)
        kind = "VLAN" if wished.parent else "dummy"
        try:
            kernel.send([message], f"cannot make {kind} device {name}", ignore=(errno.EEXIST,))
        except KernelRefused as error:
            if error.code == errno.EOPNOTSUPP:
                hint = "name an interface that exists with -o parent=INTERFACE"
                raise InvalidNetwork(f"this kernel has no {kind} devices: {hint}") from error
            raise
    return True


def remove_parent(network: Network) -> None:
    """One that was made for it; one that is not there is fine."""
    netlink.delete_link(parent_of(network))
