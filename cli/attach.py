"""Being the terminal of a container or of an exec until it ends or the user detaches."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Callable

from cli.client import Client
from cli.errors import CliError, UsageError
from cli.terminal import Pump, detach_sequence, following_window_size, is_terminal, proxied_signals, raw_mode


def check_terminal(tty: bool, stdin: bool) -> None:
    if tty and stdin and not is_terminal(sys.stdin.fileno()):
        raise UsageError(
            "the input device is not a TTY",
            hint="leave -t out when the input is a pipe or a file",
            exit_code=1,
        )


def resizer(client: Client, path: str) -> Callable[[int, int], None]:
    """Tells the daemon the window's size; a process that has just ended is no error."""

    def resize(rows: int, columns: int) -> None:
        with contextlib.suppress(CliError):
            client.another().post(path, query={"h": rows, "w": columns})

    return resize


def forwarder(client: Client, kill_path: str) -> Callable[[str], None]:
    def forward(name: str) -> None:
        with contextlib.suppress(CliError):
            client.another().post(kill_path, query={"signal": name})

    return forward


def converse(
    connection: socket.socket,
    initial: bytes,
    *,
    tty: bool,
    stdin: bool,
    detach_keys: str,
    resize: Callable[[int, int], None] | None = None,
    forward: Callable[[str], None] | None = None,
) -> bool:
    """Runs until the stream ends (False) or the user detaches (True). `forward` gets signals when there is no tty."""
    raw_input = tty and stdin and is_terminal(0)
    keys = detach_sequence(detach_keys) if raw_input else b""
    pump = Pump(connection, initial, stdin=stdin, frames=not tty, detach_keys=keys)
    with contextlib.ExitStack() as stack:
        stack.callback(connection.close)
        if raw_input:
            stack.enter_context(raw_mode(0))
        if tty and resize is not None:
            stack.enter_context(following_window_size(resize))
        if forward is not None and not raw_input:
            stack.enter_context(proxied_signals(forward))
        return pump.run()
