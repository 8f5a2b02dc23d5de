"""The HTTP client against a scripted server on a unix socket: framing, reuse, streams, upgrades, errors."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.client import Client
from cli.connection import Endpoint, open_endpoint
from cli.errors import ApiError, DaemonUnreachable, ProtocolError, UsageError
from cli.urls import quote, quote_query, unquote

OK = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{"a":1}'


class Server:
    """Answers each request with the next scripted bytes; `requests` has the heads and bodies it saw.

    An answer that is None closes the connection instead.
    """

    def __init__(self, path: Path) -> None:
        self.host = f"unix://{path}"
        self.answers: list[bytes | None] = []
        self.requests: list[bytes] = []
        self.connections = 0
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as reader:
            while request := _read_request(reader):
                self.requests.append(request)
                answer = self.answers.pop(0)
                if answer is None:
                    return
                connection.sendall(answer)
                if b"Connection: close" in answer or b" 101 " in answer:
                    return


def _read_request(reader: io.BufferedReader) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = reader.readline()
        if not line:
            return b""
        head += line
    body = b""
    if b"chunked" in head:
        while size := int(reader.readline(), 16):
            body += reader.read(size)
            reader.readline()
        reader.readline()
    elif b"Content-Length: " in head:
        body = reader.read(int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0]))
    return head + body


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path / "s")
    yield running
    running.close()


def test_a_connection_is_used_again(server: Server) -> None:
    server.answers = [OK, OK, b"HTTP/1.1 204 No Content\r\n\r\n", OK]
    client = Client(server.host)
    assert client.get("/a") == {"a": 1}
    assert client.post("/b", {"x": True}, {"q": "ü &", "skip": None}) == {"a": 1}
    assert client.delete("/c") is None
    assert client.get("/d") == {"a": 1}
    assert server.connections == 1
    head, _, body = server.requests[1].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /b?q=%C3%BC%20%26 HTTP/1.1\r\n")
    assert body == b'{"x": true}'


def test_a_connection_that_was_closed_while_idle_is_replaced_for_reading_only(server: Server) -> None:
    server.answers = [OK, None, OK, None]
    client = Client(server.host)
    client.get("/a")
    assert client.get("/b") == {"a": 1}
    with pytest.raises(ProtocolError, match="POST /c"):
        client.post("/c")


def test_chunked_answers(server: Server) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1,\r\n4;x=y\r\n2,3]\r\n0\r\n\r\n"
    server.answers = [chunked, OK]
    client = Client(server.host)
    assert client.get("/a") == [1, 2, 3]
    assert client.get("/b") == {"a": 1}
    assert server.connections == 1


def test_errors_carry_the_daemons_words(server: Server) -> None:
    body = b'{"message":"No such container: x"}'
    server.answers = [b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n" % len(body) + body]
    with pytest.raises(ApiError, match="Error response from daemon: No such container: x") as caught:
        Client(server.host).get("/containers/x/json")
    assert caught.value.status == 404
    assert (caught.value.outcome, caught.value.hint) == ("", "")


@pytest.mark.parametrize(("outcome", "hint"), [("none", ""), ("unknown", "look whether it was done")])
def test_failed_change_says_whether_to_look_first(server: Server, outcome: str, hint: str) -> None:
    head = f"HTTP/1.1 503 Service Unavailable\r\nSwarmctl-Outcome: {outcome}\r\nContent-Length: 2\r\n\r\n{{}}"
    server.answers = [head.encode()]
    with pytest.raises(ApiError) as caught:
        Client(server.host).post("/secrets/create", {})
    assert caught.value.outcome == outcome
    assert caught.value.hint.startswith(hint) and bool(caught.value.hint) is bool(hint)


def test_documents_cut_inside_a_character(server: Server) -> None:
    text = '{"a":"é"}\n{"b":[1]}'.encode()
    middle = text.index("é".encode()) + 1
    pieces = [text[:middle], text[middle:-3], text[-3:]]
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    server.answers = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body]
    assert list(Client(server.host).stream("GET", "/events").documents()) == [{"a": "é"}, {"b": [1]}]


def test_files_are_sent_chunked(server: Server) -> None:
    server.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]
    content = b"x" * 200_000
    Client(server.host).stream(
        "POST", "/images/load", None, io.BytesIO(content), content_type="application/x-tar"
    )
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert b"Content-Type: application/x-tar" in head
    assert body == content


def test_upgrade_gives_what_came_with_the_answer(server: Server) -> None:
    head = b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n\r\n"
    server.answers = [head + b"first"]
    connection, initial, multiplexed = Client(server.host).upgrade("/containers/x/attach")
    rest = connection.recv(100)
    connection.close()
    assert (initial + rest, multiplexed) == (b"first", True)
    assert b"Upgrade: tcp" in server.requests[0]


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\n123", b"HELO\r\n"]
)
def test_broken_answers_are_reported(server: Server, answer: bytes) -> None:
    server.answers = [answer]
    client = Client(server.host)
    if b"HELO" in answer:
        with pytest.raises(ProtocolError, match="not HTTP"):
            client.get("/a")
    else:
        with pytest.raises(ProtocolError, match="ended early"):
            client.get("/a")


def test_no_daemon_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        DaemonUnreachable, match=r"Cannot connect .* Is the docker daemon running\?"
    ) as caught:
        open_endpoint(Endpoint(f"unix://{tmp_path}/none"))
    assert "swarmd" in caught.value.hint


@pytest.mark.parametrize(
    "host", ["", "nonsense", "ftp://x", "tcp://host", "unix://", "ssh://", "ssh://-x", "ssh://a:b@c"]
)
def test_bad_addresses(host: str) -> None:
    with pytest.raises(UsageError, match="invalid daemon address"):
        open_endpoint(Endpoint(host))


@pytest.mark.parametrize(
    ("function", "value", "expected"),
    [
        (quote, "a b/ü", "a%20b%2F%C3%BC"),
        (lambda text: quote(text, keep="/"), "a/b:1", "a/b:1"),
        (unquote, "a%20b%zz%C3%BC", "a b%zzü"),
    ],
)
def test_percent_encoding(function: Callable[[str], str], value: str, expected: str) -> None:
    assert function(value) == expected


def test_queries() -> None:
    assert quote_query({}) == ""
    assert quote_query({"a": True, "b": None, "c": ["x", "y"], "f": {"k": ["v"]}}) == (
        "?a=1&c=x&c=y&f=%7B%22k%22:%20%5B%22v%22%5D%7D"
    )
