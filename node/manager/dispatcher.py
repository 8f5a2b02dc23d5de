"""The leader's side of the agents' sessions: who is alive, what each node runs, what became of it.

Owns `Node.status`, `Node.description`, and the statuses of tasks from ACCEPTED on (as their nodes report
them). Sends each node its assignments and its network map as differences, a few milliseconds after the
store changed. Invariants: a node that comes back within its grace is never marked down; of two sessions with
one identity the older that lives is kept; nothing is written after the leadership ended; no session begins,
and no node is told to leave, on a state that may not be the newest.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Collection

import msgspec

from node.loop import Clock
from node.manager.absence import CRASHED_S_MAX, RESTARTING_S_MAX, Absences
from node.manager.draining import Draining
from node.manager.liveness import (
    CLOSED_GRACE_S,
    RESTART_GRACE_S,
    UNKNOWN_GRACE_S,
    Ear,
    Liveness,
    silence_s_max,
)
from node.manager.orphans import OrphanKeeper
from node.manager.session import AgentSession
from node.manager.status_writer import StatusWriter
from node.rpc import NODES, Identity, RpcError, RpcServer, Stream
from raft import defaults
from raft.codec import from_json
from raft.errors import InvalidArgument
from raft.objects.assignment import (
    AgentMessage,
    Goodbye,
    Heartbeat,
    Hello,
    LogBatch,
    LogSubscribe,
    LogUnsubscribe,
    ManagerAddress,
    NetworkMap,
    Reports,
    SessionMessage,
)
from raft.objects.base import SECOND, Kind, new_id
from raft.objects.node import Node, NodeRole, NodeState, NodeStatus
from raft.objects.task import Task, TaskState
from raft.store import Store
from raft.watch import Event, Watch
from scheduler.netmap import SharedMap

log = logging.getLogger(__name__)

METHOD = "dispatcher.session"
HELLO_S_MAX = 10.0
DEBOUNCE_S = 0.005
LATE_S = 0.5  # a wake-up later than this means that this process was stopped or starved

_WATCHED = frozenset(
    {Kind.NODE, Kind.TASK, Kind.SERVICE, Kind.NETWORK, Kind.SECRET, Kind.CONFIG, Kind.CLUSTER}
)


class Dispatcher:
    """`run` while this manager leads; sessions are refused before and after that.

    leader_address: host:port of the leader or "", for agents that ask the wrong manager. confirm: after it the
    state is the newest (raises RpcError).
    on_acknowledged: called when a node has programmed a newer network map. answers: whether the machine with this
    address is there, of a node whose session ended. own_node: the id of this manager's own.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        leader_address: Callable[[], str],
        confirm: Callable[[], Awaitable[None]],
        answers: Callable[[str], Awaitable[bool]],
        on_acknowledged: Callable[[], None] = lambda: None,
        own_node: str = "",
    ) -> None:
        self._store = store
        self._clock = clock
        self._leader_address = leader_address
        self._confirm = confirm
        self._on_acknowledged = on_acknowledged
        self._sessions: dict[str, AgentSession] = {}
        self._own_node = own_node
        self._ear = Ear(own_node, clock.monotonic())
        self._liveness = Liveness()
        self._liveness_changed = asyncio.Event()
        self._absences = Absences(clock, answers, self._expect)
        self._writer = StatusWriter(store, clock)
        self._maps: dict[str, NetworkMap] = {}
        self._shared_map: SharedMap | None = None
        self._draining = Draining()
        self._draining_changed = asyncio.Event()
        self._leading = False

    def register(self, server: RpcServer) -> None:
        server.handle_stream(METHOD, self.serve, roles=NODES)

    def acknowledged(self, node_id: str) -> int:
        """The network map version that this node has programmed in its present session, or 0."""
        session = self._sessions.get(node_id)
        return session.network_version if session is not None else 0

    def request_logs(self, node_id: str, request: LogSubscribe | LogUnsubscribe) -> None:
        """Raises RpcError unavailable when the node has no session."""
        session = self._sessions.get(node_id)
        if session is None:
            raise RpcError("unavailable", f"node {node_id} is not available")
        session.request_logs(request)

    # ---- leadership ----

    async def run(self) -> None:
        """Serve until cancelled or until a write shows that another manager leads."""
        self._writer = StatusWriter(self._store, self._clock)
        self._ear = Ear(self._own_node, self._clock.monotonic())
        self._liveness = Liveness()
        self._maps.clear()
        self._shared_map = None
        self._draining = Draining()
        self._expect_everybody()
        self._leading = True
        try:
            with self._store.watch(_WATCHED) as watch:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._writer.run())
                    group.create_task(self._follow(watch))
                    group.create_task(self._watch_liveness())
                    group.create_task(self._watch_draining())
                    group.create_task(OrphanKeeper(self._store, self._clock).run())
        finally:
            self._leading = False
            self._absences.end_all()
            for session in list(self._sessions.values()):
                await session.close()

    def _expect_everybody(self) -> None:
        """The nodes have to find the new leader first: twice the usual silence, and longer while they are there.

        Whether one of them had announced a restart only the former leader knew.
        """
        grace = 2 * silence_s_max(self._heartbeat_s())
        for node in self._store.view().nodes.values():
            if node.status.state is NodeState.UNKNOWN:
                self._expect(node.id, self._clock.monotonic() + max(grace, UNKNOWN_GRACE_S))
            elif node.status.state is not NodeState.DOWN:
                self._absences.begin(node.id, node.status.address, silent_s=grace, answering_s=CRASHED_S_MAX)

    def _heartbeat_s(self) -> float:
        cluster = self._store.view().cluster
        return (cluster.spec.heartbeat_ns if cluster else defaults.HEARTBEAT_NS) / SECOND

    # ---- one session ----

    async def serve(self, caller: Identity, stream: Stream) -> None:
        """Handler of the stream; returns when the session is over."""
        self._require_leading()
        hello = await self._receive_hello(stream)
        await self._confirm()
        self._require_leading()
        session = AgentSession(new_id(), caller.node_id, stream, self._clock.monotonic())
        if caller.node_id not in self._store.view().nodes:
            log.warning("node %s is not in this swarm any more, telling it to leave", caller.node_id)
            session.leave("the node was removed from the swarm")
            await self._send_to(session)
            return
        await self._replace_older(caller.node_id, hello)
        self._sessions[caller.node_id] = session
        self._absences.end(caller.node_id)
        self._ear.opened(caller.node_id)
        self._heard(session)
        self._writer.change_node(caller.node_id, self._ready(hello))
        log.info("node %s (%s) opened session %s", caller.node_id, hello.description.hostname, session.id)
        try:
            await self._converse(session, stream)
        finally:
            self._closed(session)

    def _require_leading(self) -> None:
        if not self._leading:
            raise RpcError("not_leader", "this manager is not the leader", self._leader_address())

    async def _receive_hello(self, stream: Stream) -> Hello:
        try:
            async with asyncio.timeout(HELLO_S_MAX):
                data = await stream.receive()
        except TimeoutError as error:
            raise RpcError("invalid_argument", "the agent did not introduce itself in time") from error
        message = _decode(data or b"")
        if not isinstance(message, Hello):
            raise RpcError("invalid_argument", "the first message of a session must be hello")
        return message

    async def _replace_older(self, node_id: str, hello: Hello) -> None:
        """An agent may come back over a new connection; a second machine with its identity may not."""
        older = self._sessions.get(node_id)
        if older is None:
            return
        silent_s = self._clock.monotonic() - older.heard_at
        if hello.session_id != older.id and silent_s < silence_s_max(self._heartbeat_s()):
            log.error(
                "node %s tried to open a second session from %s while its session %s is alive: "
                "two machines with one identity? Join one of them again",
                node_id,
                hello.address,
                older.id,
            )
            raise RpcError("failed_precondition", f"node {node_id} already has a session")
        del self._sessions[node_id]
        await older.close()

    async def _converse(self, session: AgentSession, stream: Stream) -> None:
        sender = asyncio.create_task(self._send_to(session), name=f"session-{session.node_id}")
        receiver = asyncio.create_task(self._receive_from(session, stream))
        try:
            done, _ = await asyncio.wait({sender, receiver}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except RpcError as error:
            if error.code != "unavailable":
                raise
        finally:
            sender.cancel()
            receiver.cancel()
            await asyncio.gather(sender, receiver, return_exceptions=True)

    async def _send_to(self, session: AgentSession) -> None:
        await session.run_sender(
            self._store.view, self._information, self._network_map, lambda: self._draining.held
        )

    async def _receive_from(self, session: AgentSession, stream: Stream) -> None:
        while (data := await stream.receive()) is not None:
            self._heard(session)
            message = _decode(data)
            if isinstance(message, Reports):
                self._reported(session, message)
            elif isinstance(message, Goodbye):
                session.goodbye = message
                return
            elif isinstance(message, LogBatch | Hello):
                raise RpcError("invalid_argument", f"unexpected {type(message).__name__} in a session")
            else:
                assert isinstance(message, Heartbeat)

    def _reported(self, session: AgentSession, reports: Reports) -> None:
        for report in reports.tasks:
            self._writer.report_task(session.node_id, report.task_id, report.status)
        if reports.network_version > session.network_version:
            session.network_version = reports.network_version
            self._stop_drained(self._draining.acknowledged(session.node_id, session.network_version))
            self._on_acknowledged()

    def _heard(self, session: AgentSession) -> None:
        now = self._clock.monotonic()
        session.heard_at = now
        if self._sessions.get(session.node_id) is session:
            self._expect(session.node_id, now + silence_s_max(self._heartbeat_s()))

    def _closed(self, session: AgentSession) -> None:
        if self._sessions.get(session.node_id) is not session:
            return  # replaced by a newer one, or the node was found dead
        del self._sessions[session.node_id]
        self._ear.closed(session.node_id, self._clock.monotonic())
        self._stop_drained(self._draining.acknowledged(session.node_id, math.inf))
        node = self._store.view().nodes.get(session.node_id)
        if node is None or not self._leading:
            return
        if session.goodbye is not None and not session.goodbye.restarting:
            log.info("node %s said that it ends", session.node_id)
            self._expect(session.node_id, self._clock.monotonic())
            return
        log.info("session of node %s closed, waiting for it to return", session.node_id)
        silent_s, answering_s = CLOSED_GRACE_S, CRASHED_S_MAX
        if session.goodbye is not None:
            silent_s, answering_s = RESTART_GRACE_S, RESTARTING_S_MAX
        self._absences.begin(session.node_id, node.status.address, silent_s=silent_s, answering_s=answering_s)

    def _ready(self, hello: Hello) -> Callable[[Node], Node]:
        now = self._clock.now()

        def change(node: Node) -> Node:
            status = NodeStatus(state=NodeState.READY, address=hello.address, since=now)
            if msgspec.structs.replace(status, since=node.status.since) == node.status:
                status = node.status
            return msgspec.structs.replace(node, description=hello.description, status=status)

        return change

    # ---- what the agents are told ----

    def _information(self, session: AgentSession) -> SessionMessage:
        view = self._store.view()
        node = view.nodes.get(session.node_id)
        managers = sorted(
            (node.id, node.manager.address) for node in view.nodes.values() if node.manager is not None
        )
        return SessionMessage(
            session_id=session.id,
            heartbeat_s=self._heartbeat_s(),
            managers=tuple(ManagerAddress(node_id=id, address=address) for id, address in managers),
            role=(node.role if node is not None else NodeRole.WORKER).value,
            root_cert_pem=view.cluster.root_ca.cert_pem if view.cluster else "",
        )

    def _network_map(self, node_id: str) -> NetworkMap:
        if self._shared_map is None:
            self._shared_map = SharedMap(self._store.view())
        # The floor keeps versions growing when another manager has counted before.
        made = self._shared_map.of_node(node_id, self._maps.get(node_id), floor=self._store.index)
        self._maps[node_id] = made
        return made

    async def _follow(self, watch: Watch) -> None:
        """Pass on what changes. The pause grows with the work, so that a flood leaves time for the rest."""
        pause = DEBOUNCE_S
        while True:
            await watch.wait()
            await self._clock.sleep(pause)
            started = self._clock.monotonic()
            self._pass_on(watch.drain())
            await asyncio.sleep(0)  # the senders work now
            pause = max(DEBOUNCE_S, 2 * (self._clock.monotonic() - started))

    def _pass_on(self, events: list[Event]) -> None:
        node_ids: set[str] = set()
        everybody = informed = False
        for event in events:
            if event.action == "resync":
                everybody = informed = True
            elif event.kind is Kind.TASK:
                node_ids.update(task.node_id for task in (event.old, event.new) if isinstance(task, Task))
                everybody = everybody or _moves_network(event)
            elif event.kind in (Kind.NODE, Kind.CLUSTER):
                informed = True
                everybody = everybody or _moves_network(event)
                self._node_changed(event)
            elif event.kind is not None:
                everybody = True
        if everybody:
            self._shared_map = None
            self._hold_back(events)
        for session in self._sessions.values():
            if everybody or session.node_id in node_ids:
                session.assignments_changed()
            if informed:
                session.information_changed()

    def _hold_back(self, events: list[Event]) -> None:
        """Running tasks that are to stop go on until the nodes have taken them out of their maps."""
        stopping = [event.new.id for event in events if _stops_serving(event) and event.new is not None]
        if not stopping:
            return
        versions = {
            session.node_id: version
            for session in self._sessions.values()
            if (version := self._network_map(session.node_id).version) > session.network_version
        }
        for task_id in stopping:
            self._draining.hold(task_id, versions, self._clock.monotonic())
        self._draining_changed.set()

    async def _watch_draining(self) -> None:
        while True:
            wait_s = self._draining.next_deadline() - self._clock.monotonic()
            await self._clock.wait(self._draining_changed, wait_s)
            self._draining_changed.clear()
            self._stop_drained(self._draining.expired(self._clock.monotonic()))

    def _stop_drained(self, task_ids: Collection[str]) -> None:
        for task_id in task_ids:
            task = self._store.view().tasks.get(task_id)
            session = self._sessions.get(task.node_id) if task is not None else None
            if session is not None:
                session.assignments_changed()

    def _node_changed(self, event: Event) -> None:
        if event.action != "delete" or not isinstance(event.old, Node):
            return
        node_id = event.old.id
        self._liveness.forget(node_id)
        self._absences.end(node_id)
        self._maps.pop(node_id, None)
        if node_id in self._sessions:
            self._sessions[node_id].leave("the node was removed from the swarm")

    # ---- the living and the dead ----

    def _expect(self, node_id: str, by: float) -> None:
        earlier = by < self._liveness.next_deadline()
        self._liveness.expect(node_id, by)
        if earlier:
            self._liveness_changed.set()

    async def _watch_liveness(self) -> None:
        while True:
            deadline = self._liveness.next_deadline()
            woken = await self._clock.wait(self._liveness_changed, deadline - self._clock.monotonic())
            self._liveness_changed.clear()
            now = self._clock.monotonic()
            if not woken and now - deadline > LATE_S:
                log.warning("this manager did not run for %.1f s, giving the nodes that time", now - deadline)
                self._liveness.shift(now - deadline + LATE_S)
                continue
            for node_id in self._liveness.expired(now):
                if self._ear.is_deaf(now):
                    log.warning(
                        "node %s was not heard from in time, but neither was this one: waiting", node_id
                    )
                    self._liveness.expect(node_id, now + CLOSED_GRACE_S)
                else:
                    await self._down(node_id)

    async def _down(self, node_id: str) -> None:
        log.warning("node %s is down: not heard from in time", node_id)
        self._absences.end(node_id)
        now = self._clock.now()
        # Taken out first: its handler must not give it another grace.
        session = self._sessions.pop(node_id, None)
        self._writer.change_node(node_id, lambda node: _marked_down(node, now))
        if session is not None:
            await session.close()


def _decode(data: bytes) -> AgentMessage:
    try:
        message: AgentMessage = from_json(data, AgentMessage)  # type: ignore[arg-type]
    except InvalidArgument as error:
        raise RpcError("invalid_argument", str(error)) from error
    return message


def _moves_network(event: Event) -> bool:
    """Whether the network maps may have changed."""
    old, new = event.old, event.new
    if isinstance(old, Task) and isinstance(new, Task):
        return bool(new.networks or old.networks) and (
            old.status.state != new.status.state
            or old.desired_state != new.desired_state
            or old.networks != new.networks
            or old.node_id != new.node_id
        )
    if isinstance(old, Task) or isinstance(new, Task):
        return any(isinstance(task, Task) and task.networks for task in (old, new))
    if isinstance(old, Node) and isinstance(new, Node):
        return (old.status.state, old.status.address, old.networks) != (
            new.status.state,
            new.status.address,
            new.networks,
        )
    return event.kind is Kind.NODE


def _stops_serving(event: Event) -> bool:
    """A running task with addresses was told to stop."""
    old, new = event.old, event.new
    return (
        isinstance(old, Task)
        and isinstance(new, Task)
        and bool(new.networks)
        and new.status.state is TaskState.RUNNING
        and old.desired_state <= TaskState.RUNNING
        and new.desired_state >= TaskState.SHUTDOWN
    )


def _marked_down(node: Node, now: float) -> Node:
    status = msgspec.structs.replace(
        node.status, state=NodeState.DOWN, message="heartbeat failure", since=now
    )
    return msgspec.structs.replace(node, status=status)
