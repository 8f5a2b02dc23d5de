"""Logs of tasks, gathered from the nodes that have them.

Owns subscriptions: asks the nodes over their sessions, receives the lines on a stream per node and
subscription (so that a slow reader slows down its nodes, and never their heartbeats), and follows tasks that
appear later. Invariant: when the reader goes, every node is told to stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Protocol

import msgspec

from node.rpc import NODES, Identity, RpcError, RpcServer, Stream
from raft.codec import from_json
from raft.errors import InvalidArgument, Unavailable
from raft.objects.assignment import LogBatch, LogLine, LogSubscribe, LogUnsubscribe
from raft.objects.base import Kind, new_id
from raft.objects.task import Task, TaskState
from raft.store import Store, View

log = logging.getLogger(__name__)

METHOD = "dispatcher.logs"
BATCHES_QUEUED_MAX = 16
FIRST_ANSWER_S_MAX = 10.0

Select = Callable[[View], Iterable[Task]]


class LogSource(Protocol):
    """Passes a request to a node's agent (the dispatcher)."""

    def request_logs(self, node_id: str, request: LogSubscribe | LogUnsubscribe) -> None:
        """Raises RpcError unavailable."""


class LogSelection(msgspec.Struct, frozen=True, kw_only=True):
    """Which lines; units as in LogSubscribe. `new_tasks`: follow also the tasks that are created later."""

    follow: bool = False
    new_tasks: bool = False
    since: float = 0.0
    until: float = 0.0
    tail: int = -1
    stdout: bool = True
    stderr: bool = True


class _Subscription:
    """One reader. A node is `open` from the request until its last line (or its failure)."""

    def __init__(self, selection: LogSelection) -> None:
        self.id = new_id()
        self.selection = selection
        self.batches: asyncio.Queue[LogBatch | None] = asyncio.Queue(BATCHES_QUEUED_MAX)
        self.asked: set[str] = set()  # task ids
        self.nodes: set[str] = set()
        self.open: set[str] = set()
        self.unanswered: set[str] = set()
        self.failures: list[str] = []
        self.changed = asyncio.Event()

    def ended(self, node_id: str, failure: str = "") -> None:
        self.unanswered.discard(node_id)
        if node_id in self.open:
            self.open.discard(node_id)
            if failure:
                self.failures.append(f"node {node_id}: {failure}")
        self.changed.set()


class LogBroker:
    """Serves readers on the leader."""

    def __init__(self, store: Store, source: LogSource) -> None:
        self._store = store
        self._source = source
        self._subscriptions: dict[str, _Subscription] = {}

    def register(self, server: RpcServer) -> None:
        server.handle_stream(METHOD, self.receive, roles=NODES)

    async def logs(self, select: Select, selection: LogSelection) -> AsyncIterator[LogLine]:
        """Lines in the order of their arrival, in order for each task; close the iterator to stop.

        Raises Unavailable after the last line when a node did not deliver.
        """
        subscription = _Subscription(selection)
        self._subscriptions[subscription.id] = subscription
        asking = asyncio.create_task(self._ask(subscription, select))
        try:
            while (batch := await subscription.batches.get()) is not None:
                for line in batch.lines:
                    yield line
            await asking
        finally:
            asking.cancel()
            del self._subscriptions[subscription.id]
            self._unsubscribe(subscription)
        if subscription.failures:
            raise Unavailable("incomplete log stream: " + "; ".join(sorted(subscription.failures)))

    async def receive(self, caller: Identity, stream: Stream) -> None:
        """One node's lines for one subscription: LogBatch messages until `finished`."""
        subscription: _Subscription | None = None
        failure = "the log stream broke off"
        try:
            while (data := await stream.receive()) is not None:
                batch = _decode(data)
                subscription = self._subscriptions.get(batch.subscription_id)
                if subscription is None:
                    return
                subscription.unanswered.discard(caller.node_id)
                if batch.lines:
                    await subscription.batches.put(batch)
                if batch.finished or batch.error:
                    failure = batch.error
                    return
        finally:
            if subscription is not None:
                subscription.ended(caller.node_id, failure)

    async def _ask(self, subscription: _Subscription, select: Select) -> None:
        """Ask the nodes, and tell the reader when there is nothing more to come."""
        answers = asyncio.create_task(_expect_answers(subscription))
        try:
            await self._ask_all(subscription, select)
        except Exception:
            await subscription.batches.put(None)
            raise
        else:
            await subscription.batches.put(None)
        finally:
            answers.cancel()

    async def _ask_all(self, subscription: _Subscription, select: Select) -> None:
        selection = subscription.selection
        with self._store.watch({Kind.TASK}) as watch:
            self._request(subscription, select(self._store.view()))
            while selection.follow and selection.new_tasks:
                await watch.wait()
                watch.drain()
                self._request(subscription, select(self._store.view()))
        while subscription.open:
            subscription.changed.clear()
            await subscription.changed.wait()

    def _request(self, subscription: _Subscription, tasks: Iterable[Task]) -> None:
        by_node: dict[str, list[str]] = {}
        for task in tasks:
            if task.id not in subscription.asked and task.status.state >= TaskState.STARTING:
                subscription.asked.add(task.id)
                by_node.setdefault(task.node_id, []).append(task.id)
        for node_id, task_ids in by_node.items():
            request = _request(subscription, task_ids)
            subscription.nodes.add(node_id)
            subscription.open.add(node_id)
            subscription.unanswered.add(node_id)
            try:
                self._source.request_logs(node_id, request)
            except RpcError as error:
                subscription.ended(node_id, error.message)

    def _unsubscribe(self, subscription: _Subscription) -> None:
        for node_id in subscription.nodes:
            with contextlib.suppress(RpcError):
                self._source.request_logs(node_id, LogUnsubscribe(subscription_id=subscription.id))


async def _expect_answers(subscription: _Subscription) -> None:
    await asyncio.sleep(FIRST_ANSWER_S_MAX)
    for node_id in list(subscription.unanswered):
        subscription.ended(node_id, f"no answer within {FIRST_ANSWER_S_MAX:.0f} s")


def _request(subscription: _Subscription, task_ids: list[str]) -> LogSubscribe:
    selection = subscription.selection
    return LogSubscribe(
        subscription_id=subscription.id,
        task_ids=tuple(task_ids),
        follow=selection.follow,
        since=selection.since,
        until=selection.until,
        tail=selection.tail,
        stdout=selection.stdout,
        stderr=selection.stderr,
    )


def _decode(data: bytes) -> LogBatch:
    try:
        return from_json(data, LogBatch)
    except InvalidArgument as error:
        raise RpcError("invalid_argument", str(error)) from error
