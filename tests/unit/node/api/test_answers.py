"""What a client sees on the wire: one answer per request, and sessions that end with their client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from engine.config import LogRecord
from engine.errors import EngineFailure, NotFound
from node.api.app import build_app
from node.api.backend import EngineBackend, SwarmBackend
from node.api.context import Context
from node.api.routes import ROUTES
from node.api.server import serve

UPGRADE = b"Connection: Upgrade\r\nUpgrade: tcp\r\n"
ATTACH = b"POST /containers/%s/attach?stream=1&stdin=1&stdout=1"


class EchoSession:
    tty = True

    def __init__(self, *, broken: bool = False) -> None:
        self.closed = asyncio.Event()
        self._broken = broken
        self._output: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()

    async def read(self) -> tuple[int, bytes] | None:
        if self._broken:
            raise EngineFailure("the output broke")
        return await self._output.get()

    async def write(self, data: bytes) -> None:
        await self._output.put((1, data))

    async def close_stdin(self) -> None:
        await self._output.put((1, b"."))
        await self._output.put(None)

    async def close(self) -> None:
        self.closed.set()


class FakeEngine:
    """Containers: `web` echoes, `broken` fails after the head of the answer."""

    def __init__(self) -> None:
        self.session = EchoSession()
        self.opening = asyncio.Event()
        self.may_open = asyncio.Event()
        self.may_open.set()
        self.fail = asyncio.Event()
        self.left = asyncio.Event()  # a stream ended, for whatever reason

    async def inspect_container(self, ref: str, _size: bool = False) -> dict[str, Any]:
        return {"Id": ref}

    def container_is_tty(self, _ref: str) -> bool:
        return True

    async def container_log_batches(self, _ref: str, _options: object) -> AsyncIterator[Sequence[LogRecord]]:
        attributes = {"c": "é", "E": "x=y", "d.x": "2", "a b": "1"}
        yield [LogRecord(1, 1, b"line\n", attributes)]
        try:
            await self.fail.wait()
        finally:
            self.left.set()
        raise EngineFailure("the log has gone")

    async def wait_container(self, _ref: str, _condition: str = "") -> object:
        try:
            await self.fail.wait()
        finally:
            self.left.set()
        raise NotFound("No such container: web")

    async def events(self, *_: object) -> AsyncIterator[dict[str, Any]]:
        try:
            await self.fail.wait()
        finally:
            self.left.set()
        yield {}

    async def attach_container(self, ref: str, **_options: bool) -> EchoSession:
        self.session = EchoSession(broken=ref == "broken")
        self.opening.set()
        await self.may_open.wait()
        return self.session


class FakeSwarm:
    state = "inactive"
    manager = False

    def is_manager(self) -> bool:
        return self.manager

    def local_state(self) -> str:
        return self.state

    @property
    def control(self) -> SimpleNamespace:
        return SimpleNamespace(index=4711)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def swarm() -> FakeSwarm:
    return FakeSwarm()


@pytest.fixture
async def socket(tmp_path: Path, engine: FakeEngine, swarm: FakeSwarm) -> AsyncIterator[Path]:
    context = Context(engine=cast(EngineBackend, engine), swarm=cast(SwarmBackend, swarm))
    runner = await serve(build_app(context, ROUTES), [tmp_path / "s"])
    yield tmp_path / "s"
    await runner.cleanup()


async def ask(
    path: Path, line: bytes, headers: bytes = b""
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(line + b" HTTP/1.1\r\nHost: d\r\n" + headers + b"\r\n")
    return reader, writer


@pytest.mark.parametrize(
    "line", [b"POST /containers/web/wait", b"GET /containers/web/logs?stdout=1&follow=1"]
)
async def test_failure_after_the_head_ends_the_connection_without_a_second_answer(
    socket: Path, engine: FakeEngine, line: bytes
) -> None:
    reader, writer = await ask(socket, line)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    engine.fail.set()
    rest = await asyncio.wait_for(reader.read(), 5)
    assert b"HTTP/1.1" not in rest
    assert b"0\r\n\r\n" not in rest, "a cut stream must not look complete"
    writer.close()


async def test_failing_session_is_closed_and_ends_the_connection(socket: Path, engine: FakeEngine) -> None:
    reader, writer = await ask(socket, ATTACH % b"broken", UPGRADE)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 UPGRADED")
    assert await asyncio.wait_for(reader.read(), 5) == b""
    assert engine.session.closed.is_set()
    writer.close()


async def test_session_of_a_client_that_left_during_the_opening_is_closed(
    socket: Path, engine: FakeEngine
) -> None:
    engine.may_open.clear()
    _reader, writer = await ask(socket, ATTACH % b"web", UPGRADE)
    await asyncio.wait_for(engine.opening.wait(), 5)
    writer.close()
    await writer.wait_closed()
    for _ in range(10):
        await asyncio.sleep(0)
    engine.may_open.set()
    await asyncio.wait_for(engine.session.closed.wait(), 2)


async def test_half_close_ends_only_the_standard_input(socket: Path, engine: FakeEngine) -> None:
    reader, writer = await ask(socket, ATTACH % b"web", UPGRADE)
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"hello")
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 5) == b"hello."
    assert engine.session.closed.is_set()
    writer.close()


@pytest.mark.parametrize(
    "line",
    [
        b"POST /containers/web/wait",
        b"GET /containers/web/logs?stdout=1&follow=1",
        b"GET /containers/web/logs?stdout=1&follow=1&details=1",
        b"GET /events",
    ],
)
async def test_a_quiet_stream_ends_when_its_client_leaves(
    socket: Path, engine: FakeEngine, line: bytes
) -> None:
    reader, writer = await ask(socket, line)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    assert not engine.left.is_set()
    writer.close()
    await asyncio.wait_for(engine.left.wait(), 5)


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize(
    ("state", "manager", "shown"),
    [
        ("inactive", False, b"inactive"),
        ("error", False, b"error"),
        ("active", False, b"active/worker"),
        ("active", True, b"active/manager"),
    ],
)
async def test_ping_tells_versions_and_the_part_in_a_swarm(
    socket: Path, swarm: FakeSwarm, method: bytes, state: str, manager: bool, shown: bytes
) -> None:
    swarm.state, swarm.manager = state, manager
    reader, writer = await ask(socket, method + b" /_ping", b"Connection: close\r\n")
    head, _, text = (await asyncio.wait_for(reader.read(), 5)).partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert {name: fields[name] for name in (b"swarm", b"docker-experimental", b"builder-version")} == {
        b"swarm": shown,
        b"docker-experimental": b"false",
        b"builder-version": b"1",
    }
    assert fields.get(b"swarmctl-index") == (b"4711" if manager else None)
    assert fields[b"cache-control"] == b"no-cache, no-store, must-revalidate"
    assert fields[b"api-version"] == b"1.51"
    assert fields[b"content-type"] == b"text/plain; charset=utf-8"
    assert (text, fields[b"content-length"]) == ((b"OK", b"2") if method == b"GET" else (b"", b"0"))
    writer.close()


async def test_details_are_the_labels_and_variables_that_the_log_options_name(
    socket: Path, engine: FakeEngine
) -> None:
    reader, writer = await ask(socket, b"GET /containers/web/logs?stdout=1&follow=1&details=1")
    await reader.readuntil(b"\r\n\r\n")
    await reader.readuntil(b"\r\n")
    assert await asyncio.wait_for(reader.readline(), 5) == b"E=x%3Dy,a+b=1,c=%C3%A9,d.x=2 line\n"
    writer.close()
