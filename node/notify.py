"""Telling systemd that the daemon is ready, or stopping (sd_notify(3), Type=notify)."""

from __future__ import annotations

import logging
import os
import socket

logger = logging.getLogger(__name__)


def notify(state: str) -> None:
    """`READY=1` or `STOPPING=1`; without a service manager nothing happens.

    What goes wrong is logged only: a daemon that serves must not end because nobody listens to that.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.sendto(state.encode(), address)
    except OSError as error:
        logger.warning("the service manager at %s was not told %s: %s", address, state, error)
