"""A place on a network as it is wished, as a request to the data plane."""

from __future__ import annotations

import pytest

from engine.config import EndpointConfig, EndpointIpam
from engine.endpoint_wishes import IFNAME, SYSCTLS, check_endpoint, endpoint_request
from engine.errors import InvalidParameter
from engine.networks import EndpointRequest, IpamBlock, NetworkSpec
from tests.networks import MemoryNetworks


async def test_everything_that_can_be_wished() -> None:
    networks = MemoryNetworks()
    blocks = (IpamBlock(subnet="10.1.0.0/16"), IpamBlock(subnet="fd00:1::/64"))
    made = await networks.create_network(NetworkSpec(name="dual", ipam=blocks, ipv6=True))
    wish = EndpointConfig(
        ipam_config=EndpointIpam(
            ipv4_address="10.1.0.9", ipv6_address="fd00:1:0::9", link_local_ips=["169.254.3.3", "fe80::9"]
        ),
        aliases=["web"],
        mac_address="02:00:00:00:00:01",
        driver_opts={
            IFNAME: "front",
            SYSCTLS: "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.mtu=1400",
        },
        gw_priority=-3,
    )
    check_endpoint("dual", wish)
    assert endpoint_request(made.id, wish, networks) == EndpointRequest(
        network=made.id,
        cidr="10.1.0.9/16",
        cidr6="fd00:1::9/64",
        link_local=("169.254.3.3/16", "fe80::9/64"),
        mac="02:00:00:00:00:01",
        aliases=("web",),
        interface="front",
        sysctls=(("net.ipv4.conf.IFNAME.log_martians", "1"), ("net.ipv6.conf.IFNAME.mtu", "1400")),
        priority=-3,
    )


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (EndpointConfig(driver_opts={"a": "b"}), r"EndpointsConfig\[net\].DriverOpts: a is not supported"),
        (EndpointConfig(driver_opts={IFNAME: "lo"}), "invalid .*ifname: 'lo'"),
        (EndpointConfig(driver_opts={SYSCTLS: "kernel.panic=1"}), "invalid .*sysctls: 'kernel.panic=1'"),
        (EndpointConfig(driver_opts={SYSCTLS: "net.ipv4.conf.all.log_martians=1"}), "such as"),
        (EndpointConfig(ipam_config=EndpointIpam(ipv4_address="fd00::1")), "invalid IPv4 address: fd00::1"),
        (EndpointConfig(ipam_config=EndpointIpam(ipv6_address="10.0.0.1")), "invalid IPv6 address: 10.0.0.1"),
        (EndpointConfig(ipam_config=EndpointIpam(link_local_ips=["10.0.0.1"])), "invalid link-local"),
        (EndpointConfig(ipam_config=EndpointIpam(link_local_ips=["x"])), "invalid link-local"),
    ],
)
def test_wishes_that_cannot_be(wish: EndpointConfig, words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        check_endpoint("net", wish)
