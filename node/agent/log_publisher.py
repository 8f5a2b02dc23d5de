"""Sends tasks' logs to a manager that asked for them: one stream per subscription, read at its pace.

Invariant: a subscription always ends with one `finished` batch, or its stream is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable
from typing import Protocol

from engine.config import LogOptions, LogRecord
from node.agent.task_step import ExecutorError
from node.rpc import RpcError, Stream
from raft.codec import to_json
from raft.objects.assignment import LogBatch, LogLine, LogSubscribe
from raft.objects.task import Task

log = logging.getLogger(__name__)

METHOD = "dispatcher.logs"
LINES_QUEUED_MAX = 1000
BATCH_LINES_MAX = 500
BATCH_BYTES_MAX = 256 * 1024


class LogReader(Protocol):
    """Where a task's log comes from (the executor)."""

    def logs(self, task: Task, options: LogOptions) -> AsyncGenerator[LogRecord, None]: ...


class LogStreams(Protocol):
    """Opens a stream to a manager (node.rpc.RpcClient)."""

    async def stream(self, address: str, method: str) -> Stream: ...


class LogPublisher:
    """task: finds a task of this node by id."""

    def __init__(self, streams: LogStreams, reader: LogReader, task: Callable[[str], Task | None]) -> None:
        self._streams = streams
        self._reader = reader
        self._task = task
        self._publishing: dict[str, set[asyncio.Task[None]]] = {}

    def subscribe(self, address: str, request: LogSubscribe) -> None:
        """Start publishing to the manager at that address; several requests may share a subscription."""
        publishing = asyncio.create_task(self._publish(address, request))
        running = self._publishing.setdefault(request.subscription_id, set())
        running.add(publishing)
        publishing.add_done_callback(lambda done: self._ended(request.subscription_id, done))

    def unsubscribe(self, subscription_id: str) -> None:
        for publishing in self._publishing.pop(subscription_id, set()):
            publishing.cancel()

    async def close(self) -> None:
        """The session is over, and with it all of its subscriptions."""
        publishing = [task for tasks in self._publishing.values() for task in tasks]
        self._publishing.clear()
        for task in publishing:
            task.cancel()
        await asyncio.gather(*publishing, return_exceptions=True)

    def _ended(self, subscription_id: str, done: asyncio.Task[None]) -> None:
        running = self._publishing.get(subscription_id)
        if running is not None:
            running.discard(done)
            if not running:
                del self._publishing[subscription_id]
        if not done.cancelled() and done.exception() is not None:
            log.info("log subscription %s ended: %s", subscription_id, done.exception())

    async def _publish(self, address: str, request: LogSubscribe) -> None:
        stream = await self._streams.stream(address, METHOD)
        try:
            await stream.send(to_json(LogBatch(subscription_id=request.subscription_id)))
            error = await self._send_lines(stream, request)
            last = LogBatch(subscription_id=request.subscription_id, finished=True, error=error)
            await stream.send(to_json(last))
        finally:
            await stream.close()

    async def _send_lines(self, stream: Stream, request: LogSubscribe) -> str:
        """Return why lines are missing, or ""."""
        lines: asyncio.Queue[LogLine] = asyncio.Queue(LINES_QUEUED_MAX)
        reading = asyncio.gather(*(self._read(request, id, lines) for id in request.task_ids))
        # A manager sends nothing on this stream: what comes is its end.
        hung_up = asyncio.create_task(_hung_up(stream))
        try:
            while not (reading.done() and lines.empty()) and not hung_up.done():
                batch = await _next_batch(lines, reading, hung_up)
                if batch:
                    await stream.send(
                        to_json(LogBatch(subscription_id=request.subscription_id, lines=tuple(batch)))
                    )
            return "; ".join(e for e in reading.result() if e) if reading.done() else ""
        finally:
            reading.cancel()
            hung_up.cancel()
            await asyncio.gather(reading, hung_up, return_exceptions=True)

    async def _read(self, request: LogSubscribe, task_id: str, lines: asyncio.Queue[LogLine]) -> str:
        task = self._task(task_id)
        if task is None:
            return ""
        options = LogOptions(
            stdout=request.stdout,
            stderr=request.stderr,
            follow=request.follow,
            since=request.since,
            until=request.until,
            tail=request.tail,
        )
        try:
            async with contextlib.aclosing(self._reader.logs(task, options)) as records:
                async for record in records:
                    line = LogLine(
                        task_id=task_id,
                        stream=record.stream,
                        timestamp_ns=record.timestamp_ns,
                        data=record.data,
                    )
                    await lines.put(line)
        except ExecutorError as error:
            return f"task {task_id}: {error}"
        return ""


async def _next_batch(
    lines: asyncio.Queue[LogLine], reading: asyncio.Future[list[str]], hung_up: asyncio.Task[None]
) -> list[LogLine]:
    """At least one line, unless the reading or the stream has ended; more only if they are there already."""
    if lines.empty():
        first = asyncio.create_task(lines.get())
        try:
            either: set[asyncio.Future[object]] = {first, reading, hung_up}  # type: ignore[arg-type]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not first.done():
                first.cancel()
                await asyncio.gather(first, return_exceptions=True)
        batch = [] if first.cancelled() else [first.result()]
    else:
        batch = [lines.get_nowait()]
    size = sum(len(line.data) for line in batch)
    while not lines.empty() and len(batch) < BATCH_LINES_MAX and size < BATCH_BYTES_MAX:
        batch.append(lines.get_nowait())
        size += len(batch[-1].data)
    return batch


async def _hung_up(stream: Stream) -> None:
    with contextlib.suppress(RpcError):
        while await stream.receive() is not None:
            pass
