"""Lines of containers on their way to syslog or the journal: read from the file that the supervisor writes.

The supervisor knows only files, so a server that does not answer holds nobody up, and a daemon that is away loses nothing:
the file is the buffer, bounded by its rotation. How far a container's lines were sent is in a file beside it. Invariants:
each line is sent at least once and in order, or counted as lost and said; it is not sent twice but where the daemon or
a connection broke off. Docs: docs/adr/0023-log-drivers.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from engine.background import BackgroundTasks
from engine.config import LogOptions, LogRecord
from engine.container import Container
from engine.errors import EngineError, EngineFailure
from engine.log_settings import log_settings
from engine.logging_drivers.attributes import chosen_attributes, tag_of
from engine.logging_drivers.journald import JournaldSink
from engine.logging_drivers.message import Sink, Source
from engine.logging_drivers.syslog import SyslogTarget
from engine.logging_drivers.syslog_sink import SyslogSink
from engine.logs import read_batches
from engine.runtime.log_numbers import last_number, mark_name, sent_number, write_mark
from engine.settings import EngineSettings

logger = logging.getLogger(__name__)

POLL_S = 0.2
FAREWELL_S = 3.0
RETRY_FIRST_S, RETRY_MAX_S = 0.1, 10.0
TAG_DEFAULT = "{{.ID}}"


class LogForwarding:
    """One task per container whose driver forwards, while it runs or has lines that were not sent."""

    def __init__(
        self,
        settings: EngineSettings,
        background: BackgroundTasks,
        sink_of: Callable[[Container], Sink | None] | None = None,
    ) -> None:
        self._settings = settings
        self._background = background
        self._sink_of = sink_of or open_sink
        self._tasks: dict[str, tuple[asyncio.Task[None], Forwarder]] = {}

    async def check(self, container: Container) -> None:
        """EngineFailure, in Docker's words, when nobody would take the container's lines."""
        sink = self._sink_of(container)
        if sink is None:
            return
        try:
            await sink.check()
        except OSError as error:
            raise EngineFailure(
                "failed to create task for container: failed to initialize logging driver: "
                f"{error}: start the server, or choose another log driver"
            ) from error
        finally:
            sink.close()

    def started(self, container: Container) -> None:
        """It runs; or the daemon has begun, and something may be left to send."""
        if container.id in self._tasks or not self._path(container).parent.exists():
            return
        try:
            sink = self._sink_of(container)
        except EngineError as error:
            logger.error("log of container %s is not forwarded: %s", container.name, error)
            return
        if sink is None:
            return
        forwarder = Forwarder(container, self._path(container), sink)
        task = self._background.start(forwarder.run(), f"log of {container.name}")
        self._tasks[container.id] = (task, forwarder)
        task.add_done_callback(lambda _: self._tasks.pop(container.id, None))

    async def end(self, container: Container) -> None:
        """Before its files go: what is left is sent within FAREWELL_S, or said to be lost."""
        task, forwarder = self._tasks.get(container.id, (None, None))
        if task is None or forwarder is None:
            return
        _, unfinished = await asyncio.wait({task}, timeout=FAREWELL_S)
        if unfinished:
            task.cancel()
            await asyncio.wait({task})
            forwarder.say_unsent()

    def _path(self, container: Container) -> Path:
        config = container.host_config.log_config
        return self._settings.log_path(container.id, config.type if config else "json-file")


def open_sink(container: Container) -> Sink | None:
    """Not connected yet. None when the driver of the container forwards nothing."""
    config = container.host_config.log_config
    if config is None or not log_settings(config).is_remote:
        return None
    options = config.config or {}
    source = Source(
        container_id=container.id,
        container_name=container.name,
        image_name=container.image,
        tag=tag_of(container, options.get("tag") or TAG_DEFAULT),
        attributes=chosen_attributes(container, options),
    )
    if config.type == "journald":
        return JournaldSink(source)
    return SyslogSink(SyslogTarget.parse(options), source)


class Forwarder:
    """Of one container. `run` ends when the container has and everything was sent."""

    def __init__(
        self,
        container: Container,
        path: Path,
        sink: Sink,
        poll_s: float = POLL_S,
        retry_s: float = RETRY_FIRST_S,
    ) -> None:
        self._container = container
        self._path = path
        self._sink = sink
        self._poll_s = poll_s
        self._retry_s = retry_s
        self._sent = 0
        self._mark = -1
        self.lost = 0

    async def run(self) -> None:
        self._sent = sent_number(str(self._path))
        self._mark = os.open(mark_name(str(self._path)), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            while True:
                last = await asyncio.to_thread(last_number, str(self._path))
                # What was not sent, but at least one line: its number tells whether more were written meanwhile.
                if not await self._forward(max(last - self._sent, 1)):
                    await self._forward(-1)
                if not self._container.is_running:
                    return
        finally:
            self._sink.close()
            write_mark(self._mark, self._sent)  # also of a batch that was cut off
            os.close(self._mark)

    def say_unsent(self) -> None:
        unsent = last_number(str(self._path)) - self._sent
        if unsent > 0:
            logger.warning(
                "container %s is removed before %d lines of its log were taken by their server",
                self._container.name,
                unsent,
            )

    async def _forward(self, tail: int) -> bool:
        """From the last `tail` lines on. False when the first one is not the next to be sent, so that some were left out."""
        options = LogOptions(follow=True, tail=tail)
        finished = lambda: not self._container.is_running  # noqa: E731
        is_first = True
        async with contextlib.aclosing(read_batches(self._path, options, finished, self._poll_s)) as batches:
            async for batch in batches:
                records = [record for record in batch if record.number > self._sent]
                if not records:
                    continue
                if is_first and tail >= 0 and records[0].number > self._sent + 1:
                    return False
                is_first = False
                self._count_lost(records)
                await self._send_all(records)
        return True

    def _count_lost(self, records: Sequence[LogRecord]) -> None:
        lost = records[-1].number - self._sent - len(records)
        if lost > 0:
            self.lost += lost
            logger.error(
                "container %s: %d lines of its log were rotated away before their server took them: "
                "raise cache-max-size or cache-max-file",
                self._container.name,
                lost,
            )

    async def _send_all(self, records: Sequence[LogRecord]) -> None:
        step = self._sink.portion
        for start in range(0, len(records), step):
            await self._send_portion(records[start : start + step])
            self._sent = records[start : start + step][-1].number
        write_mark(self._mark, self._sent)

    async def _send_portion(self, records: Sequence[LogRecord]) -> None:
        delay_s, is_down = self._retry_s, False
        while True:
            try:
                for record in records:
                    await self._sink.send(record)
                await self._sink.flush()
            except OSError as error:
                if not is_down:
                    logger.warning("log of container %s: %s; its lines wait", self._container.name, error)
                is_down = True
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, RETRY_MAX_S)
                continue
            if is_down:
                logger.info("log of container %s: its lines are taken again", self._container.name)
            return
