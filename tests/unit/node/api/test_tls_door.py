"""TLS before the API: who is let in, and ends of one direction that are passed on."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from node.api.hijack import Session, hijack
from node.api.server import bound, serve, serve_also
from node.config import TlsSettings
from node.tls_files import ApiTls
from tests import certificates
from tests.unit.node.api.test_takeover import Echo


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("certificates")
    certificates.make(made)
    return made


async def _whole(request: web.Request) -> web.StreamResponse:
    """Takes the connection over, and answers with the length of all that comes until its end."""
    transport = request.transport
    assert isinstance(transport, asyncio.Transport)
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport.set_protocol(protocol)
    reader.set_transport(transport)
    transport.write(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
    data = await reader.read()
    transport.write(b"%d bytes, " % len(data) + b"y" * 1_000_000)
    transport.close()
    return web.Response()


async def _attach(request: web.Request) -> web.StreamResponse:
    async def opened() -> Session:
        await asyncio.sleep(0.05)  # the input is there before anybody reads it
        return Echo()

    return await hijack(request, tty=True, open_session=opened)


@pytest.fixture
async def port(folder: Path) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_post("/whole", _whole)
    app.router.add_get("/plain", _plain)
    app.router.add_post("/containers/{id}/attach", _attach)
    files = TlsSettings(
        certificate=folder / "server-cert.pem",
        key=folder / "server-key.pem",
        ca=folder / "ca.pem",
        verify=True,
    )
    runner = await serve(app, [])
    try:
        (listening,) = bound("127.0.0.1", 0)
        await serve_also(runner, listening, ApiTls(files).context)
        yield listening.getsockname()[1]
    finally:
        await runner.cleanup()


async def _plain(_request: web.Request) -> web.StreamResponse:
    return web.Response(text="in")


class Client:
    """A TLS client that can end its own direction, which asyncio's cannot."""

    def __init__(self, folder: Path | None, ca: Path) -> None:
        context = ssl.create_default_context(cafile=str(ca / "ca.pem"))
        if folder is not None:
            context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="127.0.0.1")

    async def connect(self, port: int) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        await self.do(self.tls.do_handshake)

    async def do(self, step: Any) -> Any:
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                self._writer.write(self._outgoing.read())
                data = await self._reader.read(65536)
                if not data:
                    raise ConnectionResetError("gone") from None
                self._incoming.write(data)
            else:
                self._writer.write(self._outgoing.read())
                return result

    def say(self, data: bytes) -> None:
        self.tls.write(data)
        self._writer.write(self._outgoing.read())

    def end_input(self) -> None:
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.unwrap()
        self._writer.write(self._outgoing.read())

    async def rest(self) -> bytes:
        found = b""
        try:
            while data := await self.do(lambda: self.tls.read(65536)):
                found += data
        except ssl.SSLZeroReturnError:  # instead of nothing, after end_input
            pass
        return found

    def close(self) -> None:
        self._writer.close()


async def test_input_that_comes_along_with_its_request_arrives(port: int, folder: Path) -> None:
    client = Client(folder, folder)
    async with asyncio.timeout(20):
        await client.connect(port)
        head = b"POST /containers/c/attach?stdin=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        client.say(head + b"early")
        client.end_input()
        assert (await client.rest()).partition(b"\r\n\r\n")[2] == b"early"
    client.close()


async def test_the_end_of_input_is_not_the_end_of_output(port: int, folder: Path) -> None:
    client = Client(folder, folder)
    async with asyncio.timeout(20):
        await client.connect(port)
        client.say(b"POST /whole HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        await client.do(lambda: client.tls.read(65536))
        client.say(b"x" * 300_000)
        client.end_input()
        answer = await client.rest()
    client.close()
    assert answer.startswith(b"300000 bytes, y")
    assert answer.count(b"y") == 1_000_000 + 1  # and the one of the word


@pytest.mark.parametrize("who", [None, "stranger"])
async def test_who_is_not_let_in(port: int, folder: Path, who: str | None) -> None:
    client = Client(None if who is None else folder / who, folder)
    async with asyncio.timeout(20):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await client.connect(port)
            client.say(b"GET /plain HTTP/1.1\r\nHost: x\r\n\r\n")
            await client.rest()
    client.close()


async def test_whoever_speaks_no_tls_is_told(port: int) -> None:
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /plain HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"Client sent an HTTP request to an HTTPS server." in await reader.read()
        writer.close()
