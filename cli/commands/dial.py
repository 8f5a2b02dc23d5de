"""`swarmctl system dial-stdio`: the far end of an ssh:// address. Each side's end is passed on as such."""

from __future__ import annotations

import os
import select
import socket

import click

from cli.client import Client
from cli.command import command

_BLOCK = 65536


@command("")
@click.pass_obj
def dial_stdio(client: Client) -> None:
    """Proxy the stdio stream to the daemon (for ssh:// addresses)"""
    with client.open() as connection:
        relay(connection, 0, 1)


def relay(connection: socket.socket, source: int, sink: int) -> None:
    """Until the daemon has ended. Blocking writes hold the reading back."""
    poller = select.poll()
    poller.register(connection, select.POLLIN)
    poller.register(source, select.POLLIN)
    while True:
        for descriptor, _ in poller.poll():
            if descriptor == source:
                data = os.read(source, _BLOCK)
                if data:
                    connection.sendall(data)
                else:
                    poller.unregister(source)
                    connection.shutdown(socket.SHUT_WR)
            else:
                data = connection.recv(_BLOCK)
                if not data:
                    return
                view = memoryview(data)
                while view:
                    view = view[os.write(sink, view) :]
