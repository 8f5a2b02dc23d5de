"""The resolver on loopback sockets instead of a namespace's: answers, limits, and every question answered."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import dnslib
import pytest

from overlay_net import dns, dns_message
from overlay_net.dns import Resolver
from overlay_net.namespaces import Workers
from overlay_net.records import Endpoint
from overlay_net.resolvers import HostServers, Server
from tests.unit.overlay_net.name_server import answer, name_server, query

SANDBOX = "c0ffee000000" + "f" * 52


class Host(HostServers):
    def __init__(self) -> None:
        super().__init__(Path("/nonexistent"))
        self.servers: list[Server] = []

    def current(self) -> tuple[Server, ...]:
        return tuple(self.servers)


class World:
    """One resolver with one sandbox, and a client of it."""

    def __init__(self, namespace: Path) -> None:
        self.namespace = namespace
        self.host = Host()
        self.workers = Workers(1)
        self.resolver = Resolver(self.workers, listen=self.listen, host=self.host)
        self.ports: list[tuple[int, int]] = []

    def listen(self, namespace: Path) -> dns.Sockets:
        assert namespace == self.namespace
        sockets = tuple(
            socket.socket(socket.AF_INET, kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)
        )
        for each in sockets:
            each.setblocking(False)
            each.bind(("127.0.0.1", 0))
        sockets[1].listen()
        self.ports.append((sockets[0].getsockname()[1], sockets[1].getsockname()[1]))
        return sockets[0], sockets[1]

    async def open(self, *networks: str, upstream: tuple[str, ...] = (), ndots_set: bool = False) -> None:
        await self.resolver.open(SANDBOX, self.namespace, upstream, ndots_set=ndots_set)
        self.resolver.set_networks(SANDBOX, [endpoint(name) for name in networks])

    def client(self) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        made.connect(("127.0.0.1", self.ports[-1][0]))
        return made

    async def udp(self, data: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        with self.client() as client:
            await loop.sock_sendall(client, data)
            async with asyncio.timeout(10):
                return await loop.sock_recv(client, 65535)

    async def tcp(self, *queries: bytes) -> list[bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ports[-1][1])
        replies = []
        async with asyncio.timeout(10):
            for data in queries:
                writer.write(struct.pack("!H", len(data)) + data)
            for _ in queries:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                replies.append(await reader.readexactly(length))
        writer.close()
        return replies

    async def ask(self, name: str, kind: str = "A", *, edns: int = 0) -> dnslib.DNSRecord:
        return dnslib.DNSRecord.parse(await self.udp(query(name, kind, edns=edns)))


def endpoint(name: str) -> Endpoint:
    """On the network `name`; one called internal has no gateway."""
    gateway = "" if name == "internal" else "10.0.1.1"
    return Endpoint(
        id="e", network=f"id-{name}", network_name=name, interface="eth0", cidr="", gateway=gateway, mac=""
    )


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.resolver.close()
    made.workers.close()


# ---- names ------------------------------------------------------------------------------------------------


async def test_names_of_the_sandboxs_networks_only(world: World) -> None:
    await world.open("apps", "internal")
    world.resolver.set_names("id-apps", {"Web": ("10.0.1.2",)})
    world.resolver.add_name("id-internal", "other", "db", "10.0.2.2")
    world.resolver.add_name("id-elsewhere", "other", "hidden", "10.0.3.2")
    assert [str(rr.rdata) for rr in (await world.ask("WEB")).rr] == ["10.0.1.2"]
    assert [str(rr.rdata) for rr in (await world.ask("db.internal")).rr] == ["10.0.2.2"]
    assert (await world.ask("hidden")).header.rcode == dnslib.RCODE.SERVFAIL
    world.resolver.set_networks(SANDBOX, [endpoint("apps")])
    assert (await world.ask("db")).header.rcode == dnslib.RCODE.SERVFAIL
    world.resolver.remove_names("other", "id-internal")
    world.resolver.set_networks(SANDBOX, [endpoint("internal")])
    assert (await world.ask("db")).header.rcode == dnslib.RCODE.SERVFAIL


async def test_a_second_address_family_is_answered_at_once(world: World) -> None:
    await world.open("apps")
    world.resolver.add_name("id-apps", "other", "db", "10.0.1.3")
    reply = await world.ask("db", "AAAA")
    assert (reply.header.rcode, reply.rr, reply.header.aa) == (dnslib.RCODE.NOERROR, [], 1)


async def test_long_answers_are_marked_by_udp_and_whole_by_tcp(world: World) -> None:
    await world.open("apps")
    tasks = tuple(f"10.0.{n >> 8}.{n & 255}" for n in range(300))
    world.resolver.set_names("id-apps", {"tasks.web": tasks})
    short = await world.udp(query("tasks.web"))
    assert dns_message.is_truncated(short)
    assert len(short) <= 512
    longer = await world.udp(query("tasks.web", edns=1400))
    assert dns_message.is_truncated(longer)
    assert 512 < len(longer) <= 1400
    (whole,) = await world.tcp(query("tasks.web"))
    assert not dns_message.is_truncated(whole)
    assert {str(rr.rdata) for rr in dnslib.DNSRecord.parse(whole).rr} == set(tasks)


async def test_several_questions_on_one_connection(world: World) -> None:
    await world.open("apps")
    world.resolver.add_name("id-apps", "other", "db", "10.0.1.3")
    async with name_server(lambda data, _: [answer(data, records=2)]) as (_, server):
        world.host.servers = [server]
        replies = await world.tcp(query("db"), query("example.com"), query("db", "AAAA"))
    assert [len(dnslib.DNSRecord.parse(reply).rr) for reply in replies] == [1, 2, 0]


# ---- what is not understood -------------------------------------------------------------------------------


async def test_refusals_reach_the_client_by_udp_and_tcp(world: World) -> None:
    await world.open("apps")
    malformed = query()[:-1]
    notify = query()[:2] + struct.pack("!H", 4 << 11) + query()[4:]
    for data, rcode in ((malformed, dnslib.RCODE.FORMERR), (notify, dnslib.RCODE.NOTIMP)):
        assert dns_message.rcode_of(await world.udp(data)) == rcode
        assert dns_message.rcode_of((await world.tcp(data))[0]) == rcode


async def test_what_is_no_query_ends_the_connection(world: World) -> None:
    await world.open("apps")
    for data in (b"", b"x", answer(query())):
        with pytest.raises(asyncio.IncompleteReadError):
            await world.tcp(data)


# ---- forwarding -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ndots_set", [False, True])
async def test_bare_names_are_forwarded_unless_the_client_completes_them(
    world: World, ndots_set: bool
) -> None:
    await world.open("apps", ndots_set=ndots_set)
    async with name_server(lambda data, _: [answer(data)]) as (upstream, server):
        world.host.servers = [server]
        for name, kind in (("nosuch", "A"), ("nosuch", "AAAA")):
            reply = await world.ask(name, kind)
            assert (reply.header.rcode, len(reply.rr)) == (0, 0 if ndots_set else 1)
        assert len((await world.ask("nosuch.example", "A")).rr) == 1
        assert len((await world.ask("nosuch", "MX")).rr) == 1
    assert len(upstream.asked) == (2 if ndots_set else 4)


async def test_internal_networks_never_forward(world: World) -> None:
    await world.open("internal", upstream=())
    async with name_server(lambda data, _: [answer(data)]) as (upstream, server):
        world.host.servers = [server]
        assert (await world.ask("example.com")).header.rcode == dnslib.RCODE.SERVFAIL
        (by_tcp,) = await world.tcp(query("example.com"))
        assert dns_message.rcode_of(by_tcp) == dnslib.RCODE.SERVFAIL
        assert upstream.asked == []
        world.resolver.set_networks(SANDBOX, [endpoint("internal"), endpoint("apps")])
        assert len((await world.ask("example.com")).rr) == 1


async def test_without_any_server_the_answer_is_a_failure(world: World) -> None:
    await world.open("apps")
    assert (await world.ask("example.com")).header.rcode == dnslib.RCODE.SERVFAIL


async def test_a_bad_resolv_conf_does_not_keep_a_sandbox_from_opening(world: World, tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver fe80::1%nosuch\nnameserver 192.0.2.1:53\nnameserver nonsense\n")
    world.resolver._host = HostServers(path)
    await world.open("apps")
    assert (await world.ask("example.com")).header.rcode == dnslib.RCODE.SERVFAIL


async def test_own_servers_are_asked_instead_of_the_hosts(world: World) -> None:
    """From inside the namespace, which here is none, so that the question fails."""
    async with name_server(lambda data, _: [answer(data)]) as (upstream, server):
        world.host.servers = [server]
        for own in ("192.0.2.1", "nonsense"):
            await world.open("apps", upstream=(own,))
            assert (await world.ask("example.com")).header.rcode == dnslib.RCODE.SERVFAIL
        assert upstream.asked == []


async def flood(world: World, count: int, answered: int) -> list[int]:
    """Result codes of the first `answered` replies to so many questions sent at once."""
    loop = asyncio.get_running_loop()
    codes = []
    with world.client() as client:
        for _ in range(count):
            client.send(query())
        async with asyncio.timeout(10):
            while len(codes) < answered:
                codes.append(dns_message.rcode_of(await loop.sock_recv(client, 65535)))
    return codes


async def test_questions_above_the_bound_are_refused_and_that_is_logged_once(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dns, "SANDBOX_FORWARDS_MAX", 10)
    await world.open("apps")
    world.resolver.add_name("id-apps", "other", "db", "10.0.1.3")
    waiting: list[bytes] = []

    def hold(data: bytes, _: bool) -> list[bytes]:
        waiting.append(data)
        return []

    async with name_server(hold) as (upstream, server):
        world.host.servers = [server]
        assert await flood(world, 30, 20) == [dnslib.RCODE.SERVFAIL] * 20
        assert len((await world.ask("db")).rr) == 1, "own names are answered all the same"
        assert caplog.text.count("questions wait for a name server") == 1
        for protocol, data, port in upstream.asked:
            assert protocol == "udp" and upstream.transport
            upstream.transport.sendto(answer(data), ("127.0.0.1", port))
        upstream.behaviour = lambda data, _: [answer(data)]
        assert len(waiting) == 10
        while world.resolver._forwards:
            await asyncio.wait(world.resolver._forwards)
        assert len((await world.ask("example.com")).rr) == 1


async def test_all_sandboxes_together_have_a_bound(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "FORWARDS_MAX", 5)
    await world.open("apps")
    async with name_server(lambda *_: []) as (_, server):
        world.host.servers = [server]
        assert await flood(world, 12, 7) == [dnslib.RCODE.SERVFAIL] * 7


async def test_of_three_hundred_questions_at_once_none_is_dropped(world: World) -> None:
    await world.open("apps")
    loop = asyncio.get_running_loop()
    async with name_server(lambda *_: []) as (upstream, server):
        world.host.servers = [server]
        with world.client() as client:

            async def codes(count: int) -> list[int]:
                return [dns_message.rcode_of(await loop.sock_recv(client, 65535)) for _ in range(count)]

            async with asyncio.timeout(20):
                for sent in range(1, 301):
                    client.send(query())
                    while sent <= dns.SANDBOX_FORWARDS_MAX and len(upstream.asked) < sent:
                        await asyncio.sleep(0)
                refused = 300 - dns.SANDBOX_FORWARDS_MAX
                assert await codes(refused) == [dnslib.RCODE.SERVFAIL] * refused
                assert upstream.transport
                for _, data, port in upstream.asked:
                    upstream.transport.sendto(answer(data), ("127.0.0.1", port))
                    assert await codes(1) == [dnslib.RCODE.NOERROR]


# ---- opening and closing ----------------------------------------------------------------------------------


async def test_an_open_sandbox_keeps_its_sockets_and_questions(world: World) -> None:
    await world.open("apps")
    async with name_server(lambda *_: []) as (upstream, server):
        world.host.servers = [server]
        loop = asyncio.get_running_loop()
        with world.client() as client:
            await loop.sock_sendall(client, query())
            while not upstream.asked:
                await asyncio.sleep(0)
            await world.open("apps", "internal")
            assert upstream.transport
            _, data, port = upstream.asked[0]
            upstream.transport.sendto(answer(data), ("127.0.0.1", port))
            assert await loop.sock_recv(client, 65535) == answer(query())
    assert len(world.ports) == 1


async def test_a_namespace_made_anew_gets_new_sockets(world: World, tmp_path: Path) -> None:
    await world.open("apps")
    world.namespace = tmp_path / "again"
    world.namespace.touch()
    await world.open("apps")
    assert len(world.ports) == 2
    await world.ask("example.com")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", world.ports[0][0]))


async def test_closing_ends_connections_and_questions_under_way(world: World) -> None:
    await world.open("apps")
    async with name_server(lambda *_: []) as (upstream, server):
        world.host.servers = [server]
        reader, writer = await asyncio.open_connection("127.0.0.1", world.ports[0][1])
        writer.write(struct.pack("!H", len(query())) + query())
        with world.client() as client:
            client.send(query())
            while not upstream.asked:
                await asyncio.sleep(0)
            world.resolver.close_sandbox(SANDBOX)
            async with asyncio.timeout(10):
                assert await reader.read() == b""
            while world.resolver._forwards:
                await asyncio.wait(world.resolver._forwards)
        writer.close()
    world.resolver.close_sandbox(SANDBOX)


async def test_a_crowd_of_connections_is_turned_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "CONNECTIONS_MAX", 2)
    await world.open("apps")
    world.resolver.add_name("id-apps", "other", "db", "10.0.1.3")
    held = [await asyncio.open_connection("127.0.0.1", world.ports[0][1]) for _ in range(2)]
    for reader, writer in held:
        writer.write(struct.pack("!H", len(query("db"))) + query("db"))
        await reader.readexactly(2)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await world.tcp(query("db"))
    for _, writer in held:
        writer.close()


async def test_an_idle_connection_is_closed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "IDLE_S", 0.05)
    await world.open("apps")
    reader, writer = await asyncio.open_connection("127.0.0.1", world.ports[0][1])
    async with asyncio.timeout(10):
        assert await reader.read() == b""
    writer.close()


async def test_when_listening_fails_nothing_is_open(world: World) -> None:
    def fails(namespace: Path) -> dns.Sockets:
        raise OSError("no such namespace")

    world.resolver._listen = fails
    with pytest.raises(OSError, match="no such namespace"):
        await world.open("apps")
    assert world.resolver._listeners == {}


def test_port_53_of_the_resolvers_address_leads_to_its_sockets() -> None:
    rules = dns.redirect_rules(1111, 2222)
    assert "ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:1111" in rules
    assert "ip daddr 127.0.0.11 tcp dport 53 dnat to 127.0.0.11:2222" in rules
    assert rules.lstrip().startswith("table ip swarmctl_dns {}\ndelete table ip swarmctl_dns\n")
