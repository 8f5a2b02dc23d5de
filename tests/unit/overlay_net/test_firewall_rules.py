"""The host's nft rules for bridge networks, as text."""

from __future__ import annotations

import pytest

from overlay_net import firewall
from overlay_net.firewall import BridgeRule

WEB = BridgeRule(bridge="swbr0", subnet="172.17.0.0/16", internal=False)
DB = BridgeRule(bridge="sw-n1", subnet="172.18.0.0/16", internal=True)
ROUTED = BridgeRule(bridge="sw-n2", subnet="172.19.0.0/16", internal=False, masquerade=False)


def rules(chain: str, *bridges: BridgeRule) -> list[str]:
    """The chain's rules without what all lines begin with."""
    prefix = f"add rule ip swarmctl {chain} "
    lines = firewall.base_rules(bridges).splitlines()
    return [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]


def test_chains_are_made_anew_and_maps_keep_their_elements() -> None:
    lines = firewall.base_rules([WEB]).splitlines()
    assert lines[0] == "add table ip swarmctl"
    for chain in ("incoming", "arriving", "local", "leaving", "isolation"):
        flush = lines.index(f"flush chain ip swarmctl {chain}")
        made = next(n for n, line in enumerate(lines) if line.startswith(f"add chain ip swarmctl {chain} "))
        filled = [n for n, line in enumerate(lines) if line.startswith(f"add rule ip swarmctl {chain} ")]
        assert made < flush < min(filled), chain
    assert not [line for line in lines if line.startswith(("flush map", "delete", "destroy", "flush table"))]
    assert firewall.base_rules([WEB]).endswith("\n")


def test_keys_and_values_of_the_maps() -> None:
    text = firewall.base_rules([])
    assert "map ip swarmctl published { type inet_proto . inet_service : ipv4_addr . inet_service ; }" in text
    assert (
        "map ip swarmctl published_on { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service ; }"
        in text
    )


@pytest.mark.parametrize("chain", ["arriving", "local"])
def test_a_port_of_one_address_comes_before_that_of_all(chain: str) -> None:
    every = "fib daddr type local meta l4proto { tcp, udp } dnat ip addr . port to "
    assert rules(chain) == [
        every + "ip daddr . meta l4proto . th dport map @published_on",
        every + "meta l4proto . th dport map @published",
    ]


def test_where_the_chains_hook_in() -> None:
    """The loopback guard is before connection tracking: later, answers would look like what it drops."""
    text = firewall.base_rules([])
    assert "add chain ip swarmctl incoming { type filter hook prerouting priority -300 ; }" in text
    assert "add chain ip swarmctl arriving { type nat hook prerouting priority -100 ; }" in text
    assert "add chain ip swarmctl local { type nat hook output priority -100 ; }" in text
    assert "add chain ip swarmctl leaving { type nat hook postrouting priority 100 ; }" in text
    assert "add chain ip swarmctl isolation { type filter hook forward priority 0 ; }" in text


def test_what_leaves_a_network_has_the_hosts_address() -> None:
    loopback = 'ip saddr 127.0.0.0/8 oifname "{}" masquerade'
    hairpin = 'ct status dnat ip saddr {} oifname "{}" masquerade'
    assert rules("leaving", WEB) == [
        loopback.format("swbr0"),
        hairpin.format("172.17.0.0/16", "swbr0"),
        'ip saddr 172.17.0.0/16 oifname != "swbr0" masquerade',
    ]
    assert rules("leaving", DB) == [loopback.format("sw-n1"), hairpin.format("172.18.0.0/16", "sw-n1")]
    assert rules("leaving", ROUTED) == [loopback.format("sw-n2"), hairpin.format("172.19.0.0/16", "sw-n2")]


def test_only_what_is_published_is_reached_from_elsewhere() -> None:
    drop = 'oifname "{0}" iifname != "{0}" ct state new ct status & dnat == 0 drop'
    assert rules("isolation", WEB) == [drop.format("swbr0")]
    assert rules("isolation", WEB, ROUTED) == [drop.format("swbr0"), drop.format("sw-n2")]


def test_an_internal_network_has_no_way_in_or_out() -> None:
    assert rules("isolation", DB) == [
        'iifname "sw-n1" oifname != "sw-n1" drop',
        'oifname "sw-n1" iifname != "sw-n1" drop',
    ]


def test_no_container_reaches_the_hosts_loopback() -> None:
    assert rules("incoming", WEB, DB) == [
        'iifname "swbr0" ip daddr 127.0.0.0/8 drop',
        'iifname "sw-n1" ip daddr 127.0.0.0/8 drop',
    ]


ELEMENTS = {("", "tcp", 8080): ("172.17.0.2", 80), ("127.0.0.1", "udp", 5353): ("172.17.0.2", 53)}


@pytest.mark.parametrize(("remove", "verb"), [(False, "add"), (True, "delete")])
def test_published_ports_are_elements(remove: bool, verb: str) -> None:
    text = firewall.publish_elements(ELEMENTS, remove=remove)
    assert text.splitlines() == [
        f"{verb} element ip swarmctl published {{ tcp . 8080 : 172.17.0.2 . 80 }}",
        f"{verb} element ip swarmctl published_on {{ 127.0.0.1 . udp . 5353 : 172.17.0.2 . 53 }}",
    ]


def test_without_ports_there_is_nothing_to_do() -> None:
    assert firewall.publish_elements({}) == ""


def test_ipv6_has_the_same_rules_in_a_table_of_its_own() -> None:
    """But for the loopback, which the kernel does not route back: nothing is translated there."""
    bridge = BridgeRule(bridge="sw-n3", subnet="fd00:3::/64", internal=False)
    lines = firewall.base_rules([bridge], firewall.IPV6).splitlines()
    assert all(" ip6 swarmctl" in line for line in lines)
    local = [line for line in lines if line.startswith("add rule ip6 swarmctl local ")]
    assert local[0].endswith("local ip6 daddr ::1 return") and "dnat ip6 addr . port to ip6 daddr" in local[1]
    leaving = [line for line in lines if " leaving " in line and line.startswith("add rule")]
    assert leaving == [
        'add rule ip6 swarmctl leaving ct status dnat ip6 saddr fd00:3::/64 oifname "sw-n3" masquerade',
        'add rule ip6 swarmctl leaving ip6 saddr fd00:3::/64 oifname != "sw-n3" masquerade',
    ]
    elements = {("::", "tcp", 80): ("fd00:3::2", 8080), ("fd00::1", "udp", 53): ("fd00:3::2", 53)}
    assert firewall.publish_elements(elements, firewall.IPV6).splitlines() == [
        "add element ip6 swarmctl published { tcp . 80 : fd00:3::2 . 8080 }",
        "add element ip6 swarmctl published_on { fd00::1 . udp . 53 : fd00:3::2 . 53 }",
    ]
