"""A small client of the API over a unix socket: one kept connection per thread, no client library's costs."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any


class Api:
    def __init__(self, path: str) -> None:
        self._path = path
        self._connection = self._connect()

    def _connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("localhost", timeout=60)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(self._path)
        return connection

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Decoded JSON, or the bytes of another type. RuntimeError for an error status."""
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        kind = "application/x-tar" if isinstance(body, bytes) else "application/json"
        self._connection.request(method, path, data, {"Content-Type": kind} if data is not None else {})
        response = self._connection.getresponse()
        answer = response.read()
        if response.status >= 400:
            raise RuntimeError(f"{method} {path}: {response.status} {answer.decode(errors='replace')}")
        is_json = "json" in response.headers.get("Content-Type", "")
        is_stream = path.endswith("load") or path.startswith("/build")
        return json.loads(answer) if answer and is_json and not is_stream else answer

    def run(self, image: str, command: list[str], network: str) -> None:
        """Create, start, wait for the exit, remove: what `docker run --rm` does."""
        container = self.create(image, command, network)
        self.call("POST", f"/containers/{container}/start")
        self.call("POST", f"/containers/{container}/wait")
        self.call("DELETE", f"/containers/{container}")

    def create(self, image: str, command: list[str], network: str) -> str:
        made = self.call(
            "POST",
            "/containers/create",
            {"Image": image, "Cmd": command, "HostConfig": {"NetworkMode": network}},
        )
        return str(made["Id"])

    def execute(self, container: str, command: list[str]) -> None:
        """An exec whose output is read to its end."""
        made = self.call(
            "POST",
            f"/containers/{container}/exec",
            {"Cmd": command, "AttachStdout": True, "AttachStderr": True},
        )
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(self._path)
            body = b'{"Detach":false,"Tty":false}'
            stream.sendall(
                f"POST /exec/{made['Id']}/start HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                f"Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            while stream.recv(65536):
                pass
