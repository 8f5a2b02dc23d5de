"""Who has which host port. Real sockets on loopback stand for processes of the host."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from overlay_net import ports
from overlay_net.errors import PortInUse
from overlay_net.ports import HostPorts
from overlay_net.records import Publish


def publish(number: int, *, ip: str = "127.0.0.1", protocol: str = "tcp") -> Publish:
    return Publish(container_port=80, protocol=protocol, host_ip=ip, host_port=number)


@pytest.fixture
def free() -> int:
    """A port that nothing uses, on any address."""
    with socket.socket() as probe, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        probe.bind(("", 0))
        number: int = probe.getsockname()[1]
        datagrams.bind(("", number))
        return number


@pytest.fixture(params=["tcp", "udp"])
def taken(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """A protocol and a port on which a process of the host listens."""
    kind = socket.SOCK_STREAM if request.param == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as listener:
        listener.bind(("127.0.0.1", 0))
        if request.param == "tcp":
            listener.listen()
        yield request.param, listener.getsockname()[1]


@pytest.mark.parametrize(
    ("first", "second", "conflict"),
    [
        (("", "tcp"), ("", "tcp"), True),
        (("", "tcp"), ("127.0.0.1", "tcp"), True),
        (("127.0.0.1", "tcp"), ("", "tcp"), True),
        (("127.0.0.1", "tcp"), ("127.0.0.1", "tcp"), True),
        (("127.0.0.1", "tcp"), ("127.0.0.2", "tcp"), False),
        (("", "tcp"), ("", "udp"), False),
        (("127.0.0.1", "udp"), ("127.0.0.1", "tcp"), False),
    ],
)
def test_what_excludes_what(
    free: int, first: tuple[str, str], second: tuple[str, str], conflict: bool
) -> None:
    held = HostPorts()
    held.reserve("a", [publish(free, ip=first[0], protocol=first[1])])
    wanted = publish(free, ip=second[0], protocol=second[1])
    if conflict:
        with pytest.raises(
            PortInUse, match=f"Bind for {second[0] or '0.0.0.0'}:{free} failed: port is already"
        ):
            held.reserve("b", [wanted])
    else:
        assert held.reserve("b", [wanted]) == (wanted,)


def test_a_released_port_is_free_again(free: int) -> None:
    held = HostPorts()
    reserved = held.reserve("a", [publish(free)])
    held.release(reserved)
    held.release(reserved)
    assert held.reserve("b", [publish(free)]) == reserved


def test_all_or_none(free: int) -> None:
    held = HostPorts()
    held.reserve("a", [publish(free)])
    with pytest.raises(PortInUse):
        held.reserve("b", [publish(free, protocol="udp"), publish(0), publish(free)])
    held.release([publish(free)])
    held.reserve("c", [publish(free), publish(free, protocol="udp")])


def test_the_same_port_twice_in_one_request(free: int) -> None:
    held = HostPorts()
    with pytest.raises(PortInUse):
        held.reserve("a", [publish(free), publish(free)])
    assert held.reserve("a", [publish(free)])


@pytest.mark.parametrize("ip", ["", "127.0.0.1"])
def test_a_port_of_a_process_of_the_host_is_refused(taken: tuple[str, int], ip: str) -> None:
    protocol, number = taken
    with pytest.raises(PortInUse, match="port is already allocated"):
        HostPorts().reserve("a", [publish(number, ip=ip, protocol=protocol)])


def test_connections_that_ended_do_not_hold_a_port(free: int) -> None:
    """The side that closes first keeps the port in TIME_WAIT."""
    with socket.create_server(("127.0.0.1", free)) as server:
        client = socket.create_connection(("127.0.0.1", free))
        served, _ = server.accept()
        served.close()
        assert client.recv(1) == b""
        client.close()
    assert HostPorts().reserve("a", [publish(free)]) == (publish(free),)


def test_an_address_the_host_does_not_have_is_named_as_that() -> None:
    for number in (8080, 0):
        with pytest.raises(
            PortInUse, match=r"Bind for 192\.0\.2\.1:\d+ failed: cannot assign requested address"
        ):
            HostPorts().reserve("a", [publish(number, ip="192.0.2.1")])


def test_chosen_ports_go_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "FIRST", 40000)
    monkeypatch.setattr(ports, "LAST", 40003)
    monkeypatch.setattr(ports, "_bind_problem", lambda publish: "")
    held = HostPorts()

    def chosen(sandbox: str) -> int:
        return held.reserve(sandbox, [publish(0)])[0].host_port

    held.reserve("fixed", [publish(40001)])
    assert [chosen("a"), chosen("b")] == [40000, 40002]
    held.release([publish(40000)])
    assert [chosen("c"), chosen("d")] == [40003, 40000]
    with pytest.raises(PortInUse, match="all 4 ports from 40000 to 40003 are in use"):
        chosen("e")


def test_a_chosen_port_is_not_that_of_a_process(
    taken: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol, number = taken
    monkeypatch.setattr(ports, "FIRST", number)
    monkeypatch.setattr(ports, "LAST", number)
    with pytest.raises(PortInUse, match="are in use: give a host port"):
        HostPorts().reserve("a", [publish(0, protocol=protocol)])


def test_ports_of_an_earlier_life_are_held(free: int) -> None:
    held = HostPorts()
    held.adopt("a", [publish(free)])
    with pytest.raises(PortInUse):
        held.reserve("b", [publish(free, ip="")])
    held.release([publish(free)])
    assert held.reserve("b", [publish(free, ip="")])


def test_all_addresses_of_one_family_leave_the_other_alone(free: int) -> None:
    """0.0.0.0 and :: are every address of their family, "" is every address."""
    held = HostPorts()
    (everywhere,) = held.reserve("a", [publish(free, ip="0.0.0.0")])
    held.adopt("b", [publish(free, ip="::")])
    for taken in ("127.0.0.1", "::1", ""):
        with pytest.raises(PortInUse, match="already allocated"):
            held.reserve("c", [publish(free, ip=taken)])
    held.release([everywhere])
    assert held.reserve("c", [publish(free)])
    with pytest.raises(PortInUse, match=r"Bind for \[::1\]:"):
        held.reserve("d", [publish(free, ip="::1")])
