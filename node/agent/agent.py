"""The agent: keeps one session with the leader, applies what it assigns, reports what became of it.

Owns the session and nothing else: tasks are the worker's. It dials any manager it knows, follows the
redirect to the leader and backs off with jitter. Invariants: after every opening of a session all statuses
are reported anew; losing the managers never stops a task.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from node.agent.log_publisher import LogPublisher
from node.agent.managers import KnownManagers
from node.agent.worker import AssignmentGap, Worker
from node.loop import Backoff, Clock
from node.rpc import RpcError, Stream
from raft.codec import to_json
from raft.objects.assignment import (
    AgentMessage,
    Assignments,
    Goodbye,
    Heartbeat,
    Hello,
    Leave,
    LogSubscribe,
    LogUnsubscribe,
    ManagerMessage,
    Reports,
    SessionMessage,
    TaskReport,
)
from raft.objects.node import NodeDescription
from raft.objects.task import TaskStatus

log = logging.getLogger(__name__)

METHOD = "dispatcher.session"
FIRST_MESSAGE_S_MAX = 10.0
COALESCE_S = 0.005
REPORTS_PER_MESSAGE = 500
REDIRECTS_MAX = 3
GOODBYE_S_MAX = 1.0
NEXT_MANAGER_S = 0.1
# A machine that lost its power answers nothing: the others must not wait for it for long. Doubled each round, for
# those that are only slow.
DIAL_S, DIAL_S_MAX = 1.0, 5.0


class SessionStreams(Protocol):
    """Opens a stream to a manager (node.rpc.RpcClient)."""

    async def stream(self, address: str, method: str, *, connect_s: float) -> Stream: ...


class Agent:
    """`run` until cancelled or until this node was removed from the cluster.

    describe: what to say of this node at each opening. address: its underlay address (without port).
    on_session: called with every SessionMessage (role, root, managers). on_leave: the node was removed.
    """

    def __init__(
        self,
        *,
        streams: SessionStreams,
        managers: KnownManagers,
        logs: LogPublisher,
        clock: Clock,
        describe: Callable[[], NodeDescription],
        address: Callable[[], str],
        on_session: Callable[[SessionMessage], None],
        on_leave: Callable[[str], Awaitable[None]],
    ) -> None:
        self._streams = streams
        self._managers = managers
        self._logs = logs
        self._clock = clock
        self._describe = describe
        self._address = address
        self._on_session = on_session
        self._on_leave = on_leave
        self._worker: Worker | None = None
        self._stream: Stream | None = None
        self._session_id = ""
        self._heartbeat_s = 1.0
        self._dial_s = DIAL_S
        self._reports: dict[str, TaskStatus] = {}
        self._network_version = 0
        self._unsent = asyncio.Event()
        self.connected_to = ""

    # ---- from the worker ----

    def report(self, task_id: str, status: TaskStatus) -> None:
        self._reports[task_id] = status
        self._unsent.set()

    def acknowledged(self, version: int) -> None:
        self._network_version = version
        self._unsent.set()

    # ---- sessions ----

    async def run(self, worker: Worker) -> None:
        """`worker` was started and reports to this agent."""
        self._worker = worker
        backoff = Backoff()
        redirects = 0
        while True:
            address = self._managers.next()
            try:
                if address and await self._session(address, worker, backoff):
                    return
                redirects = 0
            except RpcError as error:
                log.info("no session with manager %s: %s", address, error)
                if error.code == "not_leader" and error.detail and redirects < REDIRECTS_MAX:
                    redirects += 1
                    self._managers.redirect(error.detail)
                    continue
            except AssignmentGap as error:
                log.warning("starting the session anew: %s", error)
            redirects = 0
            # The pause grows by the round: the one that answers must not wait for all that do not.
            if self._managers.all_tried:
                self._dial_s = min(DIAL_S_MAX, 2 * self._dial_s)
                await self._clock.sleep(backoff.next())
            else:
                await self._clock.sleep(NEXT_MANAGER_S)

    async def goodbye(self, *, restarting: bool) -> None:
        """Tell the manager that this daemon stops on purpose; its containers run on when `restarting`."""
        stream = self._stream
        if stream is None:
            return
        with contextlib.suppress(RpcError, TimeoutError):
            async with asyncio.timeout(GOODBYE_S_MAX):
                await stream.send(to_json(Goodbye(restarting=restarting)))
                await stream.close()

    async def _session(self, address: str, worker: Worker, backoff: Backoff) -> bool:
        """One session from start to end; True when this node has to leave. Raises RpcError, AssignmentGap."""
        stream = await self._streams.stream(address, METHOD, connect_s=self._dial_s)
        try:
            hello = Hello(description=self._describe(), address=self._address(), session_id=self._session_id)
            await stream.send(to_json(hello))
            first = await self._first_message(stream)
            if isinstance(first, Leave):
                await self._leave(first, worker)
                return True
            if not isinstance(first, SessionMessage):
                raise RpcError("internal", f"manager {address} did not start with the session's data")
            self._opened(address, stream, first)
            backoff.reset()
            self._dial_s = DIAL_S
            return await self._converse(address, stream, worker)
        finally:
            if self._stream is not None:
                self._managers.lost(address)
            self._stream = None
            self.connected_to = ""
            worker.session_ended()
            await self._logs.close()
            await stream.close()

    async def _first_message(self, stream: Stream) -> ManagerMessage | None:
        try:
            async with asyncio.timeout(FIRST_MESSAGE_S_MAX):
                return _decode(await stream.receive())
        except TimeoutError as error:
            raise RpcError("unavailable", "the manager does not answer") from error

    def _opened(self, address: str, stream: Stream, message: SessionMessage) -> None:
        log.info("session %s with manager %s", message.session_id, address)
        self._stream = stream
        self.connected_to = address
        self._session_changed(message)
        assert self._worker is not None, "sessions are opened by run"
        self._reports = {**self._worker.statuses(), **self._reports}
        self._unsent.set()

    def _session_changed(self, message: SessionMessage) -> None:
        self._session_id = message.session_id
        self._heartbeat_s = message.heartbeat_s
        self._managers.replace(message.managers)
        self._on_session(message)

    async def _converse(self, address: str, stream: Stream, worker: Worker) -> bool:
        receiving = asyncio.create_task(self._receive(address, stream, worker))
        others = [
            asyncio.create_task(self._send_heartbeats(stream)),
            asyncio.create_task(self._send_reports(stream)),
        ]
        try:
            done, _ = await asyncio.wait({receiving, *others}, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {receiving}:
                task.result()
            return receiving.result() if receiving in done else False
        finally:
            for task in (receiving, *others):
                task.cancel()
            await asyncio.gather(receiving, *others, return_exceptions=True)

    async def _receive(self, address: str, stream: Stream, worker: Worker) -> bool:
        while (message := _decode(await stream.receive())) is not None:
            match message:
                case Assignments():
                    await worker.apply(message)
                case SessionMessage():
                    self._session_changed(message)
                case LogSubscribe():
                    self._logs.subscribe(address, message)
                case LogUnsubscribe():
                    self._logs.unsubscribe(message.subscription_id)
                case Leave():
                    await self._leave(message, worker)
                    return True
        log.info("manager %s closed the session", address)
        return False

    async def _leave(self, message: Leave, worker: Worker) -> None:
        log.warning("this node leaves the swarm: %s", message.reason)
        await worker.stop_all()
        await self._on_leave(message.reason)

    async def _send_heartbeats(self, stream: Stream) -> None:
        while True:
            await self._clock.sleep(self._heartbeat_s * random.uniform(0.9, 1.1))
            await stream.send(to_json(Heartbeat()))

    async def _send_reports(self, stream: Stream) -> None:
        """What happens while a message is on its way goes into the next one."""
        while True:
            await self._unsent.wait()
            await self._clock.sleep(COALESCE_S)
            self._unsent.clear()
            batch = {id: self._reports.pop(id) for id in list(self._reports)[:REPORTS_PER_MESSAGE]}
            if self._reports:
                self._unsent.set()
            message: AgentMessage = Reports(
                tasks=tuple(TaskReport(task_id=id, status=status) for id, status in batch.items()),
                network_version=self._network_version,
            )
            await stream.send(to_json(message))


def _decode(data: bytes | None) -> ManagerMessage | None:
    if data is None:
        return None
    try:
        message: ManagerMessage = msgspec.json.decode(data, type=ManagerMessage)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RpcError("internal", f"the manager's message cannot be read: {error}") from error
    return message
