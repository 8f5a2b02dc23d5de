"""Connections between managers: one way each, first in first out, of frames with a length in front.

Every manager dials each of its peers and only writes on that connection; what it hears arrives on the
connections that the peers dialled. Who is at the other end was verified by the dialer and the node's
listener (mutual TLS); the first frame only adds where the sender listens. Invariants: a newer connection
of a peer replaces the older one, whose remaining frames are dropped; frames and buffers are bounded;
whatever does not decode ends its connection. Nothing here is ever unpickled or evaluated.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import struct
from typing import Protocol

from raft import messages
from raft.messages import PROTOCOL_VERSION, AnyMessage, Hello, Message

logger = logging.getLogger(__name__)

FRAME_BYTES_MAX = 64 * 1024 * 1024
BUFFER_BYTES_MAX = 128 * 1024 * 1024
CONGESTED_BYTES = 8 * 1024 * 1024
DIAL_TIMEOUT_S = 3.0
HELLO_TIMEOUT_S = 5.0
BACKOFF_FIRST_S = 0.05
BACKOFF_MAX_S = 1.0
GUESTS_MAX = 32

_LENGTH = struct.Struct(">I")


class Dialer(Protocol):
    """Opens an authenticated connection; the node provides it."""

    async def dial(self, node_id: str, address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return when TLS is done and the peer has proved to be `node_id`. Raises OSError otherwise."""


class Receiver(Protocol):
    """Who is told what happens on the connections; called on the event loop."""

    def on_message(self, node_id: str, message: AnyMessage) -> None: ...

    def on_connected(self, node_id: str) -> None: ...

    def on_disconnected(self, node_id: str) -> None: ...

    def on_inbound_lost(self, node_id: str) -> None:
        """The peer's own connection to us ended, and no newer one has replaced it."""


