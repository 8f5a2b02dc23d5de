from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.config import ContainerConfig, HostConfig
from engine.errors import InvalidParameter
from engine.name_files import HostFiles, hosts_text, parse_extra_host, resolv_text
from engine.networks import Endpoint, Sandbox
from tests.records import container_record

HOST = HostFiles(
    hosts="127.0.0.1 localhost\n10.0.0.5 gateway",
    resolv="# by hand\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nnameserver oops\nsearch a.example b.example\n"
    "options timeout:1\n",
)


def sandbox(*, embedded_dns: bool = False) -> Sandbox:
    endpoint = Endpoint(
        id="e",
        network="n",
        network_name="n",
        interface="eth0",
        cidr="172.18.0.2/16",
        gateway="172.18.0.1",
        mac="",
    )
    return Sandbox(id="s", netns_path="", endpoints=(endpoint,), embedded_dns=embedded_dns)


def hosts(made: Sandbox | None, domain: str = "", **host: Any) -> list[str]:
    container = container_record(config=ContainerConfig(domainname=domain), host=HostConfig(**host))
    return hosts_text(container, "web-1", made, HOST).splitlines()


def resolv(made: Sandbox | None, **host: Any) -> list[str]:
    return resolv_text(container_record(host=HostConfig(**host)), made, HOST).splitlines()


def test_hosts_of_a_container_with_its_own_address() -> None:
    lines = hosts(sandbox(), "shop.example", extra_hosts=["db:10.1.1.1", "up:host-gateway", "six:fe80::1"])
    assert lines[0] == "127.0.0.1\tlocalhost"
    assert lines[-4:] == [
        "10.1.1.1\tdb",
        "172.18.0.1\tup",
        "fe80::1\tsix",
        "172.18.0.2\tweb-1.shop.example web-1",
    ]


def test_hosts_in_the_hosts_network_are_the_hosts_and_more() -> None:
    assert hosts(None, network_mode="host", extra_hosts=["db:10.1.1.1"]) == [
        "127.0.0.1 localhost",
        "10.0.0.5 gateway",
        "10.1.1.1\tdb",
    ]


def test_names_are_asked_of_the_hosts_servers_but_not_of_its_loopback() -> None:
    assert resolv(sandbox()) == [
        "nameserver 10.0.0.1",
        "search a.example b.example",
        "options timeout:1",
    ]
    assert resolv(None, network_mode="host")[0] == "nameserver 127.0.0.53"


def test_what_the_user_chose_replaces_what_the_host_has() -> None:
    chosen = resolv(sandbox(), dns=["9.9.9.9"], dns_search=["."], dns_options=["rotate"])
    assert chosen == ["nameserver 9.9.9.9", "options rotate"]


def test_where_networks_have_names_our_own_server_is_asked() -> None:
    made = sandbox(embedded_dns=True)
    assert resolv(made, dns=["9.9.9.9"]) == [
        "nameserver 127.0.0.11",
        "search a.example b.example",
        "options timeout:1 ndots:0",
    ]
    assert resolv(made, dns_options=["ndots:3"])[-1] == "options ndots:3"


def test_behind_a_local_resolver_its_servers_are_inherited(tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.53\n")
    assert HostFiles.read(tmp_path, tmp_path).resolv == "nameserver 127.0.0.53\n"
    (tmp_path / "systemd/resolve").mkdir(parents=True)
    (tmp_path / "systemd/resolve/resolv.conf").write_text("nameserver 10.0.0.1\n")
    assert HostFiles.read(tmp_path, tmp_path) == HostFiles(hosts="", resolv="nameserver 10.0.0.1\n")


@pytest.mark.parametrize(
    "entry", ["db", "db:", ":10.1.1.1", "db:nowhere", "a b:10.1.1.1", "x\n1.1.1.1 y:10.1.1.1"]
)
def test_entries_that_are_no_host(entry: str) -> None:
    with pytest.raises(InvalidParameter, match="bad format for add-host"):
        parse_extra_host(entry)
