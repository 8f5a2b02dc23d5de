"""What daemon and supervisor say to each other: records and framing on a unix stream socket.

A message is a length (u32, big endian) and MessagePack: `[serial, name, body, descriptors]`. Requests and
their replies share a serial; serial 0 is an event. Descriptors travel with the first bytes of their message,
and a message says how many belong to it. Requests: name is the verb. Replies: "ok", "failed" (a program's
operation: {index, errno}), "os" (an OSError: {errno, message}), "missing", "refused" ({message}).
"""

from __future__ import annotations

import array
import collections
import collections.abc
import os
import socket
import struct
from typing import Any

import msgspec

# The newest and the oldest that this code speaks. What is only added does not raise it: unknown fields are ignored
# and an unknown request is refused. "hello" and "reexec" stay as they are in every version.
PROTOCOL, PROTOCOL_MIN = 2, 2
SOCKET_NAME, LOCK_NAME, LOG_NAME = "supervisor.sock", "supervisor.lock", "supervisor.log"
MESSAGE_BYTES_MAX = 64 * 1024 * 1024
DESCRIPTORS_MAX = 16
MARKER = "swarmctl-supervisor"  # the last argument of every supervisor's command line
_LENGTH = struct.Struct(">I")
_READ_BYTES = 256 * 1024


class ForeignStart(msgspec.Struct, frozen=True, kw_only=True):
    """Another runtime makes the container. `command`: its program with its options, up to the verb; `bundle`: the
    folder with config.json."""

    command: list[str]
    bundle: str


class StartRequest(msgspec.Struct, kw_only=True):
    """Start a container. Paths are the host's; `console_size` is (rows, columns)."""

    id: str
    program: bytes
    clone_flags: int
    pid_namespace: str
    cgroup: str
    resources: dict[str, Any]
    tty: bool
    stdin: bool
    stdin_once: bool
    attachments: int
    log_driver: str
    log_path: str
    log_max_size: int
    log_max_file: int
    console_size: tuple[int, int] | None
    seccomp: bytes
    foreign: ForeignStart | None = None  # with an empty `program`


class ExecRequest(msgspec.Struct, kw_only=True):
    id: str
    exec_id: str
    program: bytes
    tty: bool
    stdin: bool
    console_size: tuple[int, int] | None


class Started(msgspec.Struct, frozen=True):
    """`start_ticks`: field 22 of /proc/<pid>/stat; `started_at`: Unix seconds."""

    pid: int
    start_ticks: int
    started_at: float


class Estate(msgspec.Struct, frozen=True, kw_only=True):
    """What a running container leaves to another supervisor, beside its descriptors.

    These are, in this order: its pidfd; one for each of `outputs` (1 and 2, of a terminal its master as 1); when
    `has_stdin`, the end to write input to. An input that ends with its writer (`stdin_once`) is not left to anybody,
    because whoever holds it keeps it open.
    """

    id: str
    pid: int
    start_ticks: int
    started_at: float
    cgroup: str
    tty: bool
    outputs: tuple[int, ...]
    has_stdin: bool
    stdin_once: bool
    log_driver: str
    log_path: str
    log_max_size: int
    log_max_file: int
    seccomp: bytes


class ContainerState(msgspec.Struct, frozen=True, kw_only=True):
    """A container that the supervisor knows: it runs, or it ended and was not forgotten yet."""

    id: str
    pid: int
    start_ticks: int
    started_at: float
    running: bool
    exit_code: int = 0
    oom_killed: bool = False
    finished_at: float = 0.0


class ExitEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A process ended: `exec_id` None for a container's first one. `exit_code` is 128 + n for signal n."""

    id: str
    exec_id: str | None
    pid: int
    exit_code: int
    oom_killed: bool
    finished_at: float


