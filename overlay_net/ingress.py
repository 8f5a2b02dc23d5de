"""Published ports answered on every node, the client's address kept. Pure: records in, nft text out.

The accepting node sends the packet to a task unchanged but for its destination. The task's namespace
remembers in the connection's mark which node it came through (by the frame's source address) and sends
every answer back through that node. docs/network.md has the way of a packet step by step.
"""

from __future__ import annotations

from collections.abc import Sequence

from overlay_net.loadbalancer import choice
from overlay_net.records import MapGateway, MapPort

TABLE = "swarmctl_ingress"
BRIDGE = "sw-ingress"
MARK_BASE = 0x10000
ROUTE_TABLE = 100
NEXT_HOP = "169.254.77.1"
NEXT_HOP_MAC = "02:42:a9:fe:4d:01"


def node_rules(ports: Sequence[MapPort], subnet: str) -> str:
    """The table in the node's own namespace, replacing the one before."""
    rules = []
    for port in sorted(ports, key=lambda port: (port.protocol, port.published)):
        targets = [f"{backend.address} . {port.target}" for backend in port.backends]
        if targets:
            rules.append(
                f"    fib daddr type local {port.protocol} dport {port.published} "
                f"dnat ip addr . port to {_pair_choice(targets)}"
            )
    lines = [f"table ip {TABLE} {{}}", f"delete table ip {TABLE}", f"table ip {TABLE} {{"]
    lines += ["  chain arriving {", "    type nat hook prerouting priority -110", *rules, "  }"]
    lines += ["  chain local {", "    type nat hook output priority -110", *rules, "  }"]
    # Only what this node has sent on: where bridged packets pass through netfilter too (br_netfilter), those of
    # other nodes must stay as they are, even when they carry an address of this node.
    lines += [
        "  chain leaving {",
        "    type nat hook postrouting priority 90",
        f'    oifname "{BRIDGE}" ct status dnat fib saddr type local masquerade',
        f'    oifname "{BRIDGE}" ct status dnat ip saddr {subnet} masquerade',
        "  }",
        "}",
    ]
    return "\n".join(lines) + "\n"


def no_rules() -> str:
    return f"table ip {TABLE} {{}}\ndelete table ip {TABLE}\n"


def _pair_choice(targets: Sequence[str]) -> str:
    """nft wants a map for address and port pairs, even for a single one."""
    if len(targets) == 1:
        return f"numgen inc mod 1 map {{ 0 : {targets[0]} }}"
    return choice(targets)


def task_rules(interface: str, subnet: str, egress: str, gateways: Sequence[MapGateway]) -> str:
    """Both tables in a task's namespace. `egress`: its address on the default route, "" without one."""
    marks = {
        gateway.mac: mark_of(gateway.address)
        for gateway in sorted(gateways, key=lambda g: mark_of(g.address))
    }
    by_mac = ", ".join(f"{mac} : {mark:#x}" for mac, mark in marks.items())
    by_mark = ", ".join(f"{mark:#x} : {mac}" for mac, mark in marks.items())
    lines = [f"table ip {TABLE} {{}}", f"delete table ip {TABLE}"]
    lines += [f"table netdev {TABLE} {{}}", f"delete table netdev {TABLE}"]
    if not marks:
        return "\n".join(lines) + "\n"
    lines += [
        f"table ip {TABLE} {{",
        "  chain arriving {",
        "    type filter hook prerouting priority -150",
        f'    iifname "{interface}" ip saddr != {subnet} ct state new ct mark set ether saddr map {{ {by_mac} }}',
        "  }",
    ]
    if egress:
        lines += [
            "  chain to_egress {",
            "    type nat hook prerouting priority -100",
            f'    iifname "{interface}" ct mark != 0 dnat to {egress}',
            "  }",
        ]
    lines += [
        "  chain answering {",
        "    type route hook output priority -150",
        "    ct direction reply ct mark != 0 meta mark set ct mark",
        "  }",
        "}",
        f"table netdev {TABLE} {{",
        "  chain back {",
        f'    type filter hook egress device "{interface}" priority 0',
        f"    meta mark != 0 ether type ip ether daddr set meta mark map {{ {by_mark} }}",
        "  }",
        "}",
    ]
    return "\n".join(lines) + "\n"


def mark_of(address: str) -> int:
    """The mark of the node with that gateway address: the same as long as the node has it, whoever comes and goes."""
    high, low = address.split(".")[2:]
    return MARK_BASE | int(high) << 8 | int(low)
