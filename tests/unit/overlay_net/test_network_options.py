"""Driver options of local networks: what they mean, and what is refused by name."""

from __future__ import annotations

import pytest

from overlay_net import network_options
from overlay_net.errors import InvalidNetwork
from overlay_net.network_options import Macvlan
from overlay_net.records import NetworkSpec

BRIDGE = "com.docker.network.bridge."


def spec(driver: str = "bridge", *, ipv6: bool = False, **options: str) -> NetworkSpec:
    return NetworkSpec(name="n", driver=driver, ipv6=ipv6, options=options)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        (f"{BRIDGE}enable_icc", "maybe", "must be true or false"),
        (f"{BRIDGE}enable_ip_masquerade", "2", "must be true or false"),
        (f"{BRIDGE}name", "a/b", "1 to 15 characters"),
        (f"{BRIDGE}name", "..", "1 to 15 characters"),
        (f"{BRIDGE}host_binding_ipv4", "::1", "must be an IPv4 address"),
        (f"{BRIDGE}gateway_mode_ipv6", "routed", "only nat"),
        (f"{BRIDGE}default_bridge", "true", "one default bridge"),
        (f"{BRIDGE}inhibit_ipv4", "true", "not supported by bridge"),
        ("com.docker.network.driver.mtu", "x", "must be 68 to 65535"),
        ("com.docker.network.driver.mtu", "67", "must be 68 to 65535"),
        ("com.docker.network.container_iface_prefix", "far-too-long-a-name", "1 to 12"),
        ("parent", "eth0", "not supported by bridge"),
    ],
)
def test_options_of_bridges_that_cannot_be(option: str, value: str, words: str) -> None:
    with pytest.raises(InvalidNetwork, match=words) as caught:
        network_options.check(spec(**{option: value}))
    assert option in str(caught.value)


def test_what_options_mean() -> None:
    plain = spec(note="anything else is a remark")
    network_options.check(plain)
    assert network_options.lets_containers_talk(plain) and network_options.masquerades(plain)
    assert (network_options.mtu(plain), network_options.binding(plain)) == (1500, "")
    chosen = spec(
        **{
            f"{BRIDGE}enable_icc": "0",
            f"{BRIDGE}enable_ip_masquerade": "False",
            f"{BRIDGE}host_binding_ipv4": "127.0.0.1",
            "com.docker.network.driver.mtu": "9000",
        }
    )
    network_options.check(chosen)
    assert not network_options.lets_containers_talk(chosen) and not network_options.masquerades(chosen)
    assert (network_options.mtu(chosen), network_options.binding(chosen)) == (9000, "127.0.0.1")


def test_ipv6_needs_a_larger_mtu() -> None:
    small = {"com.docker.network.driver.mtu": "1000"}
    assert network_options.mtu(spec(**small)) == 1000
    with pytest.raises(InvalidNetwork, match="1280"):
        network_options.mtu(spec(ipv6=True, **small))


def test_parents_of_macvlan() -> None:
    assert network_options.macvlan(spec("macvlan")) == Macvlan()
    assert network_options.macvlan(spec("macvlan", parent="eth0.50", macvlan_mode="vepa")) == Macvlan(
        parent="eth0.50", mode="vepa", vlan=50
    )
    assert network_options.macvlan(spec("macvlan", parent="eth0.4095")).vlan == 0
    for options in ({"macvlan_mode": "x"}, {"parent": "lo"}, {"parent": "a b"}, {"ipvlan_mode": "l2"}):
        with pytest.raises(InvalidNetwork):
            network_options.check(spec("macvlan", **options))
