from __future__ import annotations

import pytest

from engine.config import ContainerConfig, EndpointConfig, HostConfig
from engine.container import Link
from engine.errors import InvalidParameter, NotFound
from engine.links import checked_links, link_addresses, link_environment, parse_link
from engine.networks import Endpoint, Sandbox
from tests.records import container_record

DB = container_record(
    "db",
    config=ContainerConfig(exposed_ports={"5432/tcp": {}, "80/udp": {}}, env=["PATH=/bin", "MODE=fast"]),
)


def endpoint(network: str, cidr: str) -> Endpoint:
    return Endpoint(
        id="e", network=network, network_name=network, interface="eth0", cidr=cidr, gateway="", mac=""
    )


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("db", ("db", "db")),
        ("db:store", ("db", "store")),
        ("/db:/web/store", ("db", "store")),
    ],
)
def test_the_forms_of_a_link(text: str, parsed: tuple[str, str]) -> None:
    assert parse_link(text) == parsed


@pytest.mark.parametrize("text", ["", ":x", "a:b:c", "a:b c"])
def test_links_that_name_nothing(text: str) -> None:
    with pytest.raises(InvalidParameter, match="bad format for links"):
        parse_link(text)


def test_links_are_to_containers_that_exist_and_have_addresses() -> None:
    def nobody(ref: str) -> object:
        raise NotFound(f"No such container: {ref}")

    with pytest.raises(InvalidParameter, match="could not get container for db"):
        checked_links(HostConfig(links=["db"]), nobody)
    with pytest.raises(InvalidParameter, match="host type networking can't be used with links"):
        checked_links(HostConfig(links=["db"], network_mode="host"), lambda ref: DB)
    assert checked_links(HostConfig(links=["db:store"]), lambda ref: DB) == [
        Link(container_id=DB.id, alias="store")
    ]


def test_the_address_is_the_one_on_the_common_network() -> None:
    web = container_record("web", endpoints={"shop": EndpointConfig()})
    sandbox = Sandbox(
        id="s",
        netns_path="",
        endpoints=(endpoint("bridge", "172.17.0.2/16"), endpoint("shop", "10.0.0.2/24")),
    )
    assert link_addresses(web, "store", DB, sandbox) == ("10.0.0.2", f"store {DB.short_id} db")
    assert link_addresses(web, "db", DB, None) == ("", f"db {DB.short_id}")


def test_variables_of_a_link() -> None:
    web = container_record("web")
    assert list(link_environment(web, "my-db", DB, "172.17.0.2")) == [
        "MY_DB_NAME=/web/my-db",
        "MY_DB_PORT=udp://172.17.0.2:80",
        "MY_DB_PORT_80_UDP=udp://172.17.0.2:80",
        "MY_DB_PORT_80_UDP_ADDR=172.17.0.2",
        "MY_DB_PORT_80_UDP_PORT=80",
        "MY_DB_PORT_80_UDP_PROTO=udp",
        "MY_DB_PORT_5432_TCP=tcp://172.17.0.2:5432",
        "MY_DB_PORT_5432_TCP_ADDR=172.17.0.2",
        "MY_DB_PORT_5432_TCP_PORT=5432",
        "MY_DB_PORT_5432_TCP_PROTO=tcp",
        "MY_DB_ENV_MODE=fast",
    ]
