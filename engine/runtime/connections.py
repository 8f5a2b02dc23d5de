"""The supervisor's connections: who may connect, requests to the dispatcher, replies and events back.

Invariant: a message reaches the dispatcher only while requests are taken (`hold` stops that: what arrives meanwhile
waits in the sockets, new connections in the backlog).
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import msgspec

from engine.runtime import spawn
from engine.runtime.event_loop import EpollPoller
from engine.runtime.wire import Channel, ExitEvent, Message

CLIENTS_MAX = 16
_CREDENTIALS = struct.Struct("3i")


class Missing(Exception):
    """No such container or exec."""


class Refused(Exception):
    """The request does not fit the state; the message says why."""


Dispatch = Callable[[Channel, Message, list[int]], None]


class Connections:
    """Owns the listening socket and the channels."""

    def __init__(self, poller: EpollPoller, dispatch: Dispatch) -> None:
        self._poller = poller
        self._dispatch = dispatch
        self._channels: set[Channel] = set()
        self._held = False
        self._listener: socket.socket | None = None

    def serve(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._poller.watch(listener.fileno(), self._accept)

    @property
    def listener(self) -> int:
        assert self._listener is not None, "the supervisor does not serve yet"
        return self._listener.fileno()

    def hold(self) -> None:
        """Take no request until `release`; replies and events still go out."""
        self._held = True
        self._poller.forget(self.listener)
        for channel in tuple(self._channels):
            self._rearm(channel)

    def release(self) -> None:
        self._held = False
        self._poller.watch(self.listener, self._accept)
        for channel in tuple(self._channels):
            self._rearm(channel)

    def reply(
        self, channel: Channel, serial: int, body: Any = None, descriptors: tuple[int, ...] = ()
    ) -> None:
        self._send(channel, Message(serial, "ok", body), descriptors)

    def fail(self, channel: Channel, serial: int, error: BaseException) -> None:
        if isinstance(error, spawn.ProgramFailed):
            reply = Message(serial, "failed", {"index": error.index, "errno": error.errno})
        elif isinstance(error, OSError):
            reply = Message(serial, "os", {"errno": error.errno or 0, "message": str(error)})
        elif isinstance(error, Missing):
            reply = Message(serial, "missing", {"message": str(error)})
        elif isinstance(error, Refused):
            reply = Message(serial, "refused", {"message": str(error)})
        else:
            log("".join(traceback.format_exception(error)))
            reply = Message(serial, "refused", {"message": f"internal error of the supervisor: {error!r}"})
        self._send(channel, reply)

    def publish(self, event: ExitEvent) -> None:
        for channel in tuple(self._channels):
            self._send(channel, Message(0, "exit", event))

    # ---- inside -------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        assert self._listener is not None, "only a listener that is watched calls"
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, _ = _CREDENTIALS.unpack(credentials)
        if uid not in (0, os.geteuid()) or len(self._channels) >= CLIENTS_MAX:
            sock.close()
            return
        channel = Channel(sock)
        self._channels.add(channel)
        self._poller.watch(sock.fileno(), lambda: self._receive(channel))

    def _receive(self, channel: Channel) -> None:
        try:
            channel.flush()
            messages = [] if self._held else channel.receive()
        except (OSError, msgspec.MsgspecError) as error:
            log(f"connection closed: {error}")
            messages = None
        if messages is None:
            self._drop(channel)
            return
        for message, descriptors in messages:
            self._dispatch(channel, message, descriptors)
        self._rearm(channel)

    def _rearm(self, channel: Channel) -> None:
        if channel not in self._channels:
            return
        descriptor = channel.sock.fileno()
        if self._held and channel.has_output:
            self._poller.watch_writable(descriptor, lambda: self._receive(channel))
        elif self._held:
            self._poller.forget(descriptor)
        elif channel.has_output:
            self._poller.watch_both(descriptor, lambda: self._receive(channel))
        else:
            self._poller.watch(descriptor, lambda: self._receive(channel))

    def _drop(self, channel: Channel) -> None:
        if channel in self._channels:
            self._channels.discard(channel)
            self._poller.forget(channel.sock.fileno())
            channel.close()

    def _send(self, channel: Channel, message: Message, descriptors: tuple[int, ...] = ()) -> None:
        if channel not in self._channels:
            for descriptor in descriptors:
                os.close(descriptor)
            return
        try:
            channel.send(message, descriptors)
        except OSError:
            self._drop(channel)
            return
        self._rearm(channel)


def log(text: str) -> None:
    """To the supervisor's log file, which is its standard error."""
    sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text.rstrip()}\n")
    sys.stderr.flush()
