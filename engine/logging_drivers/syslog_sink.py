"""Sending messages to a syslog server: datagrams, streams, and streams over TLS.

A stream that its server has closed is seen before the next message, so that this one is not lost in it; what the kernel
had taken by then may be. A datagram to nobody is lost, as UDP is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl

from engine.config import LogRecord
from engine.logging_drivers.message import Source
from engine.logging_drivers.syslog import SyslogFormat, SyslogTarget

CONNECT_S_MAX = 10.0
SEND_S_MAX = 30.0
LOCAL_SOCKETS = ("/dev/log", "/var/run/syslog", "/var/run/log")


class SyslogSink:
    """Of one container. See `message.Sink`."""

    def __init__(self, target: SyslogTarget, source: Source) -> None:
        self._target = target
        self._format = SyslogFormat(target, source, socket.gethostname(), os.getpid())
        self._datagrams: socket.socket | None = None
        self._stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    @property
    def portion(self) -> int:
        return 64 if self._target.scheme in ("tcp", "tcp+tls", "unix") else 1

    async def check(self) -> None:
        await self._connect()

    async def send(self, record: LogRecord) -> None:
        data = self._format.message(record.stream, record.timestamp_ns, record.data)
        await self._connect()
        if self._datagrams is not None:
            await self._send_datagram(self._datagrams, data)
            return
        assert self._stream is not None, "connected one way or the other"
        _, writer = self._stream
        writer.write(data)
        if writer.transport.get_write_buffer_size() > 0:
            await self.flush()

    async def flush(self) -> None:
        if self._stream is None:
            return
        try:
            async with asyncio.timeout(SEND_S_MAX):
                await self._stream[1].drain()
        except (OSError, TimeoutError) as error:
            self.close()
            raise OSError(f"{self._target.shown}: {error or 'takes nothing'}") from error

    def close(self) -> None:
        if self._datagrams is not None:
            self._datagrams.close()
            self._datagrams = None
        if self._stream is not None:
            self._stream[1].close()
            self._stream = None

    async def _send_datagram(self, sock: socket.socket, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(SEND_S_MAX):
                with contextlib.suppress(ConnectionRefusedError):  # of the one before, if it was UDP
                    await loop.sock_sendall(sock, data)
                    return
                if self._target.scheme == "udp":
                    await loop.sock_sendall(sock, data)
                    return
            raise ConnectionRefusedError("connection refused")
        except (OSError, TimeoutError) as error:
            self.close()
            raise OSError(f"{self._target.shown}: {error or 'takes nothing'}") from error

    async def _connect(self) -> None:
        if self._stream is not None and (self._stream[0].at_eof() or self._stream[1].is_closing()):
            self.close()
        if self._datagrams is not None or self._stream is not None:
            return
        target = self._target
        try:
            async with asyncio.timeout(CONNECT_S_MAX):
                if target.scheme == "":
                    await self._connect_local()
                elif target.scheme == "unix":
                    self._stream = await asyncio.open_unix_connection(target.path)
                elif target.scheme == "unixgram":
                    self._datagrams = _unix_datagrams(target.path)
                elif target.scheme == "udp":
                    self._datagrams = await _udp(target.host, target.port)
                else:
                    context = _tls(target) if target.scheme == "tcp+tls" else None
                    self._stream = await asyncio.open_connection(target.host, target.port, ssl=context)
        except (OSError, TimeoutError) as error:
            raise OSError(f"dial {target.shown}: {_reason(error)}") from error

    async def _connect_local(self) -> None:
        for path in LOCAL_SOCKETS:
            with contextlib.suppress(OSError):
                self._datagrams = _unix_datagrams(path)
                return
            with contextlib.suppress(OSError):
                self._stream = await asyncio.open_unix_connection(path)
                return
        raise OSError("Unix syslog delivery error: there is no syslog socket on this host")


def _reason(error: OSError | TimeoutError) -> str:
    if isinstance(error, TimeoutError) and not str(error):
        return f"no answer in {CONNECT_S_MAX:.0f} s"
    is_kernels = error.errno is not None and not isinstance(error, ssl.SSLError)
    return os.strerror(error.errno or 0).lower() if is_kernels else str(error)


def _unix_datagrams(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


async def _udp(host: str, port: int) -> socket.socket:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
    try:
        sock.connect(address)
    except OSError:
        sock.close()
        raise
    return sock


def _tls(target: SyslogTarget) -> ssl.SSLContext:
    """OSError (also ssl.SSLError) for certificates that cannot be read."""
    context = ssl.create_default_context(cafile=target.ca_cert or None)
    if target.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if target.cert or target.key:
        context.load_cert_chain(target.cert, target.key or None)
    return context
