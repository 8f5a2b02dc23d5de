"""Subnets out of pools and addresses out of subnets."""

from __future__ import annotations

import pytest

from overlay_net import ipam
from overlay_net.errors import AddressInUse, InvalidNetwork, SubnetOverlap


def test_the_first_pool_without_overlap_is_chosen() -> None:
    assert ipam.free_subnet(ipam.LOCAL_POOLS, ["172.17.5.1/24", "172.18.0.0/16"]) == "172.19.0.0/16"
    assert ipam.free_subnet(ipam.LOCAL_POOLS, ["172.16.0.0/12"]) == "192.168.0.0/20"


def test_no_free_pool_and_an_explicit_overlap_are_refused() -> None:
    with pytest.raises(SubnetOverlap, match="non-overlapping"):
        ipam.free_subnet(["10.0.0.0/24"], ["10.0.0.0/8"])
    with pytest.raises(SubnetOverlap, match="Pool overlaps with other one on this address space"):
        ipam.check_overlap("172.17.1.0/24", ["172.17.0.0/16"])


def test_hardware_address_follows_from_the_address() -> None:
    assert ipam.mac_for("172.17.0.2") == "02:42:ac:11:00:02"


def test_a_released_address_comes_last() -> None:
    pool = ipam.AddressPool("10.1.0.0/29", reserved={"gateway": "10.1.0.1"})
    first = pool.allocate()
    assert first == "10.1.0.2/29"
    pool.release(first)
    assert [pool.allocate() for _ in range(5)] == [f"10.1.0.{n}/29" for n in (3, 4, 5, 6, 2)]
    with pytest.raises(AddressInUse, match="no available IPv4 addresses"):
        pool.allocate()


def test_allocation_stays_in_the_range_but_a_wanted_address_need_not() -> None:
    pool = ipam.AddressPool("10.1.0.0/24", ip_range="10.1.0.8/31")
    assert [pool.allocate(), pool.allocate()] == ["10.1.0.8/24", "10.1.0.9/24"]
    assert pool.allocate("10.1.0.200") == "10.1.0.200/24"
    with pytest.raises(AddressInUse, match=r"10\.1\.0\.200"):
        pool.allocate("10.1.0.200")


@pytest.mark.parametrize("wanted", ["10.1.0.0", "10.1.0.255", "10.2.0.1", "nonsense"])
def test_addresses_no_container_can_have_are_refused(wanted: str) -> None:
    with pytest.raises(InvalidNetwork):
        ipam.AddressPool("10.1.0.0/24").allocate(wanted)


@pytest.mark.parametrize(
    ("subnet", "ip_range", "reserved"),
    [
        ("10.1.0.1/24", "", {}),
        ("10.1.0.0/31", "", {}),
        ("10.1.0.0/24", "10.2.0.0/25", {}),
        ("10.1.0.0/24", "", {"router": "x"}),
    ],
)
def test_wrong_blocks_are_refused(subnet: str, ip_range: str, reserved: dict[str, str]) -> None:
    with pytest.raises(InvalidNetwork):
        ipam.AddressPool(subnet, ip_range, reserved)


def test_subnets_of_pools_come_in_order() -> None:
    found = ipam.subnets([("10.0.0.0/23", 24), ("10.8.0.0/24", 24)])
    assert list(found) == ["10.0.0.0/24", "10.0.1.0/24", "10.8.0.0/24"]
    everything = ipam.subnets([("10.0.0.0/8", 30)])
    assert ipam.free_subnet(everything, ["10.0.0.0/28"]) == "10.0.0.16/30"


def test_subnets_and_addresses_of_ipv6() -> None:
    chosen = ipam.local_subnet6()
    assert chosen.startswith("fd") and chosen.endswith("/64") and chosen != ipam.local_subnet6()
    pool = ipam.AddressPool("fd00:1::/64", reserved={"gateway": "fd00:1::1"})
    assert [pool.allocate(), pool.allocate("fd00:1::aa"), pool.allocate()] == [
        *("fd00:1::2/64", "fd00:1::aa/64", "fd00:1::3/64")
    ]
    with pytest.raises(SubnetOverlap):
        ipam.check_overlap("fd00::/16", ["10.0.0.0/8", "fd00:1::/64"])
    with pytest.raises(InvalidNetwork, match="/126 or larger"):
        ipam.parse_subnet("fd00::/127")
    with pytest.raises(InvalidNetwork, match="not inside"):
        ipam.AddressPool("10.0.0.0/8", ip_range="fd00::/64")
