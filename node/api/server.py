"""Listening on unix sockets: mode 0660, a stale socket file replaced only when nobody answers on it."""

from __future__ import annotations

import grp
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

SOCKET_MODE = 0o660
SHUTDOWN_TIMEOUT_S = 2.0


class SocketInUse(Exception):
    """Another daemon answers on that socket."""


async def serve(app: web.Application, sockets: Sequence[Path], group: str = "") -> web.AppRunner:
    """Start serving; stop with `runner.cleanup()`. SocketInUse names the socket."""
    runner = web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        handler_cancellation=True,
        shutdown_timeout=SHUTDOWN_TIMEOUT_S,
        keepalive_timeout=3600,
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
