"""TLS to a daemon, behind a plain socket: a thread encrypts what goes out and decrypts what comes in.

Python's TLS sockets cannot end one direction and go on reading, which attach and exec need after their input; and
what they have decrypted already does not wake a `poll`. Invariant: buffers are bounded; the thread ends with either side.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading

from cli.errors import DaemonUnreachable

HANDSHAKE_SECONDS = 10.0
_BLOCK = 65536
_PENDING_MAX = 1 << 18


def tunnel(raw: socket.socket, context: ssl.SSLContext, name: str, host: str) -> socket.socket:
    """The plain end. DaemonUnreachable when the two do not trust each other."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
    try:
        raw.settimeout(HANDSHAKE_SECONDS)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                raw.sendall(outgoing.read())
                data = raw.recv(_BLOCK)
                if not data:
                    raise ConnectionResetError("the daemon ended the connection") from None
                incoming.write(data)
        raw.sendall(outgoing.read())
        raw.setblocking(False)
    except (ssl.SSLError, OSError) as error:
        raw.close()
        raise DaemonUnreachable(
            f"Cannot connect to the swarmctl daemon at {host}: TLS failed: {error}",
            hint="is it a TLS port, and are --tlscacert, --tlscert and --tlskey those of this daemon?",
        ) from error
    plain, inner = socket.socketpair()
    inner.setblocking(False)
    threading.Thread(target=_Tunnel(raw, inner, tls, incoming, outgoing).run, daemon=True).start()
    return plain


class _Tunnel:
    def __init__(
        self,
        raw: socket.socket,
        inner: socket.socket,
        tls: ssl.SSLObject,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
    ) -> None:
        self._raw, self._inner = raw, inner
        self._tls, self._incoming, self._outgoing = tls, incoming, outgoing
        self._to_raw, self._to_inner = bytearray(), bytearray()
        self._input_ended = self._answer_ended = False

    def run(self) -> None:
        try:
            self._decrypt()
            while not self._answer_ended or self._to_inner:
                self._step()
        except (OSError, ssl.SSLError) as error:
            self._explain(error)
        finally:
            self._inner.close()
            self._raw.close()

    def _step(self) -> None:
        self._to_raw += self._outgoing.read()
        poller = select.poll()
        raw_events = select.POLLOUT if self._to_raw else 0
        raw_events |= select.POLLIN if len(self._to_inner) < _PENDING_MAX and not self._answer_ended else 0
        inner_events = select.POLLOUT if self._to_inner else 0
        reads_input = len(self._to_raw) < _PENDING_MAX and not self._input_ended
        inner_events |= select.POLLIN if reads_input else 0
        poller.register(self._raw, raw_events)
        if inner_events:
            poller.register(self._inner, inner_events)
        ready = dict(poller.poll())
        if ready.get(self._raw.fileno(), 0) & select.POLLOUT:
            del self._to_raw[: self._raw.send(self._to_raw)]
        if ready.get(self._raw.fileno(), 0) & (select.POLLIN | select.POLLHUP | select.POLLERR):
            self._receive()
        if ready.get(self._inner.fileno(), 0) & select.POLLOUT:
            del self._to_inner[: self._inner.send(self._to_inner)]
        if reads_input and ready.get(self._inner.fileno(), 0) & (select.POLLIN | select.POLLHUP):
            self._encrypt()

    def _receive(self) -> None:
        data = self._raw.recv(_BLOCK)
        if data:
            self._incoming.write(data)
            self._decrypt()
        else:
            self._answer_ended = True

    def _decrypt(self) -> None:
        while not self._answer_ended:
            try:
                data = self._tls.read(_BLOCK)
            except ssl.SSLWantReadError:
                return
            except ssl.SSLZeroReturnError:  # instead of nothing, when our own direction has ended already
                data = b""
            self._to_inner += data
            self._answer_ended = not data

    def _encrypt(self) -> None:
        data = self._inner.recv(_BLOCK)
        if data:
            self._tls.write(data)
            return
        self._input_ended = True
        try:
            self._tls.unwrap()  # says that this was all; the answer goes on
        except ssl.SSLError:
            return

    def _explain(self, error: Exception) -> None:
        """A daemon refuses a client's certificate after the handshake; whoever reads gets an answer that says so."""
        if isinstance(error, ssl.SSLError) and "alert" in str(error).lower():
            text = f"TLS failed: the daemon refused our certificate: {error}"
            head = f"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: {len(text)}\r\n\r\n{text}"
            try:
                self._inner.send(head.encode())
            except OSError:
                return
