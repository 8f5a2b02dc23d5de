"""One HTTP request to a daemon's socket, with whatever body and however the answer is to be read."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

from tests.commands import SECONDS_MAX


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("daemon", timeout=SECONDS_MAX)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def call(
    daemon: Path,
    method: str,
    path: str,
    query: Mapping[str, str] | None = None,
    body: bytes | None = None,
    *,
    into: Callable[[bytes], object] | None = None,
    until: threading.Event | None = None,
) -> Answer:
    """`into`: takes the body piece by piece instead of the answer. `until`: hang up as soon as it is set."""
    connection = UnixConnection(daemon)
    try:
        connection.request(method, f"{path}?{urlencode(query or {})}", body)
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        if into is None:
            return Answer(response.status, headers, response.read())
        while (piece := response.read1(1 << 16)) and not (until and until.is_set()):
            into(piece)
        return Answer(response.status, headers, b"")
    finally:
        connection.close()