class Links:
    """All connections of one manager."""

    def __init__(self, hello: Hello, dialer: Dialer, receiver: Receiver) -> None:
        self._hello = hello
        self._dialer = dialer
        self._receiver = receiver
        self._peers: dict[str, str] = {}
        self._guests: dict[str, str] = {}
        self._moved: dict[str, str] = {}  # peers that say they listen elsewhere than the configuration knows
        self._outbound: dict[str, _Outbound] = {}
        self._inbound: dict[str, tuple[asyncio.Task[None], asyncio.StreamWriter]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    def set_peers(self, addresses: dict[str, str]) -> None:
        """Be connected to exactly these nodes, and to guests: senders that are not in our configuration."""
        for node_id, address in addresses.items():
            if address != self._peers.get(node_id):
                self._moved.pop(node_id, None)  # what was agreed on is newer
        self._peers = dict(addresses)
        self._reconcile()

    def send(self, node_id: str, message: Message) -> None:
        """Write now, or drop the message when there is no connection."""
        link = self._outbound.get(node_id)
        if link is not None:
            link.send(messages.encode(message))

    def congested(self, node_id: str) -> bool:
        link = self._outbound.get(node_id)
        return link is not None and link.buffered() > CONGESTED_BYTES

    def accept(self, node_id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take over an inbound connection of that authenticated node."""
        if self._closed:
            writer.close()
            return
        older = self._inbound.pop(node_id, None)
        if older is not None:
            self._end(older[0])
            older[1].close()
        self._inbound[node_id] = asyncio.create_task(self._read(node_id, reader, writer)), writer

    def disconnect(self, node_id: str) -> None:
        """End that node's own connection to us: what it sent on it and was not read yet is dropped."""
        inbound = self._inbound.pop(node_id, None)
        if inbound is not None:
            inbound[1].close()
            self._end(inbound[0])

    async def close(self) -> None:
        self._closed = True
        for _, writer in self._inbound.values():
            writer.close()
        tasks = [task for task, _ in self._inbound.values()]
        tasks.extend(link.task for link in self._outbound.values())
        self._inbound.clear()
        self._outbound.clear()
        for task in tasks:
            self._end(task)
        while self._ending:
            await asyncio.wait(self._ending)
            await asyncio.sleep(0)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        task.cancel()

    def _reconcile(self) -> None:
        moved = {node_id: address for node_id, address in self._moved.items() if node_id in self._peers}
        wanted = {**self._guests, **self._peers, **moved}
        for node_id, link in list(self._outbound.items()):
            if wanted.get(node_id) != link.address:
                del self._outbound[node_id]
                self._end(link.task)
        for node_id, address in wanted.items():
            if node_id not in self._outbound and address:
                self._outbound[node_id] = _Outbound(
                    node_id, address, self._hello, self._dialer, self._receiver
                )

    async def _read(self, node_id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                frame = await _read_frame(reader)
            self._welcome(node_id, messages.decode(frame))
            while True:
                message = messages.decode(await _read_frame(reader))
                self._receiver.on_message(node_id, message)
        except (OSError, EOFError, TimeoutError, ValueError) as err:
            # ValueError is also what msgspec raises for bytes that are no message.
            logger.debug("raft connection from %s ended: %s", node_id, err)
        finally:
            writer.close()
            if self._inbound.get(node_id, (None,))[0] is asyncio.current_task():
                del self._inbound[node_id]
                if self._guests.pop(node_id, None) is not None:
                    self._reconcile()
                self._receiver.on_inbound_lost(node_id)

    def _welcome(self, node_id: str, hello: AnyMessage) -> None:
        ours = self._hello
        if not isinstance(hello, Hello) or hello.version != PROTOCOL_VERSION:
            raise ValueError(f"{node_id} speaks another protocol version")
        if (hello.cluster_id, hello.node_id) != (ours.cluster_id, node_id):
            raise ValueError(f"{node_id} says it is {hello.node_id} of cluster {hello.cluster_id}")
        if node_id in self._peers:
            self._follow(node_id, hello.address)
        elif len(self._guests) < GUESTS_MAX:
            self._guests[node_id] = hello.address
            self._reconcile()

    def _follow(self, node_id: str, address: str) -> None:
        """A member that came back elsewhere must be reachable before its new address can be agreed on."""
        if address == self._peers[node_id]:
            self._moved.pop(node_id, None)
        else:
            self._moved[node_id] = address
        self._reconcile()


class _Outbound:
    """Keeps one connection to one peer open and writes frames to it."""

    def __init__(self, node_id: str, address: str, hello: Hello, dialer: Dialer, receiver: Receiver) -> None:
        self.node_id = node_id
        self.address = address
        self._hello = hello
        self._dialer = dialer
        self._receiver = receiver
        self._writer: asyncio.StreamWriter | None = None
        self.task = asyncio.create_task(self._run())

    def send(self, payload: bytes) -> None:
        writer = self._writer
        if writer is None or writer.is_closing():
            return
        if len(payload) > FRAME_BYTES_MAX or self.buffered() > BUFFER_BYTES_MAX:
            logger.warning("raft connection to %s is stuck: closed", self.node_id)
            with contextlib.suppress(AttributeError):  # until Python 3.11.4, for one that has ended already
                writer.transport.abort()
            return
        writer.write(_LENGTH.pack(len(payload)) + payload)

    def buffered(self) -> int:
        return 0 if self._writer is None else self._writer.transport.get_write_buffer_size()

    async def _run(self) -> None:
        backoff_s = BACKOFF_FIRST_S
        while True:
            try:
                # Not wait_for: until Python 3.12 it forgets a cancellation that comes as the dialling ends.
                async with asyncio.timeout(DIAL_TIMEOUT_S):
                    reader, writer = await self._dialer.dial(self.node_id, self.address)
            except (OSError, EOFError, TimeoutError) as err:
                logger.debug("raft connection to %s at %s failed: %s", self.node_id, self.address, err)
            except Exception:
                # One peer's broken certificate or dialer must not end the attempts for good.
                logger.exception("raft connection to %s at %s failed", self.node_id, self.address)
            else:
                backoff_s = BACKOFF_FIRST_S
                await self._serve(reader, writer)
            await asyncio.sleep(backoff_s * (0.5 + random.random() / 2))
            backoff_s = min(BACKOFF_MAX_S, backoff_s * 2)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        try:
            self.send(messages.encode(self._hello))
            self._receiver.on_connected(self.node_id)
            # The peer never writes here: whatever ends this read ends the connection.
            await reader.read(1)
        except OSError as err:
            logger.debug("raft connection to %s ended: %s", self.node_id, err)
        finally:
            self._writer = None
            writer.close()
            self._receiver.on_disconnected(self.node_id)


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    """Raises EOFError (IncompleteReadError is one), OSError, ValueError when the length is out of bounds."""
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    if not 0 < length <= FRAME_BYTES_MAX:
        raise ValueError(f"frame of {length} bytes, the limit is {FRAME_BYTES_MAX}")
    return await reader.readexactly(length)
