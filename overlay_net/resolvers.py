"""Name servers that are asked for what is not ours: which the host has, and how one is asked.

Each question goes out with a random id from a socket of its own (a random port), connected so that the
kernel drops what other addresses send; a reply counts when it repeats id and question (RFC 5452).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from overlay_net import dns_message
from overlay_net.dns_message import Question

logger = logging.getLogger(__name__)

RESOLV_CONF = Path("/etc/resolv.conf")
PORT = 53
SERVERS_MAX = 3  # as resolv.conf(5)
FORWARD_S = 4.5  # for all servers together: clients give up after 5 s
COMPLETE_S = 1.0  # for the whole of a truncated reply; the truncated one is better than none
_USELESS = (dns_message.SERVFAIL, dns_message.REFUSED)


@dataclass(frozen=True, slots=True)
class Server:
    """`scope` is the interface of a link-local IPv6 address, by number; 0 for all others."""

    address: str
    scope: int = 0
    port: int = PORT

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.address else socket.AF_INET

    @property
    def sockaddr(self) -> tuple[str, int] | tuple[str, int, int, int]:
        ends = (self.address, self.port)
        return (*ends, 0, self.scope) if self.family is socket.AF_INET6 else ends


# Gives a socket of that family and kind; the namespace it was opened in is the one it is used from.
Opener: TypeAlias = Callable[[int, int], Awaitable[socket.socket]]


def server(text: str) -> Server:
    """An address, IPv6 ones perhaps with %interface. ValueError says what is wrong."""
    address = ipaddress.ip_address(text)
    scope = getattr(address, "scope_id", None)
    if scope is None:
        return Server(str(address))
    try:
        number = int(scope) if scope.isdecimal() else socket.if_nametoindex(scope)
        socket.if_indextoname(number)
    except (OSError, OverflowError) as error:
        raise ValueError(f"{text!r}: there is no interface {scope}") from error
    return Server(str(address).partition("%")[0], number)


def servers(texts: Iterable[str], source: str) -> tuple[Server, ...]:
    """The first three that are usable; the others are logged."""
    found: dict[Server, None] = {}
    for text in texts:
        try:
            found[server(text)] = None
        except ValueError as error:
            logger.warning("%s: name server left out: %s", source, error)
    return tuple(found)[:SERVERS_MAX]


def nameservers(resolv_conf: str) -> list[str]:
    """The arguments of the `nameserver` lines, as they stand."""
    words = [line.split() for line in resolv_conf.splitlines()]
    return [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]


class HostServers:
    """The host's name servers as they are now; the file is read again when it has changed."""

    def __init__(self, path: Path = RESOLV_CONF) -> None:
        self._path = path
        self._text: str | None = None
        self._servers: tuple[Server, ...] = ()

    def current(self) -> tuple[Server, ...]:
        """Loopback addresses too: we ask from the host's namespace, where a local cache listens on one."""
        try:
            text = self._path.read_text(errors="replace")
        except OSError:
            text = ""
        if text != self._text:
            self._text = text
            self._servers = servers(nameservers(text), str(self._path))
        return self._servers


async def open_here(family: int, kind: int) -> socket.socket:
    return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)


async def forward(
    question: Question, asked: Sequence[Server], *, tcp: bool, opener: Opener = open_here
) -> bytes | None:
    """The first server's useful reply with the question's id, or None within FORWARD_S.

    A server that fails or refuses is passed over for the next. A reply to a UDP question fits the client.
    """
    for each in asked:
        try:
            async with asyncio.timeout(FORWARD_S / len(asked)):
                reply = await (_by_tcp if tcp else _by_udp)(question, each, opener)
        except OSError as error:  # TimeoutError is one
            logger.debug("name server %s: %s", each.address, error or "no answer")
            continue
        if dns_message.rcode_of(reply) not in _USELESS:
            return dns_message.with_id(reply, question.header.id)
    return None


async def _by_udp(question: Question, asked: Server, opener: Opener) -> bytes:
    message_id = dns_message.random_id()
    with await opener(asked.family, socket.SOCK_DGRAM) as connection:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(connection, asked.sockaddr)
        await loop.sock_sendall(connection, dns_message.with_id(question.data, message_id))
        reply = b""
        while not dns_message.answers(question, message_id, reply):
            reply = await loop.sock_recv(connection, dns_message.MESSAGE_BYTES_MAX)
    return await _completed(question, reply, asked, opener)


async def _completed(question: Question, reply: bytes, asked: Server, opener: Opener) -> bytes:
    """A truncated reply's whole, when the client has more room than the server used."""
    if dns_message.is_truncated(reply) and question.udp_bytes > dns_message.UDP_BYTES_MIN:
        with contextlib.suppress(OSError):
            async with asyncio.timeout(COMPLETE_S):
                whole = await _by_tcp(question, asked, opener)
                if len(whole) <= question.udp_bytes:
                    return whole
    return reply if len(reply) <= question.udp_bytes else dns_message.truncated(question)


async def _by_tcp(question: Question, asked: Server, opener: Opener) -> bytes:
    message_id = dns_message.random_id()
    query = dns_message.with_id(question.data, message_id)
    with await opener(asked.family, socket.SOCK_STREAM) as connection:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(connection, asked.sockaddr)
        await loop.sock_sendall(connection, struct.pack("!H", len(query)) + query)
        (length,) = struct.unpack("!H", await _read(connection, 2))
        reply = await _read(connection, length)
    if not dns_message.answers(question, message_id, reply):
        raise ConnectionError("its reply belongs to another question")
    return reply


async def _read(connection: socket.socket, length: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < length:
        part = await loop.sock_recv(connection, length - len(data))
        if not part:
            raise ConnectionError("it closed the connection")
        data += part
    return data
