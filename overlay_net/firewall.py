"""Address translation and isolation of this host's bridge networks: pure text, one table `ip swarmctl`.

The chains depend on the networks only and are rewritten when those change; published ports are elements of
two maps, so that starting and stopping a container costs one small transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from overlay_net.records import Record

TABLE = "swarmctl"
_PORTS = "published"
_PORTS_ON = "published_on"
_CHAINS = {
    "incoming": "type filter hook prerouting priority -300",
    "arriving": "type nat hook prerouting priority -100",
    "local": "type nat hook output priority -100",
    "leaving": "type nat hook postrouting priority 100",
    "isolation": "type filter hook forward priority 0",
}


class BridgeRule(Record, frozen=True):
    bridge: str
    subnet: str
    internal: bool
    masquerade: bool = True


def base_rules(bridges: Sequence[BridgeRule]) -> str:
    """Make the table if needed, and its chains anew; elements of the maps stay."""
    lines = [
        f"add table ip {TABLE}",
        f"add map ip {TABLE} {_PORTS} {{ type inet_proto . inet_service : ipv4_addr . inet_service ; }}",
        f"add map ip {TABLE} {_PORTS_ON} "
        "{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service ; }",
    ]
    for chain, kind in _CHAINS.items():
        lines.append(f"add chain ip {TABLE} {chain} {{ {kind} ; }}")
        lines.append(f"flush chain ip {TABLE} {chain}")
    for chain in ("arriving", "local"):
        for lookup in (
            f"ip daddr . meta l4proto . th dport map @{_PORTS_ON}",
            f"meta l4proto . th dport map @{_PORTS}",
        ):
            lines.append(
                f"add rule ip {TABLE} {chain} fib daddr type local meta l4proto {{ tcp, udp }} "
                f"dnat ip addr . port to {lookup}"
            )
    for rule in bridges:
        lines += [*_incoming(rule), *_leaving(rule), *_isolation(rule)]
    return "\n".join(lines) + "\n"


def _incoming(rule: BridgeRule) -> list[str]:
    """route_localnet, which ports published on 127.0.0.1 need, would let containers reach the host's loopback."""
    return [f'add rule ip {TABLE} incoming iifname "{rule.bridge}" ip daddr 127.0.0.0/8 drop']


def _leaving(rule: BridgeRule) -> list[str]:
    prefix = f"add rule ip {TABLE} leaving"
    lines = [
        f'{prefix} ip saddr 127.0.0.0/8 oifname "{rule.bridge}" masquerade',
        f'{prefix} ct status dnat ip saddr {rule.subnet} oifname "{rule.bridge}" masquerade',
    ]
    if rule.masquerade and not rule.internal:
        lines.append(f'{prefix} ip saddr {rule.subnet} oifname != "{rule.bridge}" masquerade')
    return lines


def _isolation(rule: BridgeRule) -> list[str]:
    """What is not published is reached from the bridge itself only: not from other networks, not from outside."""
    prefix = f"add rule ip {TABLE} isolation"
    if rule.internal:
        return [
            f'{prefix} iifname "{rule.bridge}" oifname != "{rule.bridge}" drop',
            f'{prefix} oifname "{rule.bridge}" iifname != "{rule.bridge}" drop',
        ]
    # `!= dnat` would compare the whole status, in which other bits are set as well.
    return [
        f'{prefix} oifname "{rule.bridge}" iifname != "{rule.bridge}" ct state new ct status & dnat == 0 drop'
    ]


def publish_elements(
    elements: Mapping[tuple[str, str, int], tuple[str, int]], *, remove: bool = False
) -> str:
    """(host address or "", protocol, host port) -> (container's address, container's port)."""
    verb = "delete" if remove else "add"
    lines = []
    for (host_ip, protocol, host_port), (address, port) in elements.items():
        key, name = f"{protocol} . {host_port}", _PORTS
        if host_ip:
            key, name = f"{host_ip} . {key}", _PORTS_ON
        lines.append(f"{verb} element ip {TABLE} {name} {{ {key} : {address} . {port} }}")
    return "\n".join(lines) + "\n" if lines else ""


def flush_elements() -> str:
    return "".join(f"flush map ip {TABLE} {name}\n" for name in (_PORTS, _PORTS_ON))
