"""A name server on loopback that does what a test tells it, by UDP and TCP on one port."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import dnslib

from overlay_net.resolvers import Server

Replies = list[bytes]
Behaviour = Callable[[bytes, bool], Replies]


class NameServer(asyncio.DatagramProtocol):
    """`behaviour(query, tcp)` gives the replies, none for silence; TCP takes the first and then closes."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.asked: list[tuple[str, bytes, int]] = []  # protocol, query, the client's port
        self.transport: asyncio.DatagramTransport | None = None

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked.append(("udp", data, addr[1]))
        assert self.transport
        for reply in self.behaviour(data, False):
            self.transport.sendto(reply, addr)

    async def serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        data = await reader.readexactly(length)
        self.asked.append(("tcp", data, writer.get_extra_info("peername")[1]))
        for reply in self.behaviour(data, True)[:1]:
            writer.write(struct.pack("!H", len(reply)) + reply)
        writer.close()


@asynccontextmanager
async def name_server(
    behaviour: Behaviour, *, tcp: bool = True, address: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[tuple[NameServer, Server]]:
    made = NameServer(behaviour)
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as stream:
        stream.bind((address, port))
        chosen = stream.getsockname()[1]
        transport, _ = await loop.create_datagram_endpoint(lambda: made, local_addr=(address, chosen))
        made.transport = transport
        listening = await asyncio.start_server(made.serve_tcp, sock=stream) if tcp else None
        try:
            yield made, Server(address, port=chosen)
        finally:
            transport.close()
            if listening:
                listening.close()


def query(name: str = "example.com", kind: str = "A", *, edns: int = 0) -> bytes:
    made = dnslib.DNSRecord.question(name, kind)
    made.header.id = 0x1234
    if edns:
        made.add_ar(dnslib.EDNS0(udp_len=edns))
    return bytes(made.pack())


def answer(data: bytes, *, records: int = 1, **header: int) -> bytes:
    """The reply to a query with that many addresses, and header fields as wanted."""
    made = dnslib.DNSRecord.parse(data).reply(aa=0)
    for number in range(records):
        made.add_answer(dnslib.RR(made.q.qname, rdata=dnslib.A(f"192.0.2.{number}"), ttl=60))
    for field, value in header.items():
        setattr(made.header, field, value)
    return bytes(made.pack())
