"""Service and task logs from any manager: here when it leads, else streamed from the leader.

The stream "logs.read" carries one request (JSON) and then batches of lines, the last one `finished`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import msgspec

from engine.config import LogOptions
from node.manager.control.base import Leadership
from node.manager.forward import from_rpc, leader_address, to_rpc
from node.manager.logbroker import LogBroker, LogSelection
from node.rpc import MANAGERS, Identity, RpcClient, RpcError, RpcServer, Stream
from raft.errors import NotFound, RaftError, Unavailable
from raft.objects.assignment import LogBatch, LogLine
from raft.objects.base import Kind
from raft.objects.task import Task
from raft.store import Store, View

METHOD = "logs.read"
BATCH_LINES_MAX = 200


class LogReadRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`kind`: service or task; `ref`: id, name or unique id prefix."""

    kind: str
    ref: str
    options: LogOptions


def selector(view: View, kind: str, ref: str) -> Callable[[View], list[Task]]:
    """Which tasks are meant, also as they come and go. NotFound names the object."""
    if kind == "task":
        task = view.tasks.get(ref) or _by_prefix(view, ref)
        if task is None:
            raise NotFound(f"task {ref} not found")
        return lambda now: [found] if (found := now.tasks.get(task.id)) else []
    service = view.services.get(ref) or view.by_name(Kind.SERVICE, ref)
    if service is None:
        matches = [s for s in view.services.values() if s.id.startswith(ref)]
        if len(matches) != 1:
            raise NotFound(f"service {ref} not found")
        service = matches[0]
    service_id = service.id
    return lambda now: now.tasks_of_service(service_id)


class LogReaderService:
    """Serves other managers while this one leads."""

    def __init__(self, store: Store, broker: LogBroker, leadership: Leadership) -> None:
        self._store = store
        self._broker = broker
        self._leadership = leadership

    def register(self, server: RpcServer) -> None:
        server.handle_stream(METHOD, self.serve, roles=MANAGERS)

    async def serve(self, _caller: Identity, stream: Stream) -> None:
        if not self._leadership.is_leader:
            raise RpcError("not_leader", "this manager is not the leader", leader_address(self._leadership))
        data = await stream.receive()
        if data is None:
            return
        try:
            request = msgspec.json.decode(data, type=LogReadRequest)
            async for line in _local(self._store, self._broker, request):
                await stream.send(msgspec.json.encode(LogBatch(subscription_id="", lines=(line,))))
        except msgspec.DecodeError as error:
            raise RpcError("invalid_argument", str(error)) from error
        except RaftError as error:
            raise to_rpc(error) from error
        await stream.send(msgspec.json.encode(LogBatch(subscription_id="", finished=True)))


async def read_logs(
    store: Store,
    broker: LogBroker,
    leadership: Leadership,
    client: RpcClient,
    kind: str,
    ref: str,
    options: LogOptions,
) -> AsyncIterator[LogLine]:
    """Lines as they arrive. Unavailable when there is no leader, or a node did not deliver."""
    request = LogReadRequest(kind=kind, ref=ref, options=options)
    if leadership.is_leader:
        async for line in _local(store, broker, request):
            yield line
        return
    address = leader_address(leadership)
    if not address:
        raise Unavailable("there is no leader to read the logs through: try again")
    try:
        stream = await client.stream(address, METHOD)
        try:
            await stream.send(msgspec.json.encode(request))
            while (data := await stream.receive()) is not None:
                batch = msgspec.json.decode(data, type=LogBatch)
                for line in batch.lines:
                    yield line
                if batch.finished:
                    return
        finally:
            await stream.close()
    except RpcError as error:
        raise from_rpc(error) from error


async def _local(store: Store, broker: LogBroker, request: LogReadRequest) -> AsyncIterator[LogLine]:
    options = request.options
    select = selector(store.view(), request.kind, request.ref)
    selection = LogSelection(
        follow=options.follow,
        new_tasks=options.follow and request.kind == "service",
        since=options.since,
        until=options.until,
        tail=options.tail,
        stdout=options.stdout,
        stderr=options.stderr,
    )
    async for line in broker.logs(select, selection):
        yield line


def _by_prefix(view: View, ref: str) -> Task | None:
    matches = [task for task in view.tasks.values() if task.id.startswith(ref)]
    return matches[0] if len(matches) == 1 else None
