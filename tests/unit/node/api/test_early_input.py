"""Input that a client sends before it has seen the answer's head: it must reach the process, every byte of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from engine.errors import NotFound
from node.api.app import build_app
from node.api.backend import EngineBackend, SwarmBackend
from node.api.context import Context
from node.api.routes import ROUTES
from node.api.server import serve

UPGRADE = b"Connection: Upgrade\r\nUpgrade: tcp\r\n"
ATTACH = b"POST /containers/web/attach?stream=1&stdin=1&stdout=1"
EXEC = b"POST /v1.45/exec/e1/start"
EXEC_BODY = b'{"Detach":false,"Tty":true}'
BODY_HEADERS = b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(EXEC_BODY)


class CollectingSession:
    """Answers with everything it got, once its standard input has ended."""

    tty = True

    def __init__(self) -> None:
        self.got = bytearray()
        self._output: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()

    async def read(self) -> tuple[int, bytes] | None:
        return await self._output.get()

    async def write(self, data: bytes) -> None:
        self.got += data

    async def close_stdin(self) -> None:
        await self._output.put((1, bytes(self.got)))
        await self._output.put(None)

    async def close(self) -> None:
        pass


class FakeEngine:
    def __init__(self) -> None:
        self.opening = asyncio.Event()
        self.may_open = asyncio.Event()
        self.may_open.set()

    async def attach_container(self, ref: str, **_options: bool) -> CollectingSession:
        if ref == "none":
            raise NotFound("No such container: none")
        self.opening.set()
        await self.may_open.wait()
        return CollectingSession()

    async def exec_inspect(self, exec_id: str) -> dict[str, Any]:
        return {"ID": exec_id, "Running": False, "ExitCode": None, "ProcessConfig": {"tty": True}}

    async def exec_start(self, _exec_id: str, **_options: Any) -> CollectingSession:
        return await self.attach_container("")


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def socket(tmp_path: Path, engine: FakeEngine) -> AsyncIterator[Path]:
    context = Context(engine=cast(EngineBackend, engine), swarm=cast(SwarmBackend, object()))
    runner = await serve(build_app(context, ROUTES), [tmp_path / "s"])
    yield tmp_path / "s"
    await runner.cleanup()


REQUESTS = {
    "attach-upgrade": ATTACH + b" HTTP/1.1\r\nHost: d\r\n" + UPGRADE + b"\r\n",
    "attach-upgrade-length-0": ATTACH + b" HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n" + UPGRADE + b"\r\n",
    "attach-plain": ATTACH + b" HTTP/1.1\r\nHost: d\r\n\r\n",
    "attach-plain-length-0": ATTACH + b" HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n",
    "exec-upgrade": EXEC + b" HTTP/1.1\r\nHost: d\r\n" + BODY_HEADERS + UPGRADE + b"\r\n" + EXEC_BODY,
    "exec-plain": EXEC + b" HTTP/1.1\r\nHost: d\r\n" + BODY_HEADERS + b"\r\n" + EXEC_BODY,
}
INPUTS = {
    "a line": b"hello\n",
    "what looks like a request": b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n",
    "binary": bytes(range(256)),
    "half a mebibyte": b"0123456789abcdef\n" * 30840,
}


async def answer_to(path: Path, data: bytes, rest: bytes = b"") -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(data)
    await reader.readuntil(b"\r\n\r\n")
    writer.write(rest)
    writer.write_eof()
    got = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return got


@pytest.mark.parametrize("given", INPUTS.values(), ids=INPUTS)
@pytest.mark.parametrize("request_head", REQUESTS.values(), ids=REQUESTS)
async def test_input_in_the_packet_of_the_request_arrives(
    socket: Path, request_head: bytes, given: bytes
) -> None:
    assert await answer_to(socket, request_head + given, b"later") == given + b"later"


@pytest.mark.parametrize("given", INPUTS.values(), ids=INPUTS)
@pytest.mark.parametrize("request_head", REQUESTS.values(), ids=REQUESTS)
async def test_input_during_the_opening_arrives(
    socket: Path, engine: FakeEngine, request_head: bytes, given: bytes
) -> None:
    engine.may_open.clear()
    reader, writer = await asyncio.open_unix_connection(socket)
    writer.write(request_head)
    await asyncio.wait_for(engine.opening.wait(), 5)
    writer.write(given)
    for _ in range(20):
        await asyncio.sleep(0)
    engine.may_open.set()
    await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 10) == given
    writer.close()


@pytest.mark.parametrize("name", ["attach-upgrade", "exec-upgrade", "attach-plain", "exec-plain"])
async def test_request_in_pieces_keeps_its_input(socket: Path, name: str) -> None:
    """The head, the body and the input come byte by byte."""
    reader, writer = await asyncio.open_unix_connection(socket)
    for position in range(len(REQUESTS[name])):
        writer.write(REQUESTS[name][position : position + 1])
        await asyncio.sleep(0)
    for letter in b"typed":
        writer.write(bytes([letter]))
        await asyncio.sleep(0)
    writer.write_eof()
    await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    assert await asyncio.wait_for(reader.read(), 10) == b"typed"
    writer.close()


async def test_requests_in_one_packet_are_still_answered_in_turn(socket: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(socket)
    writer.write(
        b"GET /version HTTP/1.1\r\nHost: d\r\n\r\n" * 2 + b"GET /nowhere HTTP/1.1\r\nHost: d\r\n\r\n"
    )
    for status in (b"200", b"200", b"404"):
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert head.split()[1] == status
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
    writer.close()


async def test_input_of_a_session_that_is_refused_is_the_next_request(socket: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(socket)
    refused = b"POST /containers/none/attach?stdin=1 HTTP/1.1\r\nHost: d\r\n" + UPGRADE + b"\r\n"
    writer.write(refused + b"GET /version HTTP/1.1\r\nHost: d\r\n\r\n")
    for status in (b"404", b"200"):
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert head.split()[1] == status
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
    writer.close()


async def test_client_that_only_sends_gets_the_refusal_of_its_session(socket: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(socket)
    writer.write(b"POST /containers/none/attach?stdin=1 HTTP/1.1\r\nHost: d\r\n\r\ninput")
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 5)
    assert answer.startswith(b"HTTP/1.1 404")
    assert b"No such container: none" in answer
    writer.close()


async def test_input_and_its_end_in_the_packet_of_the_request(socket: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(socket)
    writer.write(REQUESTS["attach-upgrade"] + b"all")
    writer.write_eof()
    assert (await asyncio.wait_for(reader.read(), 5)).endswith(b"\r\n\r\nall")
    writer.close()
