"""Listening: on unix sockets (mode 0660, a stale file replaced only when nobody answers on it), and on other ones.

Everything that is served, served by one HTTP server; TLS stands before it (tls_door).
"""

from __future__ import annotations

import grp
import logging
import os
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from node.api.takeover import TakeoverRunner
from node.api.tls_door import TlsDoor

SOCKET_MODE = 0o660
SHUTDOWN_TIMEOUT_S = 2.0
HEAD_BYTES_MAX = (
    1 << 20
)  # as Go's server: build arguments, filters and credentials of many registries are long
DOORS = web.AppKey("doors", list[TlsDoor])


class _OurFaults(logging.Filter):
    """What is no HTTP is the client's to know: a trace for each would fill the daemon's log."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


class SocketInUse(Exception):
    """Another daemon answers on that socket."""


async def serve(app: web.Application, sockets: Sequence[Path], group: str = "") -> web.AppRunner:
    """Start serving; stop with `runner.cleanup()`. SocketInUse names the socket."""
    app[DOORS] = []
    log = logging.getLogger("aiohttp.server")
    if not any(isinstance(known, _OurFaults) for known in log.filters):
        log.addFilter(_OurFaults())
    app.on_shutdown.append(_close_doors)
    runner = TakeoverRunner(
        app,
        access_log=None,
        handle_signals=False,
        handler_cancellation=True,
        shutdown_timeout=SHUTDOWN_TIMEOUT_S,
        keepalive_timeout=3600,
        max_line_size=HEAD_BYTES_MAX,
        max_field_size=HEAD_BYTES_MAX,
        auto_decompress=False,  # Docker takes a body as it comes; who reads an archive sees what it is
    )
    await runner.setup()
    for path in sockets:
        _free(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        await web.UnixSite(runner, str(path)).start()
        path.chmod(SOCKET_MODE)
        if group:
            os.chown(path, -1, grp.getgrnam(group).gr_gid)
    return runner


async def serve_also(runner: web.AppRunner, listening: socket.socket, tls: ssl.SSLContext | None) -> None:
    """On a socket that is bound, and closed with the runner. TLS is for TCP only, as Docker has it."""
    if tls is None or listening.family == socket.AF_UNIX:
        await web.SockSite(runner, listening).start()
        return
    assert runner.server is not None
    door = TlsDoor(runner.server, tls)
    await door.open(listening)
    runner.app[DOORS].append(door)


def bound(address: str, port: int) -> list[socket.socket]:
    """A TCP socket for each address of the name. OSError names address and port."""
    found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    made: list[socket.socket] = []
    try:
        for family, target in dict.fromkeys((row[0], row[4]) for row in found):
            listening = socket.socket(family, socket.SOCK_STREAM)
            made.append(listening)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind(target)
    except OSError as error:
        for listening in made:
            listening.close()
        raise OSError(error.errno, f"listen tcp {address}:{port}: {error.strerror}") from error
    return made


async def _close_doors(app: web.Application) -> None:
    for door in app[DOORS]:
        await door.close()


def _free(path: Path) -> None:
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise SocketInUse(f"{path} is served by another daemon: stop it, or choose another --host")
