"""Speaks HTTP/1.1 to the daemon over a socket that cli.connection has opened, with nothing but the socket module.

`http.client` alone costs more start-up time than a whole command may take, and knows neither unix sockets nor
connection upgrades. One connection is kept for consecutive requests; streams and upgrades get their own.
Invariant: a kept connection is only used again after its last answer was read to the end.
"""

from __future__ import annotations

import contextlib
import io
import json
import socket
from collections.abc import Iterator
from typing import Any

from cli.connection import DEFAULT_HOST, Endpoint, TlsFiles, open_endpoint, unreachable
from cli.errors import ApiError, ProtocolError
from cli.urls import quote_query

ANSWER_SECONDS = 120.0  # for calls that the daemon answers when it is done; streams and waits have no limit
_BLOCK = 65536
_HEADER_BYTES_MAX = 65536

Query = dict[str, Any]
Headers = dict[str, str]


class Response:
    """One answer. Read it by `read`, `json`, `blocks` or `documents`; reading to the end frees the connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._file = io.BufferedReader(socket.SocketIO(connection, "r"), _BLOCK)
        self.status, self.headers = self._read_head()
        self.at_end = self.status in (204, 304)
        self._length = int(self.headers.get("content-length", "-1"))
        self._chunked = "chunked" in self.headers.get("transfer-encoding", "").lower()
        if self._length == 0 and not self._chunked:
            self.at_end = True

    @property
    def keeps_connection(self) -> bool:
        framed = self._chunked or self._length >= 0 or self.status in (204, 304)
        return self.at_end and framed and self.headers.get("connection", "").lower() != "close"

    def _read_head(self) -> tuple[int, dict[str, str]]:
        try:
            line = self._file.readline(_HEADER_BYTES_MAX)
            parts = line.split(None, 2)
            if not line:
                raise ConnectionResetError("the daemon closed the connection without an answer")
            if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
                raise ProtocolError(
                    f"the answer is not HTTP: {line[:80]!r}", hint="is this address swarmd's API?"
                )
            headers: dict[str, str] = {}
            while (line := self._file.readline(_HEADER_BYTES_MAX)) not in (b"\r\n", b"\n", b""):
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.strip().lower()] = value.strip()
        except TimeoutError as error:
            raise ProtocolError(
                "the daemon did not answer in time", hint="is it overloaded? its log tells what it is doing"
            ) from error
        status = int(parts[1])
        if status == 100:
            return self._read_head()
        return status, headers

    def blocks(self) -> Iterator[bytes]:
        """The body as it arrives, in pieces of any size."""
        if self.at_end:
            return
        if self._chunked:
            yield from self._chunks()
        else:
            left = self._length
            while left != 0:
                data = self._file.read1(min(_BLOCK, left) if left > 0 else _BLOCK)
                if not data:
                    if left > 0:
                        raise ProtocolError(
                            "the daemon's answer ended early", hint="did swarmd stop? try again"
                        )
                    break
                left -= len(data) if left > 0 else 0
                yield data
        self.at_end = True

    def _chunks(self) -> Iterator[bytes]:
        while True:
            head = self._file.readline(_HEADER_BYTES_MAX)
            try:
                size = int(head.split(b";")[0], 16)
            except ValueError as error:
                raise ProtocolError(
                    "the daemon's answer ended early", hint="did swarmd stop? try again"
                ) from error
            while size > 0:
                data = self._file.read1(min(size, _BLOCK))
                if not data:
                    raise ProtocolError("the daemon's answer ended early", hint="did swarmd stop? try again")
                size -= len(data)
                yield data
            self._file.readline(_HEADER_BYTES_MAX)
            if head.split(b";")[0].strip(b"0\r\n \t") == b"":
                return

    def read(self) -> bytes:
        return b"".join(self.blocks())

    def json(self) -> Any:
        body = self.read()
        return json.loads(body) if body.strip() else None

    def documents(self) -> Iterator[Any]:
        """A stream of JSON documents, one after the other, as events, stats and progress come."""
        decoder = json.JSONDecoder()
        text, partial = "", b""
        for block in self.blocks():
            data = partial + block
            # A multi-byte character may be cut in two by a block's end.
            cut = len(data) if data.isascii() else _whole_characters(data)
            text, partial = (text + data[:cut].decode()).lstrip(), data[cut:]
            while text:
                try:
                    document, end = decoder.raw_decode(text)
                except ValueError:
                    break
                yield document
                text = text[end:].lstrip()

    def rest_of_buffer(self) -> bytes:
        """After an upgrade: what of the raw stream was already read together with the answer's head."""
        buffered: bytes = self._file.peek() if _has_buffered(self._connection, self._file) else b""
        return buffered

    def close(self) -> None:
        self._file.close()
        self._connection.close()


def _has_buffered(connection: socket.socket, file: io.BufferedReader[Any]) -> bool:
    # peek() reads from the socket when its buffer is empty; a socket that does not block makes that harmless.
    connection.setblocking(False)
    try:
        return bool(file.peek(1))
    except (BlockingIOError, OSError):
        return False
    finally:
        connection.setblocking(True)


