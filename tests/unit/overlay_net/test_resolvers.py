"""The host's name servers, and asking one: only what belongs to the question is believed."""

from __future__ import annotations

import logging
import struct
from pathlib import Path

import dnslib
import pytest

from overlay_net import dns_message, resolvers
from overlay_net.dns_message import Question
from overlay_net.resolvers import HostServers, Server
from tests.unit.overlay_net.name_server import answer, name_server, query


def question(**how: int) -> Question:
    found = dns_message.read(query(**how))
    assert isinstance(found, Question)
    return found


def records(reply: bytes | None) -> int:
    assert reply is not None
    return len(dnslib.DNSRecord.parse(reply).rr)


# ---- resolv.conf ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("nameserver 192.0.2.1", [Server("192.0.2.1")]),
        ("nameserver\t192.0.2.1 # office", [Server("192.0.2.1")]),
        ("nameserver 127.0.0.53", [Server("127.0.0.53")]),
        ("nameserver 2001:db8::1", [Server("2001:db8::1")]),
        ("nameserver fe80::1%lo", [Server("fe80::1", scope=1)]),
        ("nameserver fe80::1%1", [Server("fe80::1", scope=1)]),
        ("nameserver fe80::1%nosuch", []),
        ("nameserver fe80::1%99999999999", []),
        ("nameserver fe80::1%", []),
        ("nameserver 192.0.2.1:5353", []),
        ("nameserver [2001:db8::1]:53", []),
        ("nameserver dns.example.com", []),
        ("nameserver 192.0.2.999", []),
        ("nameserver", []),
        ("#nameserver 192.0.2.1", []),
        ("; nameserver 192.0.2.1", []),
        ("search example.com", []),
        ("nameserver \udcff\0", []),
    ],
)
def test_lines_of_resolv_conf(tmp_path: Path, line: str, expected: list[Server]) -> None:
    path = tmp_path / "resolv.conf"
    path.write_bytes(line.encode(errors="surrogateescape"))
    assert list(HostServers(path).current()) == expected


def test_the_first_three_different_ones_count(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("".join(f"nameserver 192.0.2.{n}\n" for n in (1, 1, 2, 3, 4)))
    assert [s.address for s in HostServers(path).current()] == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]


def test_changes_are_seen_and_a_bad_line_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "resolv.conf"
    host = HostServers(path)
    assert host.current() == ()
    path.write_text("nameserver nonsense\nnameserver 192.0.2.1\n")
    for _ in range(3):
        assert host.current() == (Server("192.0.2.1"),)
    assert caplog.text.count("nonsense") == 1
    path.write_text("nameserver 192.0.2.2\n")
    assert host.current() == (Server("192.0.2.2"),)


@pytest.mark.parametrize(
    ("server", "sockaddr"),
    [
        (Server("192.0.2.1"), ("192.0.2.1", 53)),
        (Server("2001:db8::1"), ("2001:db8::1", 53, 0, 0)),
        (Server("fe80::1", scope=3), ("fe80::1", 53, 0, 3)),
    ],
)
def test_socket_addresses(server: Server, sockaddr: tuple[object, ...]) -> None:
    assert server.sockaddr == sockaddr


# ---- asking -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tcp", [False, True])
async def test_a_reply_has_the_clients_id_and_the_server_saw_another(
    monkeypatch: pytest.MonkeyPatch, tcp: bool
) -> None:
    monkeypatch.setattr(dns_message, "random_id", lambda: 0xBEEF)
    async with name_server(lambda data, _: [answer(data)]) as (upstream, server):
        reply = await resolvers.forward(question(), [server], tcp=tcp)
    assert reply == answer(query())
    assert upstream.asked[0][:2] == ("tcp" if tcp else "udp", b"\xbe\xef" + query()[2:])


async def test_ids_and_ports_differ_from_question_to_question() -> None:
    async with name_server(lambda data, _: [answer(data)]) as (upstream, server):
        for _ in range(8):
            await resolvers.forward(question(), [server], tcp=False)
    assert len({data[:2] for _, data, _ in upstream.asked}) > 1
    assert len({port for _, _, port in upstream.asked}) > 1


async def test_forged_replies_are_passed_over() -> None:
    def forging(data: bytes, _: bool) -> list[bytes]:
        (message_id,) = struct.unpack_from("!H", data)
        other = dns_message.with_id(query("example.org"), message_id)
        return [
            answer(data, id=message_id ^ 1, records=9),
            answer(other, records=9),
            data,
            b"",
            data[:2],
            answer(data, records=2),
        ]

    async with name_server(forging) as (_, server):
        assert records(await resolvers.forward(question(), [server], tcp=False)) == 2


