"""Our own terminal while it belongs to a container: raw mode, window size, detach keys, and the byte pump.

Invariant: whatever happens, the terminal gets its old mode back.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import termios
import tty
from collections.abc import Callable, Iterator

from cli.errors import UsageError
from cli.stdcopy import STDERR, STDOUT, Demultiplexer, write_all

DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"
_BLOCK = 65536
_UNSENT_BYTES_MAX = 1 << 20


def is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def window_size(fd: int = 1) -> tuple[int, int]:
    """(rows, columns); (0, 0) when `fd` is no terminal."""
    try:
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, b"\0" * 8))
    except OSError:
        return 0, 0
    return rows, columns


@contextlib.contextmanager
def raw_mode(fd: int = 0) -> Iterator[None]:
    """Every key goes to the container; output keeps its newline translation off, as the container does it."""
    try:
        before = termios.tcgetattr(fd)
    except termios.error:
        yield
        return
    try:
        tty.setraw(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextlib.contextmanager
def following_window_size(resize: Callable[[int, int], None]) -> Iterator[None]:
    """Tells `resize` the size now and at every change."""

    def tell(*_: object) -> None:
        rows, columns = window_size()
        if rows and columns:
            resize(rows, columns)

    before = signal.signal(signal.SIGWINCH, tell)
    try:
        tell()
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


_PROXIED = tuple(
    sig
    for sig in signal.valid_signals()
    if sig
    not in (
        *(signal.SIGCHLD, signal.SIGPIPE, signal.SIGWINCH, signal.SIGURG, signal.SIGKILL, signal.SIGSTOP),
        *(signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTTIN, signal.SIGTTOU),
        *(signal.SIGTSTP, signal.SIGCONT, signal.SIGABRT, signal.SIGTRAP),
    )
    and sig < signal.SIGRTMIN
)


@contextlib.contextmanager
def proxied_signals(forward: Callable[[str], None]) -> Iterator[None]:
    """Signals sent to us go to the container instead (`--sig-proxy`), by name."""

    def handle(number: int, _: object) -> None:
        forward(signal.Signals(number).name)

    before = {sig: signal.signal(sig, handle) for sig in _PROXIED}
    try:
        yield
    finally:
        for sig, handler in before.items():
            signal.signal(sig, handler)


def detach_sequence(text: str) -> bytes:
    """ "ctrl-p,ctrl-q" to the bytes that those keys send."""
    keys = bytearray()
    for key in text.split(","):
        if len(key) == 1 and key.isascii():
            keys += key.encode()
        elif key.startswith("ctrl-") and len(key) == 6 and (key[5].isalpha() or key[5] in "@[\\]^_"):
            keys.append(ord(key[5].upper()) & 0x1F)
        else:
            raise UsageError(f'invalid detach keys "{text}"', hint="such as ctrl-p,ctrl-q or ctrl-x")
    return bytes(keys)


class DetachWatcher:
    """Finds the detach keys in what is typed; keys that begin a sequence are held back until it is clear."""

    def __init__(self, sequence: bytes) -> None:
        self._sequence = sequence
        self._matched = 0

    def feed(self, typed: bytes) -> tuple[bytes, bool]:
        """(what goes to the container, whether the sequence is complete)."""
        passed = bytearray()
        for byte in typed:
            if self._sequence and byte == self._sequence[self._matched]:
                self._matched += 1
                if self._matched == len(self._sequence):
                    return bytes(passed), True
                continue
            passed += self._sequence[: self._matched]
            self._matched = 1 if self._sequence and byte == self._sequence[0] else 0
            if not self._matched:
                passed.append(byte)
        return bytes(passed), False


class Pump:
    """Moves bytes between our stdin/stdout/stderr and an upgraded connection until one side ends it.

    `initial` is what was read of the stream already; `frames` says whether stdout and stderr come in frames.
    """

    def __init__(
        self,
        connection: socket.socket,
        initial: bytes,
        *,
        stdin: bool,
        frames: bool,
        detach_keys: bytes = b"",
    ) -> None:
        self._connection = connection
        self._demultiplexer = Demultiplexer() if frames else None
        self._reads_stdin = stdin
        self._watcher = DetachWatcher(detach_keys)
        self._unsent = b""
        self._stdin_ended = False
        self._typed = False
        self._initial = initial

    def run(self) -> bool:
        """True when the user typed the detach keys, False when the stream has ended."""
        self._deliver(self._initial)
        self._connection.setblocking(False)
        try:
            while True:
                self._send_pending()
                if self._receive_some():
                    return False
                if self._typed_detach():
                    return True
        finally:
            self._connection.setblocking(True)

    def _receive_some(self) -> bool:
        """Waits until something can be done; True at the end of the stream."""
        poller = select.poll()
        poller.register(self._connection, select.POLLIN | (select.POLLOUT if self._unsent else 0))
        if self._reads_stdin and len(self._unsent) < _UNSENT_BYTES_MAX:
            poller.register(0, select.POLLIN)
        events = dict(poller.poll())
        self._typed = 0 in events
        if not events.get(self._connection.fileno(), 0) & (select.POLLIN | select.POLLHUP | select.POLLERR):
            return False
        try:
            data = self._connection.recv(_BLOCK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        self._deliver(data)
        return not data

    def _deliver(self, data: bytes) -> None:
        if self._demultiplexer is None:
            write_all(STDOUT, data)
            return
        for stream, payload in self._demultiplexer.feed(data):
            write_all(STDERR if stream >= STDERR else STDOUT, payload)

    def _typed_detach(self) -> bool:
        if not self._typed:
            return False
        try:
            typed = os.read(0, _BLOCK)
        except OSError:
            typed = b""
        if not typed:
            self._reads_stdin = False
            self._stdin_ended = True
            return False
        passed, detached = self._watcher.feed(typed)
        self._unsent += passed
        return detached

    def _send_pending(self) -> None:
        if self._unsent:
            try:
                self._unsent = self._unsent[self._connection.send(self._unsent) :]
            except BlockingIOError:
                return
            except OSError:
                # The container closed its stdin; its output may still come.
                self._unsent, self._reads_stdin = b"", False
        if self._stdin_ended and not self._unsent:
            self._stdin_ended = False
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_WR)
