"""Virtual addresses of services, balanced in the client's own namespace. Pure: records in, nft text out.

One rule per address; established connections keep their backend, because only a connection's first packet
meets the rule. An address without a running task is refused at once instead of timing out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from overlay_net.records import MapVip

TABLE = "swarmctl_vip"


def vip_rules(vips: Iterable[MapVip]) -> str:
    """The whole table for one sandbox, replacing the one before."""
    balanced, empty = [], []
    for vip in sorted(vips, key=lambda vip: vip.address):
        addresses = [backend.address for backend in vip.backends]
        if addresses:
            balanced.append(f"    ip daddr {vip.address} dnat to {choice(addresses)}")
        else:
            empty.append(f"    ip daddr {vip.address} ct state new reject")
    lines = [f"table ip {TABLE} {{}}", f"delete table ip {TABLE}", f"table ip {TABLE} {{"]
    lines += ["  chain refused {", "    type filter hook output priority -150", *empty, "  }"]
    lines += ["  chain balance {", "    type nat hook output priority -100", *balanced, "  }", "}"]
    return "\n".join(lines) + "\n"


def choice(targets: Sequence[str]) -> str:
    """One target, or each in turn."""
    if len(targets) == 1:
        return targets[0]
    numbered = ", ".join(f"{number} : {target}" for number, target in enumerate(targets))
    return f"numgen inc mod {len(targets)} map {{ {numbered} }}"