class Release(msgspec.Struct, frozen=True):
    """One build of the supervisor. `command`: an interpreter and its arguments up to the run folder; `build`: version
    and checksum, which it is told on its command line.
    """

    command: list[str]
    build: str

    def arguments(self, run_dir: str, *options: str) -> list[str]:
        """`options`: with a value each."""
        return [*self.command, run_dir, "--build", self.build, *options, MARKER]


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """Who answers. It speaks the protocols `oldest` to `protocol` (`oldest` 0: that one only).

    `build`: version and checksum of its code, "" before builds were told. `orphans`: containers of a predecessor that
    wait for "adopt"; "settle" ends those that nobody hands over. `exec_ends`: of late, whoever may have missed them.
    """

    pid: int
    protocol: int
    oldest: int = 0
    build: str = ""
    orphans: list[str] = []
    exec_ends: list[ExitEvent] = []


class Message(msgspec.Struct, array_like=True):
    serial: int
    name: str
    body: Any = None
    descriptors: int = 0


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)


class Channel:
    """Both directions of one non-blocking connection; buffers what the socket does not take at once."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._incoming = bytearray()
        self._arrived: collections.deque[int] = collections.deque()
        self._outgoing: collections.deque[tuple[memoryview, tuple[int, ...]]] = collections.deque()

    @property
    def has_output(self) -> bool:
        return bool(self._outgoing)

    @property
    def is_open(self) -> bool:
        """Until `close`."""
        return self.sock.fileno() >= 0

    def send(self, message: Message, descriptors: tuple[int, ...] = ()) -> None:
        """Queue a message and send what fits. The descriptors are owned by the channel and closed after."""
        assert len(descriptors) <= DESCRIPTORS_MAX
        message.descriptors = len(descriptors)
        payload = _encoder.encode(message)
        self._outgoing.append((memoryview(_LENGTH.pack(len(payload)) + payload), descriptors))
        self.flush()

    def flush(self) -> None:
        """Raises OSError when the peer has gone."""
        while self._outgoing:
            view, descriptors = self._outgoing.popleft()
            ancillary = []
            if descriptors:
                ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
            try:
                sent = self.sock.sendmsg([view], ancillary, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                self._outgoing.appendleft((view, descriptors))
                return
            except OSError:
                _close_all(descriptors)
                raise
            _close_all(descriptors)
            if sent < len(view):
                self._outgoing.appendleft((view[sent:], ()))

    def receive(self) -> list[tuple[Message, list[int]]] | None:
        """Messages that are complete, with their descriptors; None when the peer closed."""
        messages: list[tuple[Message, list[int]]] = []
        while True:
            try:
                data, ancillary, flags, _ = self.sock.recvmsg(
                    _READ_BYTES, socket.CMSG_SPACE(4 * DESCRIPTORS_MAX), socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return messages
            if flags & socket.MSG_CTRUNC:
                raise ConnectionError("the kernel dropped descriptors of a message: too many are open")
            for level, kind, content in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    self._arrived.extend(array.array("i", content))
            if not data:
                return messages or None
            self._incoming += data
            messages += self._complete()
            if len(data) < _READ_BYTES and not ancillary:
                return messages

    def _complete(self) -> list[tuple[Message, list[int]]]:
        found = []
        while len(self._incoming) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._incoming)
            if length > MESSAGE_BYTES_MAX:
                raise ConnectionError(f"message of {length} bytes: the peer speaks another protocol")
            end = _LENGTH.size + length
            if len(self._incoming) < end:
                break
            message = _decoder.decode(memoryview(self._incoming)[_LENGTH.size : end])
            del self._incoming[:end]
            found.append((message, [self._arrived.popleft() for _ in range(message.descriptors)]))
        return found

    def close(self) -> None:
        for _, descriptors in self._outgoing:
            _close_all(descriptors)
        self._outgoing.clear()
        _close_all(self._arrived)
        self._arrived.clear()
        self.sock.close()


def _close_all(descriptors: collections.abc.Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
