"""Lines on their way to a server that the test stops, breaks and lets go on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from engine import log_forwarding
from engine.background import BackgroundTasks
from engine.config import HostConfig, LogConfig, LogRecord
from engine.container import Container
from engine.errors import EngineFailure
from engine.log_forwarding import Forwarder, LogForwarding, open_sink
from engine.logging_drivers.journald import JournaldSink
from engine.runtime.json_log import JsonLog
from engine.runtime.log_numbers import sent_number
from engine.runtime.wire import LogStyle
from engine.settings import EngineSettings
from tests.records import container_record, exited, running

NOW = 1_767_323_045_123_456_789


class MemorySink:
    """Takes lines when `is_up`; `breaks_after` so many more it is down."""

    def __init__(self, portion: int = 1) -> None:
        self.portion = portion
        self.is_up = True
        self.taken: list[int] = []
        self.refused = 0
        self.breaks_after: int | None = None
        self.closed = False

    async def check(self) -> None:
        if not self.is_up:
            raise OSError("dial tcp://logs:514: connection refused")

    async def send(self, record: LogRecord) -> None:
        if self.breaks_after == 0:
            self.is_up, self.breaks_after = False, None
        if not self.is_up:
            self.refused += 1
            raise OSError("broken")
        if self.breaks_after is not None:
            self.breaks_after -= 1
        self.taken.append(int(record.data))

    async def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class Setup:
    """One container whose lines the test writes."""

    def __init__(self, folder: Path) -> None:
        self.settings = EngineSettings(root=folder, run_dir=folder / "run")
        self.container = container_record(
            "web", host=HostConfig(log_config=LogConfig(type="syslog")), state=running()
        )
        self.settings.container_dir(self.container.id).mkdir(parents=True)
        self.path = self.settings.log_path(self.container.id, "syslog")
        self.sink = MemorySink()
        self.background = BackgroundTasks()
        self.forwarding = LogForwarding(self.settings, self.background, lambda _: self.sink)
        self.written = 0

    def log(self, max_size: int = 0, max_file: int = 1) -> JsonLog:
        return JsonLog(str(self.path), max_size, max_file, style=LogStyle(numbered=True))

    def write(self, log: JsonLog, lines: int) -> None:
        for _ in range(lines):
            self.written += 1
            log.write(1, b"%d\n" % self.written, NOW)

    def forwarder(self, container: Container | None = None) -> Forwarder:
        return Forwarder(container or self.container, self.path, self.sink, poll_s=0, retry_s=0.001)

    def ended(self) -> Container:
        return container_record("web", state=exited())


@pytest.fixture
async def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Setup]:
    monkeypatch.setattr(log_forwarding, "POLL_S", 0.001)
    made = Setup(tmp_path)
    yield made
    await made.background.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.001)


async def test_lines_are_sent_once_whoever_comes_back(setup: Setup) -> None:
    log = setup.log()
    setup.write(log, 5)
    await setup.forwarder(setup.ended()).run()
    assert setup.sink.taken == [1, 2, 3, 4, 5] and setup.sink.closed
    assert sent_number(str(setup.path)) == 5
    setup.write(log, 3)
    await setup.forwarder(setup.ended()).run()
    assert setup.sink.taken == list(range(1, 9))
    await setup.forwarder(setup.ended()).run()
    assert setup.sink.taken == list(range(1, 9))


async def test_a_server_that_is_down_gets_everything_later(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    setup.sink.is_up = False
    setup.forwarding._sink_of = lambda _: setup.sink
    log = setup.log()
    setup.write(log, 3)
    task = asyncio.ensure_future(setup.forwarder().run())
    await until(lambda: setup.sink.refused > 2)
    setup.write(log, 2)
    setup.sink.is_up = True
    await until(lambda: setup.sink.taken == [1, 2, 3, 4, 5])
    task.cancel()
    assert caplog.text.count("its lines wait") == 1 and caplog.text.count("are taken again") == 1


@pytest.mark.parametrize(("portion", "again"), [(1, 7), (4, 5)])
async def test_a_portion_that_broke_is_sent_again(setup: Setup, portion: int, again: int) -> None:
    setup.sink.portion = portion
    setup.sink.breaks_after = 6
    setup.write(setup.log(), 10)
    task = asyncio.ensure_future(setup.forwarder(setup.ended()).run())
    await until(lambda: setup.sink.refused > 0)
    setup.sink.is_up = True
    await task
    assert setup.sink.taken == [*range(1, 7), *range(again, 11)]


async def test_what_was_sent_before_the_daemon_stopped_is_not_sent_again(setup: Setup) -> None:
    setup.sink.breaks_after = 6
    setup.write(setup.log(), 10)
    task = asyncio.ensure_future(setup.forwarder(setup.ended()).run())
    await until(lambda: setup.sink.refused > 0)
    task.cancel()
    await asyncio.wait({task})
    setup.sink.is_up = True
    await setup.forwarder(setup.ended()).run()
    assert setup.sink.taken == list(range(1, 11))


@pytest.mark.parametrize("known", [0, 1, 4])
async def test_lines_that_are_written_while_it_begins_are_sent_too(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, known: int
) -> None:
    setup.write(setup.log(), 5)
    monkeypatch.setattr(log_forwarding, "last_number", lambda _path: known)
    task = asyncio.ensure_future(setup.forwarder().run())  # the container runs, and says no more
    await until(lambda: setup.sink.taken == [1, 2, 3, 4, 5])
    task.cancel()


async def test_what_was_rotated_away_unsent_is_counted_and_said(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    log = setup.log(max_size=250, max_file=2)
    setup.write(log, 3)
    await setup.forwarder(setup.ended()).run()
    setup.write(log, 30)
    forwarder = setup.forwarder(setup.ended())
    await forwarder.run()
    first = setup.sink.taken[3]
    assert setup.sink.taken == [1, 2, 3, *range(first, 34)]
    assert forwarder.lost == first - 4 > 0
    assert f"{first - 4} lines of its log were rotated away" in caplog.text


async def test_it_goes_on_over_rotations_and_ends_with_the_container(setup: Setup) -> None:
    log = setup.log(max_size=250, max_file=20)
    setup.forwarding.started(setup.container)
    setup.forwarding.started(setup.container)
    for _ in range(10):
        setup.write(log, 2)
        await until(lambda: len(setup.sink.taken) == setup.written)
    setup.write(log, 1)
    setup.container.state = exited()
    await until(lambda: setup.sink.closed)
    assert setup.sink.taken == list(range(1, 22))


async def test_a_removal_waits_a_little_and_says_what_was_not_sent(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(log_forwarding, "FAREWELL_S", 0.05)
    setup.sink.is_up = False
    setup.write(setup.log(), 4)
    setup.forwarding.started(setup.container)
    setup.container.state = exited()
    await setup.forwarding.end(setup.container)
    assert "is removed before 4 lines of its log were taken" in caplog.text and setup.sink.closed


async def test_a_start_is_refused_when_nobody_takes_lines(setup: Setup) -> None:
    await setup.forwarding.check(setup.container)
    setup.sink.is_up = False
    with pytest.raises(EngineFailure, match="failed to initialize logging driver: dial tcp://logs:514"):
        await setup.forwarding.check(setup.container)


def test_only_drivers_that_forward_have_a_sink() -> None:
    for kind in ("json-file", "local", "none", ""):
        assert open_sink(container_record(host=HostConfig(log_config=LogConfig(type=kind)))) is None
    assert open_sink(container_record()) is None
    journal = open_sink(container_record(host=HostConfig(log_config=LogConfig(type="journald"))))
    assert isinstance(journal, JournaldSink)
