"""Calls of one plugin: JSON over HTTP on a unix or TCP socket, each with a bound.

Source: docs.docker.com/engine/extend/plugin_api. A plugin that cannot be reached is tried again after 1, 2, 4, ...
seconds for 30 s in all, as plugins start beside the daemon; a request that may have arrived is never sent twice.
Synchronous and thread-safe; `close` ends the calls that wait.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from engine.errors import EngineFailure

CONTENT_TYPE = "application/vnd.docker.plugins.v1.2+json"
RETRY_WITHIN_S = 30.0
SHORT_S, LONG_S = 60.0, 120.0
ANSWER_BYTES_MAX = 16 << 20


class PluginUnreachable(EngineFailure):
    """Nobody listens at its address."""


class PluginError(EngineFailure):
    """The plugin answered with an error, in its own words."""

    def __init__(self, message: str, status: int = 500) -> None:
        super().__init__(message)
        self.status = status


class TlsFiles(msgspec.Struct, frozen=True, rename="pascal"):
    insecure_skip_verify: bool = False
    ca_file: str = msgspec.field(default="", name="CAFile")
    cert_file: str = ""
    key_file: str = ""


class PluginAddress(msgspec.Struct, frozen=True):
    """`unix:///path` or `tcp://host:port`."""

    url: str
    tls: TlsFiles | None = None


class PluginClient:
    """`within_s`: how long to try to reach it."""

    def __init__(
        self,
        name: str,
        address: PluginAddress,
        *,
        within_s: float = RETRY_WITHIN_S,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        self.name, self.address = name, address
        self._within_s = within_s
        self._clock = clock
        self._closed = threading.Event()
        self._wait = wait or self._closed.wait
        self._open: set[http.client.HTTPConnection] = set()
        self._lock = threading.Lock()

    def call(self, method: str, body: object = None, *, timeout_s: float = SHORT_S) -> dict[str, Any]:
        """The answer. PluginUnreachable; PluginError when it answers with an error or not within the bound."""
        connection = self._connected(timeout_s)
        try:
            return self._ask(connection, method, body, timeout_s)
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def close(self) -> None:
        self._closed.set()
        with self._lock:
            waiting = tuple(self._open)
        for connection in waiting:
            if connection.sock is not None:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)

    def _connected(self, timeout_s: float) -> http.client.HTTPConnection:
        begun, tries = self._clock(), 0
        while True:
            connection = _connection(self.address, timeout_s)
            try:
                connection.connect()
            except (OSError, ssl.SSLError) as error:
                connection.close()
                pause_s = float(2**tries)
                is_over = self._clock() - begun + pause_s >= self._within_s or self._closed.is_set()
                if is_over or isinstance(error, ssl.SSLError):
                    raise PluginUnreachable(
                        f'plugin "{self.name}" does not answer at {self.address.url}: {error.strerror or error}; '
                        "start it, or remove what names it"
                    ) from error
                self._wait(pause_s)
                tries += 1
                continue
            with self._lock:
                self._open.add(connection)
            return connection

    def _ask(
        self, connection: http.client.HTTPConnection, method: str, body: object, timeout_s: float
    ) -> dict[str, Any]:
        headers = {"Accept": CONTENT_TYPE, "Content-Type": CONTENT_TYPE, "Host": "plugin"}
        try:
            connection.request("POST", f"/{method}", msgspec.json.encode(body or {}), headers)
            answer = connection.getresponse()
            data = answer.read(ANSWER_BYTES_MAX + 1)
        except TimeoutError as error:
            raise PluginError(
                f'plugin "{self.name}": {method} was not answered within {timeout_s:.0f} s'
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise PluginError(f'plugin "{self.name}": {method} failed: {error}') from error
        if len(data) > ANSWER_BYTES_MAX:
            raise PluginError(f'plugin "{self.name}": the answer to {method} is too long')
        return self._checked(method, answer.status, data)

    def _checked(self, method: str, status: int, data: bytes) -> dict[str, Any]:
        decoded = _object(data)
        if status != 200:
            told = str((decoded or {}).get("Err") or "") or data.decode(errors="replace").strip()
            raise PluginError(f"{method}: {told or http.client.responses.get(status, status)}", status)
        if decoded is None:
            raise PluginError(f'plugin "{self.name}": the answer to {method} is no JSON object')
        if decoded.get("Err"):
            raise PluginError(f"{method}: {decoded['Err']}")
        return decoded


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("plugin", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        connect_unix(self.sock, self._path)


def connect_unix(connection: socket.socket, path: str) -> None:
    """A socket's path has room for 107 characters: a longer one is reached through a descriptor of its folder."""
    if len(os.fsencode(path)) <= 107:
        connection.connect(path)
        return
    folder = os.open(Path(path).parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{folder}/{Path(path).name}")
    finally:
        os.close(folder)


def _connection(address: PluginAddress, timeout_s: float) -> http.client.HTTPConnection:
    scheme, _, rest = address.url.partition("://")
    if scheme == "unix":
        return _UnixConnection(rest, timeout_s)
    host, _, port = rest.rstrip("/").rpartition(":")
    if address.tls is None or scheme == "http":
        return http.client.HTTPConnection(host.strip("[]"), int(port), timeout=timeout_s)
    context = _tls_context(address.tls)
    return http.client.HTTPSConnection(host.strip("[]"), int(port), timeout=timeout_s, context=context)


def _tls_context(files: TlsFiles) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=files.ca_file or None)
        if files.insecure_skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if files.cert_file:
            context.load_cert_chain(files.cert_file, files.key_file or None)
    except (OSError, ssl.SSLError) as error:
        raise PluginUnreachable(f"the TLS files of a plugin cannot be read: {error}") from error
    return context


def _object(data: bytes) -> dict[str, Any] | None:
    """What VolumeDriver calls may answer: a JSON object, or nothing at all."""
    if not data.strip():
        return {}
    try:
        decoded = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return {} if decoded is None else decoded if isinstance(decoded, dict) else None