async def test_replies_from_another_address_do_not_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolvers, "FORWARD_S", 0.2)
    async with name_server(lambda *_: []) as (silent, server):
        async with name_server(lambda *_: [], address="127.0.0.2") as (other, _):

            def elsewhere(data: bytes, _: bool) -> list[bytes]:
                assert other.transport
                other.transport.sendto(answer(data), ("127.0.0.1", silent.asked[-1][2]))
                return []

            silent.behaviour = elsewhere
            assert await resolvers.forward(question(), [server], tcp=False) is None
    assert silent.asked


async def test_a_forged_reply_by_tcp_is_no_reply() -> None:
    async with name_server(lambda data, _: [answer(query("example.org"), id=data[0])]) as (_, server):
        assert await resolvers.forward(question(), [server], tcp=True) is None


@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize("rcode", [dnslib.RCODE.SERVFAIL, dnslib.RCODE.REFUSED])
async def test_a_server_that_fails_is_passed_over(tcp: bool, rcode: int) -> None:
    async with name_server(lambda data, _: [answer(data, records=0, rcode=rcode)]) as (_, bad):
        async with name_server(lambda data, _: [answer(data, records=2)]) as (_, good):
            assert records(await resolvers.forward(question(), [bad, good], tcp=tcp)) == 2
        assert await resolvers.forward(question(), [bad, bad], tcp=tcp) is None


async def test_a_server_that_is_silent_or_not_there_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolvers, "FORWARD_S", 0.3)
    async with name_server(lambda *_: []) as (_, gone):
        pass
    async with name_server(lambda *_: []) as (_, silent), name_server(lambda d, _: [answer(d)]) as (_, good):
        for tcp in (False, True):
            assert records(await resolvers.forward(question(), [gone, silent, good], tcp=tcp)) == 1
            assert await resolvers.forward(question(), [gone, silent], tcp=tcp) is None
    assert await resolvers.forward(question(), [], tcp=False) is None


async def test_no_such_name_is_an_answer() -> None:
    async with name_server(lambda data, _: [answer(data, records=0, rcode=3)]) as (first, server):
        async with name_server(lambda data, _: [answer(data)]) as (second, other):
            reply = await resolvers.forward(question(), [server, other], tcp=False)
    assert reply and dns_message.rcode_of(reply) == dnslib.RCODE.NXDOMAIN
    assert (len(first.asked), len(second.asked)) == (1, 0)


# ---- replies that are too long ----------------------------------------------------------------------------


def truncating(data: bytes, tcp: bool) -> list[bytes]:
    return [answer(data, records=60) if tcp else answer(data, records=3, tc=1)]


async def test_the_whole_of_a_truncated_reply_is_fetched_by_tcp() -> None:
    async with name_server(truncating) as (upstream, server):
        reply = await resolvers.forward(question(edns=4096), [server], tcp=False)
    assert reply is not None
    assert (records(reply), dns_message.is_truncated(reply)) == (60, False)
    assert [protocol for protocol, _, _ in upstream.asked] == ["udp", "tcp"]


@pytest.mark.parametrize(("edns", "tcp"), [(0, True), (600, True), (4096, False)])
async def test_what_does_not_fit_or_cannot_be_fetched_stays_truncated(edns: int, tcp: bool) -> None:
    async with name_server(truncating, tcp=tcp) as (_, server):
        reply = await resolvers.forward(question(edns=edns), [server], tcp=False)
    assert reply is not None
    assert (records(reply), dns_message.is_truncated(reply)) == (3, True)


async def test_a_reply_longer_than_was_asked_for_is_cut() -> None:
    async with name_server(lambda data, _: [answer(data, records=60)]) as (_, server):
        reply = await resolvers.forward(question(), [server], tcp=False)
    assert reply is not None
    assert (records(reply), dns_message.is_truncated(reply), len(reply) <= 512) == (0, True, True)


async def test_by_tcp_long_replies_are_whole() -> None:
    async with name_server(lambda data, _: [answer(data, records=250)]) as (_, server):
        assert records(await resolvers.forward(question(), [server], tcp=True)) == 250


async def test_the_opener_decides_where_from() -> None:
    opened = []

    async def opener(family: int, kind: int) -> object:
        opened.append((family, kind))
        raise OSError("the namespace is gone")

    assert await resolvers.forward(question(), [Server("192.0.2.1")], tcp=False, opener=opener) is None  # type: ignore[arg-type]
    assert len(opened) == 1


def test_servers_that_users_give_are_checked_too(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = resolvers.servers(["192.0.2.7", "nonsense"], "container abc")
    assert found == (Server("192.0.2.7"),)
    assert "container abc: name server left out" in caplog.text
