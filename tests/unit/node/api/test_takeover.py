"""Input that comes along with a request for a stream, on a real socket, without containers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from node.api.hijack import Session, hijack
from node.api.server import bound, serve, serve_also

ATTACH = b"POST /v1.45/containers/web/attach?stdin=1 HTTP/1.1\r\nHost: d\r\n"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: tcp\r\n"


class Echo:
    """Gives back what is written, until the input ends."""

    def __init__(self) -> None:
        self.tty = True
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def read(self) -> tuple[int, bytes] | None:
        data = await self._queue.get()
        return None if data is None else (1, data)

    async def write(self, data: bytes) -> None:
        self._queue.put_nowait(data)

    async def close_stdin(self) -> None:
        self._queue.put_nowait(None)

    async def close(self) -> None: ...


async def attach(request: web.Request) -> web.StreamResponse:
    if request.match_info["id"] == "missing":
        return web.json_response({"message": "No such container: missing"}, status=404)

    async def opened() -> Session:
        return Echo()

    return await hijack(request, tty=True, open_session=opened)


@pytest.fixture(params=["unix", "tcp"])
async def socket(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Path | int]:
    """Where the API is served: a socket's path, or a port."""
    app = web.Application()
    app.router.add_post("/v1.45/containers/{id}/attach", attach)
    app.router.add_post("/v1.45/exec/{id}/start", attach)
    runner = await serve(app, [tmp_path / "s"])
    (listening,) = bound("127.0.0.1", 0)
    await serve_also(runner, listening, None)
    yield tmp_path / "s" if request.param == "unix" else listening.getsockname()[1]
    await runner.cleanup()


async def connected(socket: Path | int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(socket, int):
        return await asyncio.open_connection("127.0.0.1", socket)
    return await asyncio.open_unix_connection(socket)


async def answer(socket: Path | int, *parts: bytes, ends: bool = True) -> bytes:
    reader, writer = await connected(socket)
    for part in parts:
        writer.write(part)
        await asyncio.sleep(0.01)
    if ends:
        writer.write_eof()
    data = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return data


@pytest.mark.parametrize("upgrade", [UPGRADE, b""], ids=["101", "200"])
@pytest.mark.parametrize(
    "parts", [[b"early"], [b"ear", b"ly"], [b"x" * 3_000_000]], ids=["along", "after", "much"]
)
async def test_early_input_and_the_end_of_it_arrive(
    socket: Path | int, upgrade: bytes, parts: list[bytes]
) -> None:
    first, *rest = parts
    head, _, body = (await answer(socket, ATTACH + upgrade + b"\r\n" + first, *rest)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101" if upgrade else b"HTTP/1.1 200")
    assert body == b"".join(parts)


async def test_the_body_of_an_exec_is_not_its_input(socket: Path | int) -> None:
    request = b"POST /v1.45/exec/e/start HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n" + UPGRADE + b"\r\n{}in"
    assert (await answer(socket, request)).endswith(b"\r\n\r\nin")


async def test_a_connection_that_is_not_taken_over_stays_http(socket: Path | int) -> None:
    reader, writer = await connected(socket)
    request = ATTACH.replace(b"web", b"missing") + b"Content-Length: 0\r\n\r\n"
    for _ in range(3):
        writer.write(request)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert head.startswith(b"HTTP/1.1 404")
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
    writer.close()


async def test_input_that_comes_before_the_handler_has_begun_is_kept(socket: Path | int) -> None:
    """Piece by piece, without a pause: some of them arrive between the request's arrival and its handler's start."""
    for _ in range(20):
        reader, writer = await connected(socket)
        writer.write(ATTACH + UPGRADE + b"\r\n1")
        for piece in (b"2", b"3", b"4"):
            await asyncio.sleep(0)
            writer.write(piece)
        writer.write_eof()
        data = await asyncio.wait_for(reader.read(), 5)
        assert data.endswith(b"\r\n\r\n1234")
        writer.close()
