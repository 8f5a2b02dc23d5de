"""The resolver at 127.0.0.11 of every sandbox that has one: names of its networks, the rest forwarded.

One resolver serves all sandboxes of the node; each has its own sockets, opened inside its namespace on a
free port, to which nftables redirects port 53 (so that a container may have a name server of its own).
Every question gets an answer: what cannot be forwarded, or not in time, is a SERVFAIL.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, TypeVar

from overlay_net import dns_message, dns_names, nft, resolvers
from overlay_net.dns_message import MESSAGE_BYTES_MAX, Question
from overlay_net.dns_names import Visible, Zone
from overlay_net.errors import KernelRefused
from overlay_net.namespaces import Workers, inside
from overlay_net.records import Endpoint
from overlay_net.resolvers import HostServers, Server

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

ADDRESS = "127.0.0.11"
FORWARDS_MAX = 1024  # questions of all sandboxes that wait for a name server
SANDBOX_FORWARDS_MAX = 256  # of these, one sandbox's
CONNECTIONS_MAX = 64  # of one sandbox, by TCP
IDLE_S = 10.0
BACKLOG_BYTES = 1 << 20  # the kernel's usual share holds fewer queries than may wait here

_SO_RCVBUFFORCE = 33  # linux/socket.h; missing in the socket module

Sockets: TypeAlias = tuple[socket.socket, socket.socket]  # UDP, TCP


class _Listener:
    """The sockets of one sandbox, what it may see and whom it asks."""

    def __init__(self, sandbox: str, namespace: Path) -> None:
        self.sandbox = sandbox
        self.namespace = namespace
        self.identity = _identity(namespace)
        self.servers: tuple[Server, ...] | None = None  # None: the host's
        self.ndots_set = False
        self.forwarding = False
        self.networks: list[Visible] = []
        self.udp: asyncio.DatagramTransport | None = None
        self.tcp: asyncio.Server | None = None
        self.forwards: set[asyncio.Task[bytes]] = set()
        self.tasks: set[asyncio.Task[None]] = set()  # replies to come by UDP
        self.connections: set[asyncio.Task[None]] = set()
        self.overloaded = False

    def close(self) -> None:
        if self.udp is not None:
            self.udp.close()
        if self.tcp is not None:
            self.tcp.close()
        for task in (*self.forwards, *self.tasks, *self.connections):
            task.cancel()


class Resolver:
    """`listen` gives the sockets of a namespace; `host` the host's name servers."""

    def __init__(
        self,
        workers: Workers,
        *,
        listen: Callable[[Path], Sockets] | None = None,
        host: HostServers | None = None,
    ) -> None:
        self._workers = workers
        self._listen = listen or _open_sockets
        self._host = host or HostServers()
        self._zones: dict[str, Zone] = {}
        self._listeners: dict[str, _Listener] = {}
        self._forwards: set[asyncio.Task[bytes]] = set()

    # ---- names --------------------------------------------------------------------------------------------

    def set_names(self, network: str, names: Mapping[str, tuple[str, ...]]) -> None:
        """Replace the cluster's names on a network."""
        self._zone(network).set_cluster(names)

    def add_name(self, network: str, sandbox: str, name: str, address: str) -> None:
        self._zone(network).add(sandbox, name, address)

    def forget_network(self, network: str) -> None:
        """It was removed: so are its names."""
        self._zones.pop(network, None)

    def remove_names(self, sandbox: str, network: str = "") -> None:
        """Forget a sandbox's names, on one network or on all."""
        for zone in [self._zones.get(network)] if network else list(self._zones.values()):
            if zone is not None:
                zone.remove(sandbox)

    def set_networks(self, sandbox: str, endpoints: Sequence[Endpoint]) -> None:
        """What the sandbox sees, in order. Without a way out (internal networks only) nothing is forwarded."""
        listener = self._listeners.get(sandbox)
        if listener is not None:
            listener.networks = [Visible(e.network_name, self._zone(e.network)) for e in endpoints]
            listener.forwarding = any(endpoint.gateway for endpoint in endpoints)

    # ---- sandboxes ----------------------------------------------------------------------------------------

    async def open(
        self, sandbox: str, namespace: Path, upstream: Sequence[str], *, ndots_set: bool = False
    ) -> None:
        """Listen inside the namespace; one that listens there already gets the new settings.

        `upstream`: the container's own name servers, asked from inside; without, the host's. `ndots_set`: the
        user gave the option ndots, so the client completes bare names itself and they are not forwarded.
        """
        listener = self._listeners.get(sandbox)
        if listener is None or listener.identity != _identity(namespace):
            listener = await self._opened(sandbox, namespace)
        source = f"container {sandbox[: dns_names.SHORT_ID]}"
        listener.servers = resolvers.servers(upstream, source) if upstream else None
        listener.ndots_set = ndots_set

    async def _opened(self, sandbox: str, namespace: Path) -> _Listener:
        listener = _Listener(sandbox, namespace)
        udp, tcp = await self._workers.run(self._listen, namespace)
        try:
            loop = asyncio.get_running_loop()
            listener.udp, _ = await loop.create_datagram_endpoint(
                lambda: _Datagrams(self, listener), sock=udp
            )
            listener.tcp = await asyncio.start_server(
                lambda reader, writer: self._accept(listener, reader, writer), sock=tcp
            )
        except BaseException:
            listener.close()
            udp.close()
            tcp.close()
            raise
        self.close_sandbox(sandbox)
        self._listeners[sandbox] = listener
        return listener

    def close_sandbox(self, sandbox: str) -> None:
        listener = self._listeners.pop(sandbox, None)
        if listener is not None:
            listener.close()

    async def close(self) -> None:
        ending = [
            task
            for listener in self._listeners.values()
            for task in (*listener.forwards, *listener.tasks, *listener.connections)
        ]
        for sandbox in tuple(self._listeners):
            self.close_sandbox(sandbox)
        await asyncio.gather(*ending, return_exceptions=True)

    # ---- queries ------------------------------------------------------------------------------------------

    def handle_datagram(self, listener: _Listener, data: bytes, peer: tuple[str, int]) -> None:
        reply = self._reply(listener, data, tcp=False)
        if isinstance(reply, bytes):
            _send(listener, reply, peer)
        elif reply is not None:
            forward = self._start_forward(listener, reply, tcp=False)
            _keep(listener.tasks, asyncio.ensure_future(_send_later(listener, forward, peer)))

    def _accept(
        self, listener: _Listener, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if len(listener.connections) >= CONNECTIONS_MAX:
            writer.close()
            return
        _keep(listener.connections, asyncio.ensure_future(self._serve(listener, reader, writer)))

    async def _serve(
        self, listener: _Listener, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """One connection: queries one after the other, until the client closes it or is idle (RFC 7766)."""
        with contextlib.closing(writer), contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                async with asyncio.timeout(IDLE_S):
                    (length,) = struct.unpack("!H", await reader.readexactly(2))
                    data = await reader.readexactly(length)
                reply = self._reply(listener, data, tcp=True)
                if reply is None:
                    return
                if not isinstance(reply, bytes):
                    reply = await self._start_forward(listener, reply, tcp=True)
                writer.write(struct.pack("!H", len(reply)) + reply)
                async with asyncio.timeout(IDLE_S):
                    await writer.drain()

    def _reply(self, listener: _Listener, data: bytes, *, tcp: bool) -> bytes | Question | None:
        """The reply's bytes, the question to forward, or None for what is not to be answered."""
        question = dns_message.read(data)
        if not isinstance(question, Question):
            return question
        records = dns_names.records(question, listener.networks)
        if records is not None:
            return dns_message.fitted(question, records, MESSAGE_BYTES_MAX if tcp else question.udp_bytes)
        if not listener.forwarding or self._is_overloaded(listener):
            return dns_message.failure(question, dns_message.SERVFAIL)
        if listener.ndots_set and _is_bare(question):
            return dns_message.reply(question, ())
        return question

    # ---- forwarding ---------------------------------------------------------------------------------------

    def _is_overloaded(self, listener: _Listener) -> bool:
        """Logged once, until the sandbox has no question under way any more."""
        overloaded = len(listener.forwards) >= SANDBOX_FORWARDS_MAX or len(self._forwards) >= FORWARDS_MAX
        if overloaded and not listener.overloaded:
            logger.warning(
                "container %s: %d questions wait for a name server (%d on this node): others are refused",
                listener.sandbox[: dns_names.SHORT_ID],
                len(listener.forwards),
                len(self._forwards),
            )
            listener.overloaded = True
        return overloaded

    def _start_forward(self, listener: _Listener, question: Question, *, tcp: bool) -> asyncio.Task[bytes]:
        task = asyncio.get_running_loop().create_task(self._forward(listener, question, tcp))
        _keep(listener.forwards, task)
        _keep(self._forwards, task)
        return task

    async def _forward(self, listener: _Listener, question: Question, tcp: bool) -> bytes:
        try:
            if listener.servers is None:
                reply = await resolvers.forward(question, self._host.current(), tcp=tcp)
            else:
                opener = self._opener(listener.namespace)
                reply = await resolvers.forward(question, listener.servers, tcp=tcp, opener=opener)
        finally:
            if len(listener.forwards) <= 1:
                listener.overloaded = False
        return reply or dns_message.failure(question, dns_message.SERVFAIL)

    def _opener(self, namespace: Path) -> resolvers.Opener:
        async def opener(family: int, kind: int) -> socket.socket:
            return await self._workers.run(_open_inside, namespace, family, kind)

        return opener

    def _zone(self, network: str) -> Zone:
        return self._zones.setdefault(network, Zone())


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, resolver: Resolver, listener: _Listener) -> None:
        self._resolver = resolver
        self._listener = listener

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._resolver.handle_datagram(self._listener, data, addr)


def _is_bare(question: Question) -> bool:
    return question.type in (dns_message.A, dns_message.AAAA) and "." not in question.name


def _keep(tasks: set[asyncio.Task[_T]], task: asyncio.Task[_T]) -> None:
    """The loop holds tasks weakly; a set that shrinks by itself holds them, and counts."""
    tasks.add(task)
    task.add_done_callback(tasks.discard)


async def _send_later(listener: _Listener, forward: asyncio.Task[bytes], peer: tuple[str, int]) -> None:
    _send(listener, await forward, peer)


def _send(listener: _Listener, data: bytes, peer: tuple[str, int]) -> None:
    if listener.udp is not None and not listener.udp.is_closing():
        listener.udp.sendto(data, peer)


# ---- namespaces -------------------------------------------------------------------------------------------


def _identity(namespace: Path) -> tuple[int, int]:
    """A namespace that was made anew at the same path is another one."""
    found = namespace.stat()
    return found.st_dev, found.st_ino


def _open_inside(namespace: Path, family: int, kind: int) -> socket.socket:
    try:
        with inside(namespace):
            return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    except KernelRefused as error:
        raise OSError(str(error)) from error


def _open_sockets(namespace: Path) -> Sockets:
    with contextlib.ExitStack() as undo, inside(namespace):
        flags = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        udp = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM | flags))
        tcp = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM | flags))
        udp.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BACKLOG_BYTES)
        udp.bind((ADDRESS, 0))
        tcp.bind((ADDRESS, 0))
        tcp.listen(CONNECTIONS_MAX)
        nft.apply(redirect_rules(udp.getsockname()[1], tcp.getsockname()[1]))
        undo.pop_all()
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
