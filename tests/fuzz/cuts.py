"""Requests that are not HTTP as it should be: cut, pipelined, with lengths that lie, with methods nobody has."""

from __future__ import annotations

import random

from tests.fuzz.shapes import OPERATIONS

METHODS = (
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "PATCH",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "PROPFIND",
    "get",
    "X" * 300,
)
PATHS = tuple(
    dict.fromkeys(op.path.replace("{id}", "nosuch").replace("{name}", "nosuch") for op in OPERATIONS)
)
_POST = b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
_PING = b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n"
_CREATE = b'{"Image": "nosuch"}'
_CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n13\r\n" + _CREATE + b"\r\n0\r\n\r\n"

CUTS: dict[str, bytes] = {
    "nothing": b"",
    "a line's beginning": b"GET /cont",
    "no headers' end": b"GET /info HTTP/1.1\r\nHost: x\r\nX-A: ",
    "no such version": b"GET /info HTTP/9.9\r\n\r\n",
    "no version": b"GET /info\r\n\r\n",
    "no host": b"GET /info HTTP/1.1\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "HTTP 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(50),
    "zeros": bytes(5000),
    "an absolute target": b"GET http://elsewhere/info HTTP/1.1\r\nHost: x\r\n\r\n",
    "an absolute target that is none": b"GET http://[::1/info HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target without a slash": b"GET info HTTP/1.1\r\nHost: x\r\n\r\n",
    "a star": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "an authority": b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "an authority without port": b"CONNECT elsewhere:x HTTP/1.1\r\nHost: x\r\n\r\n",
    "bytes in the target": b"GET /containers/\xff\xfe/json HTTP/1.1\r\nHost: x\r\n\r\n",
    "a zero in the target": b"GET /containers/a\0b/json HTTP/1.1\r\nHost: x\r\n\r\n",
    "two slashes": b"GET //info HTTP/1.1\r\nHost: x\r\n\r\n",
    "three slashes": b"GET ///containers///json HTTP/1.1\r\nHost: x\r\n\r\n",
    "a long target": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a long header": b"GET /info HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 200_000 + b"\r\n\r\n",
    "many headers": b"GET /info HTTP/1.1\r\nHost: x\r\n" + b"X-A: b\r\n" * 20_000 + b"\r\n",
    "a folded header": b"GET /info HTTP/1.1\r\nHost: x\r\nX-A: a\r\n  b\r\n\r\n",
    "a header without a name": b"GET /info HTTP/1.1\r\n: x\r\n\r\n",
    "an absurd length": _POST + b"Content-Length: 99999999999999999999\r\n\r\n" + _CREATE,
    "a long length": _POST + b"Content-Length: 20000000\r\n\r\n" + _CREATE,
    "a negative length": _POST + b"Content-Length: -1\r\n\r\n" + _CREATE,
    "a length of letters": _POST + b"Content-Length: x\r\n\r\n" + _CREATE,
    "two lengths": _POST + b"Content-Length: 5\r\nContent-Length: 19\r\n\r\n" + _CREATE,
    "a short length": _POST + b"Content-Length: 3\r\n\r\n" + _CREATE,
    "a body too few": _POST + b"Content-Length: 500\r\n\r\n" + _CREATE,
    "no length": _POST + b"\r\n" + _CREATE,
    "a length and chunks": _POST + b"Content-Length: 19\r\n" + _CHUNKED,
    "chunks that end early": _POST + b"Transfer-Encoding: chunked\r\n\r\nff\r\n{",
    "chunks without an end": _POST + b"Transfer-Encoding: chunked\r\n\r\n13\r\n" + _CREATE + b"\r\n",
    "a chunk of letters": _POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "an absurd chunk": _POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\n{}\r\n",
    "a negative chunk": _POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n{}\r\n0\r\n\r\n",
    "another coding": _POST + b"Transfer-Encoding: gzip\r\n\r\n" + _CREATE,
    "gzip that is none": _POST + b"Content-Encoding: gzip\r\nContent-Length: 19\r\n\r\n" + _CREATE,
    "deflate that is none": _POST + b"Content-Encoding: deflate\r\nContent-Length: 19\r\n\r\n" + _CREATE,
    "pipelined": _PING * 50,
    "pipelined, the last one cut": _PING * 3 + _PING[:9],
    "pipelined after a refusal": b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n" + _PING,
    "pipelined after a stream": b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n" + _PING,
    "pipelined after a body unread": b"POST /containers/nosuch/start HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
    + b'{"a": 12}' + _PING,
    "an upgrade of nothing": b"GET /info HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "a websocket without a key": b"GET /containers/nosuch/attach/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\n\r\n",
    "an upgrade and garbage": b"POST /containers/fuzz-run/attach?stream=1&stdin=1 HTTP/1.1\r\nHost: x\r\n"
    b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n" + bytes(range(256)) * 40,
}  # fmt: skip


def any_method(random_: random.Random) -> tuple[str, bytes]:
    """A method and a path that need not go together."""
    method, path = random_.choice(METHODS), random_.choice(PATHS)
    while method == "DELETE" and path.count("/") < 2:
        path = random_.choice(PATHS)
    return method, f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}".encode()


def cut_anywhere(data: bytes, random_: random.Random) -> bytes:
    return data[: random_.randrange(len(data) + 1)]
