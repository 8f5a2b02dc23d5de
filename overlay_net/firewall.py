"""Address translation and isolation of this host's bridge networks: pure text, tables `ip swarmctl` and `ip6 swarmctl`.

The chains depend on the networks only and are rewritten when those change; published ports are elements of
two maps, so that starting and stopping a container costs one small transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from overlay_net.records import Record

TABLE = "swarmctl"
IPV4, IPV6 = "ip", "ip6"
_LOOPBACK = {IPV4: "127.0.0.0/8", IPV6: "::1"}
_TYPE = {IPV4: "ipv4_addr", IPV6: "ipv6_addr"}
_ANY = {IPV4: "0.0.0.0", IPV6: "::"}
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


def base_rules(bridges: Sequence[BridgeRule], family: str = IPV4) -> str:
    """Make the table if needed, and its chains anew; elements of the maps stay. Subnets are of that family."""
    kind = _TYPE[family]
    table = f"{family} {TABLE}"
    lines = [
        f"add table {table}",
        f"add map {table} {_PORTS} {{ type inet_proto . inet_service : {kind} . inet_service ; }}",
        f"add map {table} {_PORTS_ON} {{ type {kind} . inet_proto . inet_service : {kind} . inet_service ; }}",
    ]
    for chain, hook in _CHAINS.items():
        lines.append(f"add chain {table} {chain} {{ {hook} ; }}")
        lines.append(f"flush chain {table} {chain}")
    if family == IPV6:
        # Answers to a translated ::1 are lost on their way back: refused at once is better than never answered.
        lines.append(f"add rule {table} local ip6 daddr ::1 return")
    for chain in ("arriving", "local"):
        for lookup in (
            f"{family} daddr . meta l4proto . th dport map @{_PORTS_ON}",
            f"meta l4proto . th dport map @{_PORTS}",
        ):
            lines.append(
                f"add rule {table} {chain} fib daddr type local meta l4proto {{ tcp, udp }} "
                f"dnat {family} addr . port to {lookup}"
            )
    for rule in bridges:
        lines += [*_incoming(rule, family), *_leaving(rule, family), *_isolation(rule, family)]
    return "\n".join(lines) + "\n"


def _incoming(rule: BridgeRule, family: str) -> list[str]:
    """route_localnet, which ports published on 127.0.0.1 need, would let containers reach the host's loopback."""
    return [
        f'add rule {family} {TABLE} incoming iifname "{rule.bridge}" {family} daddr {_LOOPBACK[family]} drop'
    ]


def _leaving(rule: BridgeRule, family: str) -> list[str]:
    prefix = f"add rule {family} {TABLE} leaving"
    lines = [
        f'{prefix} ct status dnat {family} saddr {rule.subnet} oifname "{rule.bridge}" masquerade',
    ]
    if family == IPV4:
        lines.insert(0, f'{prefix} ip saddr 127.0.0.0/8 oifname "{rule.bridge}" masquerade')
    if rule.masquerade and not rule.internal:
        lines.append(f'{prefix} {family} saddr {rule.subnet} oifname != "{rule.bridge}" masquerade')
    return lines


def _isolation(rule: BridgeRule, family: str) -> list[str]:
    """What is not published is reached from the bridge itself only: not from other networks, not from outside."""
    prefix = f"add rule {family} {TABLE} isolation"
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
    elements: Mapping[tuple[str, str, int], tuple[str, int]], family: str = IPV4, *, remove: bool = False
) -> str:
    """(host address or "", protocol, host port) -> (container's address, container's port)."""
    verb = "delete" if remove else "add"
    lines = []
    for (host_ip, protocol, host_port), (address, port) in elements.items():
        key, name = f"{protocol} . {host_port}", _PORTS
        if host_ip not in ("", _ANY[family]):
            key, name = f"{host_ip} . {key}", _PORTS_ON
        lines.append(f"{verb} element {family} {TABLE} {name} {{ {key} : {address} . {port} }}")
    return "\n".join(lines) + "\n" if lines else ""


def flush_elements(family: str = IPV4) -> str:
    return "".join(f"flush map {family} {TABLE} {name}\n" for name in (_PORTS, _PORTS_ON))


def no_rules(family: str) -> str:
    """Of a table that may not be there."""
    return f"table {family} {TABLE} {{}}\ndelete table {family} {TABLE}\n"
