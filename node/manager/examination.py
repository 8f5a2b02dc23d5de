"""One manager examined by itself: its digests at a checkpoint, and its files on disk.

Keeps the state of the last checkpoints for a minute, as references to frozen objects, so that all managers
can be asked about exactly the same index. Hashing and reading happen in threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Protocol, TypeVar

import msgspec

from node.manager.forward import RpcHandlers, to_rpc
from node.rpc import MANAGERS, Identity, RpcError
from raft import digest, verify
from raft.config import log_owner
from raft.consensus import ConsensusConfig
from raft.digest import Digests, ObjectDigest
from raft.dump import Dump, count_dump
from raft.errors import NotFound, RaftError
from raft.objects.base import Kind
from raft.store import Store
from raft.verify import FileReport, Moved

EXAMINE = "cluster.examine"
BUCKETS = "cluster.buckets"
OBJECTS = "cluster.objects"
KEPT_S = 60.0
KEPT_MAX = 2
APPLY_WAIT_S = 10.0
POLL_S = 0.01
FILE_ATTEMPTS = 5
FILE_RETRY_S = 0.1

T = TypeVar("T")


class Manager(Protocol):
    """The consensus of this manager."""

    @property
    def applied_index(self) -> int: ...

    @property
    def term(self) -> int: ...

    @property
    def failure(self) -> Exception | None: ...


class ExamineRequest(msgspec.Struct, frozen=True):
    """`index`: of a checkpoint; 0: digests cannot be compared, look at the files only."""

    index: int


class BucketsRequest(msgspec.Struct, frozen=True):
    index: int
    kind: Kind


class ObjectsRequest(msgspec.Struct, frozen=True):
    index: int
    kind: Kind
    bucket: int


class Examination(msgspec.Struct, frozen=True, kw_only=True):
    """`digests` is None when this manager has not had the checkpoint; `problem` then says why."""

    node_id: str
    applied_index: int
    term: int
    digests: Digests | None
    problem: str
    files: list[FileReport]


class Examiner:
    """`config`: of this manager's own log and snapshots."""

    def __init__(self, config: ConsensusConfig, store: Store, manager: Manager) -> None:
        self._config = config
        self._manager = manager
        self._kept: dict[int, Dump] = {}
        store.on_checkpoint(self._keep)

    def register(self, server: RpcHandlers) -> None:
        server.handle(EXAMINE, self._serve_examine, roles=MANAGERS)
        server.handle(BUCKETS, self._serve_buckets, roles=MANAGERS)
        server.handle(OBJECTS, self._serve_objects, roles=MANAGERS)

    async def examine(self, index: int) -> Examination:
        files = await self._files()
        dump = await self._dump(index) if index else None
        digests = None if dump is None else await asyncio.to_thread(digest.of_kinds, dump)
        problem = ""
        if self._manager.failure is not None:
            problem = f"takes no part: {self._manager.failure}"
        elif index and dump is None:
            problem = f"has not applied entry {index} by itself: it is behind, or was given a snapshot"
        return Examination(
            node_id=self._config.node_id,
            applied_index=self._manager.applied_index,
            term=self._manager.term,
            digests=digests,
            problem=problem,
            files=files,
        )

    async def buckets(self, request: BucketsRequest) -> list[bytes]:
        """Raises NotFound when the checkpoint is not kept any more."""
        return await asyncio.to_thread(digest.of_buckets, self._kept_at(request.index), request.kind)

    async def objects(self, request: ObjectsRequest) -> dict[str, ObjectDigest]:
        """Raises NotFound when the checkpoint is not kept any more."""
        dump = self._kept_at(request.index)
        return await asyncio.to_thread(digest.of_objects, dump, request.kind, request.bucket)

    def _kept_at(self, index: int) -> Dump:
        dump = self._kept.get(index)
        if dump is None:
            raise NotFound(f"the state at entry {index} is not kept any more: check again")
        return dump

    def _keep(self, dump: Dump) -> None:
        self._kept[dump.index] = dump
        while len(self._kept) > KEPT_MAX:
            del self._kept[min(self._kept)]
        asyncio.get_running_loop().call_later(KEPT_S, self._kept.pop, dump.index, None)

    async def _dump(self, index: int) -> Dump | None:
        deadline = asyncio.get_running_loop().time() + APPLY_WAIT_S
        while index not in self._kept and self._manager.applied_index < index:
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(POLL_S)
        return self._kept.get(index)

    async def _files(self) -> list[FileReport]:
        problem = ""
        for _ in range(FILE_ATTEMPTS):
            try:
                # Between two turns of the event loop, which writes the log: no write is half done.
                inventory = verify.take(self._config.state_dir)
                return await asyncio.to_thread(
                    verify.verify, inventory, self._config.key, log_owner(self._config), count_dump
                )
            except Moved as error:
                problem = str(error)
            except OSError as error:
                return [FileReport(str(self._config.state_dir), 0, f"cannot be read: {error}")]
            await asyncio.sleep(FILE_RETRY_S)
        return [FileReport(str(self._config.state_dir), 0, f"changes faster than it can be read: {problem}")]

    async def _serve_examine(self, _caller: Identity | None, payload: bytes) -> bytes:
        request = _decode(payload, ExamineRequest)
        return msgspec.msgpack.encode(await self.examine(request.index))

    async def _serve_buckets(self, _caller: Identity | None, payload: bytes) -> bytes:
        return await _answer(self.buckets(_decode(payload, BucketsRequest)))

    async def _serve_objects(self, _caller: Identity | None, payload: bytes) -> bytes:
        return await _answer(self.objects(_decode(payload, ObjectsRequest)))


async def _answer(result: Awaitable[object]) -> bytes:
    try:
        return msgspec.msgpack.encode(await result)
    except RaftError as error:
        raise to_rpc(error) from error


def _decode(payload: bytes, kind: type[T]) -> T:
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except msgspec.MsgspecError as error:
        raise RpcError("invalid_argument", str(error)) from error
