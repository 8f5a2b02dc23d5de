"""The rules for virtual addresses and published ports, as text."""

from __future__ import annotations

from overlay_net.ingress import mark_of, node_rules, task_rules
from overlay_net.loadbalancer import vip_rules
from overlay_net.records import MapBackend, MapGateway, MapPort, MapVip


def vip(address: str, *backends: str) -> MapVip:
    members = tuple(MapBackend(address=backend) for backend in backends)
    return MapVip(service_id="s", service_name="web", address=address, backends=members)


def test_virtual_addresses() -> None:
    rules = vip_rules([vip("10.0.1.9"), vip("10.0.1.2", "10.0.1.3", "10.0.1.4"), vip("10.0.1.5", "10.0.1.6")])
    assert [line.strip() for line in rules.splitlines() if "daddr" in line] == [
        "ip daddr 10.0.1.9 ct state new reject",
        "ip daddr 10.0.1.2 dnat to numgen inc mod 2 map { 0 : 10.0.1.3, 1 : 10.0.1.4 }",
        "ip daddr 10.0.1.5 dnat to 10.0.1.6",
    ]
    assert rules.startswith("table ip swarmctl_vip {}\ndelete table ip swarmctl_vip\n")


def test_published_port_on_a_node() -> None:
    members = (MapBackend(address="10.0.0.6"), MapBackend(address="10.0.0.7"))
    port = MapPort(
        protocol="tcp", published=8080, target=80, service_id="s", service_name="web", backends=members
    )
    idle = MapPort(protocol="udp", published=53, target=53, service_id="t", service_name="dns")
    rules = node_rules([port, idle], "10.0.0.0/24")
    wanted = (
        "fib daddr type local tcp dport 8080 dnat ip addr . port to "
        "numgen inc mod 2 map { 0 : 10.0.0.6 . 80, 1 : 10.0.0.7 . 80 }"
    )
    assert rules.count(wanted) == 2
    assert "dport 53" not in rules
    assert all("ct status dnat" in line for line in rules.splitlines() if "masquerade" in line)


def gateway(address: str) -> MapGateway:
    last = int(address.rpartition(".")[2])
    return MapGateway(address=address, mac=f"02:42:0a:00:00:{last:02x}", node_address=f"10.77.0.{last}")


def test_a_node_keeps_its_mark_when_others_come_and_go() -> None:
    alone = task_rules("eth1", "10.0.0.0/24", "172.18.0.2", [gateway("10.0.0.9")])
    crowd = task_rules("eth1", "10.0.0.0/24", "172.18.0.2", [gateway(f"10.0.0.{n}") for n in (9, 2, 5)])
    assert "02:42:0a:00:00:09 : 0x10009" in alone
    assert "02:42:0a:00:00:09 : 0x10009" in crowd
    assert "0x10009 : 02:42:0a:00:00:09" in crowd
    assert mark_of("10.0.3.9") == 0x10309


def test_without_gateways_there_are_no_rules() -> None:
    assert "chain" not in task_rules("eth1", "10.0.0.0/24", "", [])
