"""A stream that has nothing to say ends with its client; a call that changes something is finished without it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web

from engine.config import LogRecord
from node.api.app import build_app
from node.api.backend import EngineBackend, SwarmBackend
from node.api.context import Context
from node.api.routes import ROUTES
from node.api.server import serve


class Quiet:
    """What a call waits for; it never comes."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()
        self.go_on = asyncio.Event()
        self.finished = asyncio.Event()

    async def wait(self) -> None:
        self.begun.set()
        try:
            await self.go_on.wait()
            self.finished.set()
        finally:
            self.ended.set()

    async def stream(self, *_args: object, **_options: object) -> AsyncIterator[Any]:
        await self.wait()
        yield {}


class FakeEngine:
    def __init__(self, quiet: Quiet) -> None:
        self.stats_container = quiet.stream
        self._quiet = quiet

    def events(self, *_args: object) -> AsyncIterator[Any]:
        return self._quiet.stream()

    async def inspect_container(self, ref: str, _size: bool = False) -> dict[str, Any]:
        return {"Id": ref}

    def container_is_tty(self, _ref: str) -> bool:
        return True

    async def container_log_batches(self, _ref: str, _options: object) -> AsyncIterator[Sequence[LogRecord]]:
        yield [LogRecord(1, 1, b"line\n")]
        await self._quiet.wait()

    async def wait_container(self, _ref: str, _condition: str = "") -> object:
        await self._quiet.wait()
        return SimpleNamespace(exit_code=0, error="")

    async def start_container(self, _ref: str) -> None:
        await self._quiet.wait()


class FakeControl:
    async def get_service(self, ref: str) -> object:
        return SimpleNamespace(id=ref, spec=SimpleNamespace(task=self._spec()))

    async def get_task(self, ref: str) -> object:
        return SimpleNamespace(id=ref, spec=self._spec())

    @staticmethod
    def _spec() -> object:
        return SimpleNamespace(container=SimpleNamespace(tty=False))


class FakeSwarm:
    def __init__(self, quiet: Quiet) -> None:
        self.control = FakeControl()
        self.service_logs = self.task_logs = quiet.stream


@pytest.fixture
def quiet() -> Quiet:
    return Quiet()


@pytest.fixture
async def runner(tmp_path: Path, quiet: Quiet) -> AsyncIterator[web.AppRunner]:
    context = Context(
        engine=cast(EngineBackend, FakeEngine(quiet)), swarm=cast(SwarmBackend, FakeSwarm(quiet))
    )
    runner = await serve(build_app(context, ROUTES), [tmp_path / "s"])
    yield runner
    await runner.cleanup()


async def ask(path: Path, line: bytes) -> asyncio.StreamWriter:
    _reader, writer = await asyncio.open_unix_connection(path)
    writer.write(line + b" HTTP/1.1\r\nHost: d\r\n\r\n")
    return writer


STREAMS = [
    b"GET /events",
    b"GET /containers/web/stats",
    b"POST /containers/web/wait",
    b"GET /containers/web/logs?stdout=1&follow=1",
    b"GET /v1.45/services/s/logs?stdout=1&follow=1",
    b"GET /tasks/t/logs?stdout=1&follow=1",
]


@pytest.mark.parametrize("line", STREAMS)
async def test_quiet_stream_ends_when_its_client_goes(
    tmp_path: Path, runner: web.AppRunner, quiet: Quiet, line: bytes
) -> None:
    writer = await ask(tmp_path / "s", line)
    await asyncio.wait_for(quiet.begun.wait(), 5)
    writer.close()
    await asyncio.wait_for(quiet.ended.wait(), 5)
    assert not quiet.finished.is_set()


async def test_change_is_finished_when_its_client_goes(
    tmp_path: Path, runner: web.AppRunner, quiet: Quiet
) -> None:
    writer = await ask(tmp_path / "s", b"POST /containers/web/start")
    await asyncio.wait_for(quiet.begun.wait(), 5)
    writer.close()
    await writer.wait_closed()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not quiet.ended.is_set()
    quiet.go_on.set()
    await asyncio.wait_for(quiet.finished.wait(), 5)


async def test_change_without_a_client_ends_with_the_server(
    tmp_path: Path, runner: web.AppRunner, quiet: Quiet
) -> None:
    writer = await ask(tmp_path / "s", b"POST /containers/web/start")
    await asyncio.wait_for(quiet.begun.wait(), 5)
    writer.close()
    await writer.wait_closed()
    await asyncio.wait_for(runner.cleanup(), 10)
    assert quiet.ended.is_set()


async def test_stream_that_was_cut_while_it_wrote_is_closed(
    tmp_path: Path, runner: web.AppRunner, quiet: Quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def chatter(*_args: object) -> AsyncIterator[dict[str, Any]]:
        quiet.begun.set()
        try:
            while True:
                yield {"text": "x" * 100_000}
        finally:
            quiet.ended.set()

    monkeypatch.setattr(FakeEngine, "events", chatter, raising=False)
    writer = await ask(tmp_path / "s", b"GET /events")
    await asyncio.wait_for(quiet.begun.wait(), 5)
    writer.close()
    await asyncio.wait_for(quiet.ended.wait(), 5)


async def test_session_leaves_no_connection_behind(
    tmp_path: Path, runner: web.AppRunner, quiet: Quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Session:
        tty = True

        async def read(self) -> None:
            return None

        async def close(self) -> None: ...
        async def close_stdin(self) -> None: ...

    async def attach(_self: object, _ref: str, **_options: bool) -> Session:
        return Session()

    monkeypatch.setattr(FakeEngine, "attach_container", attach, raising=False)
    reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
    writer.write(b"POST /containers/web/attach?stdin=1 HTTP/1.1\r\nHost: d\r\n\r\n")
    assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()
    for _ in range(20):
        await asyncio.sleep(0)
    assert runner.server is not None
    assert runner.server.connections == []


@pytest.mark.parametrize("line", STREAMS[:3])
async def test_head_of_a_quiet_stream_goes_out_at_once(
    tmp_path: Path, runner: web.AppRunner, quiet: Quiet, line: bytes
) -> None:
    reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
    writer.write(line + b" HTTP/1.1\r\nHost: d\r\n\r\n")
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).startswith(b"HTTP/1.1 200")
    writer.close()
