"""Reading the kernel's lists: what rtnl packs is read back, and how an answer in several messages ends."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import cast

import pytest

from overlay_net import netlink, rtnl
from overlay_net.errors import KernelRefused

HEADER = struct.Struct("IHHII")
MULTI, INTERRUPTED = 0x2, 0x12
LINK, ERROR, DONE = 16, 2, 3
NOTHING_WRONG = struct.pack("i", 0)


class Kernel:
    """Its list, whatever is asked for."""

    def __init__(self, *messages: bytes) -> None:
        self._bodies = [message[HEADER.size :] for message in messages]

    def dump(self, kind: int, request: bytes, what: str) -> list[bytes]:
        return self._bodies


def kernel(*messages: bytes) -> rtnl.Connection:
    return cast(rtnl.Connection, Kernel(*messages))


class Socket:
    """Answers each request with the next list of reads."""

    def __init__(self, *answers: Sequence[bytes]) -> None:
        self._answers = list(answers)
        self._reads: list[bytes] = []
        self.requests = 0

    def send(self, data: bytes) -> None:
        self.requests += 1
        self._reads += self._answers.pop(0)

    def recv(self, size: int) -> bytes:
        return self._reads.pop(0)


class Connection(rtnl.Connection):
    def __init__(self, *answers: Sequence[bytes]) -> None:
        self.socket = Socket(*answers)
        self._socket = self.socket  # type: ignore[assignment]


def message(kind: int, body: bytes, flags: int = MULTI) -> bytes:
    padding = b"\0" * (-len(body) % 4)
    return HEADER.pack(HEADER.size + len(body), kind, flags, 0, 0) + body + padding


def test_a_vxlan_device_is_read_as_it_was_packed() -> None:
    made = rtnl.new_vxlan("vx0", vni=4097, local="10.77.0.1", port=4789, mtu=1450, master=7)
    found = netlink.links(kernel(made))
    assert list(found) == ["vx0"]
    link = found["vx0"]
    assert (link.kind, link.up, link.mtu, link.master) == ("vxlan", True, 1450, 7)
    assert (link.vni, link.local, link.peer) == (4097, "10.77.0.1", 0)
    assert link.mac.startswith("02:")  # its own, locally administered


def test_a_bridge_has_its_address_and_nothing_of_a_vxlan() -> None:
    made = rtnl.new_bridge("br0", mtu=1500, mac="02:42:0a:00:00:02", index=9)
    link = netlink.links(kernel(made))["br0"]
    assert (link.index, link.kind, link.mac) == (9, "bridge", "02:42:0a:00:00:02")
    assert (link.vni, link.local, link.master) == (0, "", 0)


def test_addresses_are_listed_by_device() -> None:
    made = [
        rtnl.new_address(3, "10.0.1.5/24"),
        rtnl.new_address(3, "10.0.2.5/16"),
        rtnl.new_address(4, "10.9.0.1/32"),
    ]
    assert netlink.addresses(kernel(*made)) == {3: {"10.0.1.5/24", "10.0.2.5/16"}, 4: {"10.9.0.1/32"}}


def test_entries_of_other_devices_are_left_out() -> None:
    here, there = ("02:42:0a:00:01:05", "10.77.0.2"), ("02:42:0a:00:01:06", "10.77.0.3")
    made = [*rtnl.forwarding(5, [here]), *rtnl.forwarding(6, [there])]
    assert netlink.forwarding(kernel(*made), 5) == {here}
    addresses = [*rtnl.neighbours(5, [("10.0.1.5", here[0])]), *rtnl.neighbours(6, [("10.0.1.6", there[0])])]
    assert netlink.neighbours(kernel(*addresses), 5) == {("10.0.1.5", here[0])}


def test_the_default_route_is_no_subnet() -> None:
    assert netlink.route_subnets(kernel(rtnl.default_route("10.0.0.1"))) == []


def test_a_list_may_take_several_reads() -> None:
    reads = [
        message(LINK, b"one ") + message(LINK, b"two "),
        message(LINK, b"three"),
        message(DONE, NOTHING_WRONG),
    ]
    assert Connection(reads).dump(18, b"", "cannot list") == [b"one ", b"two ", b"three"]


def test_a_list_that_changed_meanwhile_is_read_again() -> None:
    torn = [message(LINK, b"old ", INTERRUPTED), message(DONE, NOTHING_WRONG)]
    whole = [message(LINK, b"new ") + message(DONE, NOTHING_WRONG)]
    connection = Connection(torn, whole)
    assert connection.dump(18, b"", "cannot list") == [b"new "]
    assert connection.socket.requests == 2


def test_a_list_that_never_holds_still_is_an_error() -> None:
    torn = [message(DONE, NOTHING_WRONG, INTERRUPTED)]
    with pytest.raises(KernelRefused, match="cannot list devices: they change all the time"):
        Connection(*[torn] * 10).dump(18, b"", "cannot list devices")


@pytest.mark.parametrize("kind", [ERROR, DONE])
def test_a_refusal_says_what_was_asked(kind: int) -> None:
    reads = [message(LINK, b"one "), message(kind, struct.pack("i", -22))]
    with pytest.raises(KernelRefused, match="cannot list devices: Invalid argument") as refusal:
        Connection(reads).dump(18, b"", "cannot list devices")
    assert refusal.value.code == 22
