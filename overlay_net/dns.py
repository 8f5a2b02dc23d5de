"""The resolver at 127.0.0.11 of every sandbox that has one: names of its networks, the rest forwarded.

One resolver serves all sandboxes of the node; each has its own sockets, opened inside its namespace on a
free port, to which nftables redirects port 53 (so that a container may have a name server of its own).
Answers live TTL_S seconds: names follow tasks. Wire format: RFC 1035 by dnslib.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import dnslib

from overlay_net import nft
from overlay_net.namespaces import Workers, inside

logger = logging.getLogger(__name__)

ADDRESS = "127.0.0.11"
TTL_S = 3
FORWARD_TIMEOUT_S = 2.0
FORWARDS_MAX = 64
MESSAGE_BYTES_MAX = 65535
_REVERSE = ".in-addr.arpa"


class Zone:
    """The names of one network: those of the cluster (replaced as a whole) and those of local containers."""

    def __init__(self) -> None:
        self.cluster: dict[str, tuple[str, ...]] = {}
        self.local: dict[str, dict[str, str]] = {}

    def addresses(self, name: str) -> tuple[str, ...]:
        return self.cluster.get(name, ()) or tuple(self.local.get(name, {}).values())

    def knows(self, name: str) -> bool:
        return name in self.cluster or name in self.local

    def name_of(self, address: str) -> str:
        """The shortest name with that address, or ""."""
        names = [name for name, addresses in self.cluster.items() if address in addresses]
        names += [name for name, holders in self.local.items() if address in holders.values()]
        return min(names, key=len, default="")


def answer(query: dnslib.DNSRecord, zones: Sequence[Zone], turn: int) -> dnslib.DNSRecord | None:
    """The reply from the zones, or None when somebody else has to be asked. Pure. `turn` rotates answers."""
    name = str(query.q.qname).rstrip(".").lower()
    reply = query.reply()
    reply.header.ra = 1
    if query.q.qtype == dnslib.QTYPE.PTR and name.endswith(_REVERSE):
        address = ".".join(reversed(name.removesuffix(_REVERSE).split(".")))
        found = next((known for zone in zones if (known := zone.name_of(address))), "")
        if not found:
            return None
        reply.add_answer(dnslib.RR(query.q.qname, dnslib.QTYPE.PTR, rdata=dnslib.PTR(found), ttl=TTL_S))
        return reply
    zone = next((zone for zone in zones if zone.knows(name)), None)
    if zone is None:
        return None
    addresses = zone.addresses(name)
    if query.q.qtype in (dnslib.QTYPE.A, dnslib.QTYPE.ANY) and addresses:
        first = turn % len(addresses)
        for address in addresses[first:] + addresses[:first]:
            reply.add_answer(dnslib.RR(query.q.qname, dnslib.QTYPE.A, rdata=dnslib.A(address), ttl=TTL_S))
    return reply


class _Listener:
    """The sockets of one sandbox and what it may see."""

    def __init__(self, upstream: Sequence[str]) -> None:
        self.upstream = tuple(upstream)
        self.networks: list[str] = []
        self.udp: asyncio.DatagramTransport | None = None
        self.tcp: asyncio.Server | None = None

    def close(self) -> None:
        if self.udp is not None:
            self.udp.close()
        if self.tcp is not None:
            self.tcp.close()


class Resolver:
    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._zones: dict[str, Zone] = {}
        self._listeners: dict[str, _Listener] = {}
        self._forwards = asyncio.Semaphore(FORWARDS_MAX)
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = 0

    # ---- names --------------------------------------------------------------------------------------------

    def set_names(self, network: str, names: Mapping[str, tuple[str, ...]]) -> None:
        """Replace the cluster's names on a network."""
        self._zone(network).cluster = {name.lower(): addresses for name, addresses in names.items()}

    def add_name(self, network: str, sandbox: str, name: str, address: str) -> None:
        self._zone(network).local.setdefault(name.lower(), {})[sandbox] = address

    def remove_names(self, sandbox: str, network: str = "") -> None:
        """Forget a sandbox's names, on one network or on all."""
        for zone in [self._zone(network)] if network else list(self._zones.values()):
            for name in [name for name, holders in zone.local.items() if sandbox in holders]:
                del zone.local[name][sandbox]
                if not zone.local[name]:
                    del zone.local[name]

    def set_networks(self, sandbox: str, networks: Sequence[str]) -> None:
        if sandbox in self._listeners:
            self._listeners[sandbox].networks = list(networks)

    # ---- sandboxes ----------------------------------------------------------------------------------------

    async def open(self, sandbox: str, namespace: Path, upstream: Sequence[str]) -> None:
        """Listen inside the namespace; an open one is replaced."""
        self.close_sandbox(sandbox)
        udp, tcp = await self._workers.run(_open_sockets, namespace)
        loop = asyncio.get_running_loop()
        listener = _Listener(upstream)
        self._listeners[sandbox] = listener
        transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self, listener), sock=udp)
        listener.udp = transport
        listener.tcp = await asyncio.start_server(
            lambda reader, writer: self._serve_tcp(listener, reader, writer), sock=tcp
        )

    def close_sandbox(self, sandbox: str) -> None:
        listener = self._listeners.pop(sandbox, None)
        if listener is not None:
            listener.close()

    async def close(self) -> None:
        for sandbox in tuple(self._listeners):
            self.close_sandbox(sandbox)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---- queries ------------------------------------------------------------------------------------------

    def handle_datagram(self, listener: _Listener, data: bytes, peer: tuple[str, int]) -> None:
        reply = self._local_reply(listener, data)
        if isinstance(reply, bytes):
            self._send(listener, reply, peer)
        elif reply is not None and len(self._tasks) < 4 * FORWARDS_MAX:
            task = asyncio.get_running_loop().create_task(self._forward_datagram(listener, reply, data, peer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _local_reply(self, listener: _Listener, data: bytes) -> bytes | dnslib.DNSRecord | None:
        """The reply's bytes, the parsed query to forward, or None for what is no query."""
        try:
            query = dnslib.DNSRecord.parse(data)
            self._turn += 1
            reply = answer(query, [self._zone(network) for network in listener.networks], self._turn)
            return query if reply is None else bytes(reply.pack())
        except (dnslib.DNSError, ValueError, IndexError, UnicodeError):
            return None

    async def _forward_datagram(
        self, listener: _Listener, query: dnslib.DNSRecord, data: bytes, peer: tuple[str, int]
    ) -> None:
        self._send(listener, await self._forward(listener, query, data), peer)

    async def _serve_tcp(
        self, listener: _Listener, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while True:
                async with asyncio.timeout(10):
                    (length,) = struct.unpack(">H", await reader.readexactly(2))
                    data = await reader.readexactly(length)
                reply = self._local_reply(listener, data)
                if reply is None:
                    return
                if not isinstance(reply, bytes):
                    reply = await self._forward(listener, reply, data)
                writer.write(struct.pack(">H", len(reply)) + reply)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            return
        finally:
            writer.close()

    async def _forward(self, listener: _Listener, query: dnslib.DNSRecord, data: bytes) -> bytes:
        """An upstream server's answer; NXDOMAIN without one, SERVFAIL when none answers."""
        servers = listener.upstream or host_servers()
        async with self._forwards:
            for server in servers[:3]:
                try:
                    async with asyncio.timeout(FORWARD_TIMEOUT_S):
                        return await _ask(server, data)
                except (OSError, TimeoutError):
                    continue
        reply = query.reply()
        reply.header.rcode = dnslib.RCODE.SERVFAIL if servers else dnslib.RCODE.NXDOMAIN
        return bytes(reply.pack())

    def _send(self, listener: _Listener, data: bytes, peer: tuple[str, int]) -> None:
        if listener.udp is not None and not listener.udp.is_closing():
            listener.udp.sendto(data, peer)

    def _zone(self, network: str) -> Zone:
        return self._zones.setdefault(network, Zone())


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, resolver: Resolver, listener: _Listener) -> None:
        self._resolver = resolver
        self._listener = listener

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._resolver.handle_datagram(self._listener, data, addr)


def host_servers() -> tuple[str, ...]:
    """Name servers of the host that a container's query can be sent to."""
    try:
        lines = Path("/etc/resolv.conf").read_text().splitlines()
    except OSError:
        return ()
    words = [line.split() for line in lines]
    servers = [word[1] for word in words if len(word) > 1 and word[0] == "nameserver"]
    return tuple(
        server for server in servers if not ipaddress.ip_address(server.partition("%")[0]).is_loopback
    )


async def _ask(server: str, data: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as connection:
        connection.connect((server, 53))
        await loop.sock_sendall(connection, data)
        return await loop.sock_recv(connection, MESSAGE_BYTES_MAX)


def _open_sockets(namespace: Path) -> tuple[socket.socket, socket.socket]:
    with inside(namespace):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        udp.bind((ADDRESS, 0))
        tcp.bind((ADDRESS, 0))
        tcp.listen(64)
        nft.apply(redirect_rules(udp.getsockname()[1], tcp.getsockname()[1]))
    return udp, tcp


def redirect_rules(udp_port: int, tcp_port: int) -> str:
    """Queries to port 53 of the resolver's address go to its sockets. Replaces what was there."""
    return f"""
table ip swarmctl_dns {{}}
delete table ip swarmctl_dns
table ip swarmctl_dns {{
  chain output {{
    type nat hook output priority -110
    ip daddr {ADDRESS} udp dport 53 dnat to {ADDRESS}:{udp_port}
    ip daddr {ADDRESS} tcp dport 53 dnat to {ADDRESS}:{tcp_port}
  }}
}}
"""