def _whole_characters(data: bytes) -> int:
    """The length of the longest prefix of `data` that does not end inside a UTF-8 character."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            width = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - back if width > back else len(data)
        if byte < 0x80:
            return len(data)
    return len(data)


class Client:
    """All calls of one command to the daemon at `host` (cli.connection)."""

    def __init__(self, host: str = DEFAULT_HOST, tls: TlsFiles | None = None) -> None:
        self.host = host
        self._endpoint = Endpoint(host, tls)
        self._kept: socket.socket | None = None

    def another(self) -> Client:
        """The same daemon, over connections of its own: for another thread, or beside a stream."""
        return Client(self._endpoint.host, self._endpoint.tls)

    def open(self) -> socket.socket:
        """A connection on which nothing was said yet."""
        return open_endpoint(self._endpoint)

    # --- plain calls: the body is JSON or nothing, the answer fits in memory ---

    def get(self, path: str, query: Query | None = None) -> Any:
        return self.call("GET", path, query)

    def post(
        self, path: str, body: object = None, query: Query | None = None, headers: Headers | None = None
    ) -> Any:
        return self.call("POST", path, query, body, headers)

    def delete(self, path: str, query: Query | None = None) -> Any:
        return self.call("DELETE", path, query)

    def call(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: object = None,
        headers: Headers | None = None,
    ) -> Any:
        """The decoded JSON of the answer (None when empty); raises ApiError for 4xx and 5xx."""
        response = self._request(method, path, query, body, headers or {})
        try:
            answer = response.json()
        except ValueError as error:
            raise ProtocolError(f"{method} {path}: the answer is not JSON: {error}") from error
        finally:
            self._keep(response)
        return answer

    # --- streams: a connection of their own ---

    def stream(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: object = None,
        *,
        content_type: str = "application/json",
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> Response:
        """An answer to be read bit by bit. `body` may be bytes, a JSON value or a binary file (sent chunked)."""
        connection = open_endpoint(self._endpoint)
        connection.settimeout(timeout)
        # The daemon may answer and hang up before it has read everything: its answer says why.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._send(
                connection, method, path, query, body, {"Content-Type": content_type, **(headers or {})}
            )
        try:
            response = Response(connection)
        except OSError as error:
            connection.close()
            raise unreachable(self.host, error) from error
        _raise_for_status(response)
        return response

    def head(self, path: str, query: Query | None = None) -> dict[str, str] | None:
        """The headers of a HEAD request; None when the answer is an error (which has no words then)."""
        connection = open_endpoint(self._endpoint)
        connection.settimeout(ANSWER_SECONDS)
        try:
            self._send(connection, "HEAD", path, query, None, {})
            response = Response(connection)
        except OSError as error:
            raise unreachable(self.host, error) from error
        finally:
            connection.close()
        return response.headers if response.status < 400 else None

    def upgrade(
        self, path: str, query: Query | None = None, body: object = None
    ) -> tuple[socket.socket, bytes, bool]:
        """POST that turns the connection into a raw byte stream: (socket, bytes already read, multiplexed?)."""
        connection = open_endpoint(self._endpoint)
        self._send(connection, "POST", path, query, body, {"Connection": "Upgrade", "Upgrade": "tcp"})
        try:
            response = Response(connection)
        except OSError as error:
            connection.close()
            raise unreachable(self.host, error) from error
        _raise_for_status(response)
        multiplexed = "multiplexed" in response.headers.get("content-type", "")
        return connection, response.rest_of_buffer(), multiplexed

    # --- underneath ---

    def _request(
        self, method: str, path: str, query: Query | None, body: object, headers: Headers
    ) -> Response:
        response = self._request_on_kept(method, path, query, body, headers)
        if response is None:
            connection = open_endpoint(self._endpoint)
            connection.settimeout(ANSWER_SECONDS)
            try:
                self._send(connection, method, path, query, body, headers)
                response = Response(connection)
            except OSError as error:
                connection.close()
                raise unreachable(self.host, error) from error
        try:
            _raise_for_status(response)
        except ApiError:
            self._keep(response)
            raise
        return response

    def _request_on_kept(
        self, method: str, path: str, query: Query | None, body: object, headers: Headers
    ) -> Response | None:
        """None when no connection is kept, or the daemon closed it before it could have read the request."""
        connection, self._kept = self._kept, None
        if connection is None:
            return None
        try:
            self._send(connection, method, path, query, body, headers)
            return Response(connection)
        except OSError:
            connection.close()
            # An idle connection that ends without an answer was closed while idle. Only calls that change
            # nothing may be sent twice, in case it was not.
            if method == "GET":
                return None
            raise ProtocolError(
                f"{method} {path}: the daemon closed the connection",
                hint="it may have been done: look before you try again",
            ) from None

    def _keep(self, response: Response) -> None:
        if response.keeps_connection and self._kept is None:
            self._kept = response._connection
        else:
            response.close()

    def _send(
        self,
        connection: socket.socket,
        method: str,
        path: str,
        query: Query | None,
        body: object,
        headers: Headers,
    ) -> None:
        source = body if hasattr(body, "read") else None
        payload = b"" if body is None or source is not None else _encode(body)
        lines = [
            f"{method} {path}{quote_query(query or {})} HTTP/1.1",
            "Host: swarmctl",
            "User-Agent: swarmctl",
        ]
        if source is not None:
            lines.append("Transfer-Encoding: chunked")
        elif payload or method == "POST":
            lines.append(f"Content-Length: {len(payload)}")
            headers = {"Content-Type": "application/json"} | headers if payload else headers
        lines += [f"{name}: {value}" for name, value in headers.items()]
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + payload)
        if source is not None:
            _send_chunked(connection, source)

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None


def _encode(body: object) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def _send_chunked(connection: socket.socket, source: Any) -> None:
    while data := source.read(_BLOCK):
        connection.sendall(b"%x\r\n" % len(data) + data + b"\r\n")
    connection.sendall(b"0\r\n\r\n")


def _raise_for_status(response: Response) -> None:
    if response.status < 400:
        return
    body = response.read()
    try:
        message = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        message = body.decode(errors="replace").strip() or f"status {response.status}"
    raise ApiError(response.status, message, response.headers.get("swarmctl-outcome", ""))
