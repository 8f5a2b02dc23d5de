"""What runs in a manager's process of `tests.manager_processes`: consensus and its sockets, all in one folder."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from raft.consensus import Consensus, ConsensusConfig
from raft.errors import RaftError
from raft.store import Store

LINE_BYTES_MAX = 1 << 24
Answer = Callable[[Any], Awaitable[dict[str, Any]]]


class Dialer:
    def __init__(self, folder: Path, node_id: str) -> None:
        self.folder = folder
        self.node_id = node_id

    async def dial(self, node_id: str, address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(str(self.folder / f"{node_id}.raft"))
        writer.write(self.node_id.encode() + b"\n")
        return reader, writer


def opened(store: Store, dialer: Dialer, how: str, snapshot_interval: int) -> Consensus:
    """`how`: bootstrap, join or resume."""
    node_id = dialer.node_id
    state_dir = dialer.folder / node_id
    config = ConsensusConfig(
        node_id, node_id + ":1", "c1", state_dir, b"k" * 32, snapshot_interval=snapshot_interval
    )
    arguments = ({},) if how == "join" else ()
    consensus: Consensus = getattr(Consensus, how)(config, store, dialer, *arguments)
    store.attach(consensus)
    return consensus


async def serve(dialer: Dialer, consensus: Consensus, **sockets: Answer) -> None:
    """For ever: the other managers, and JSON lines on each of the sockets (name -> what answers)."""
    await consensus.start()

    async def raft(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        consensus.accept((await reader.readline()).decode().strip(), reader, writer)

    for name, handler in {"raft": raft, **{name: _lines(answer) for name, answer in sockets.items()}}.items():
        path = dialer.folder / f"{dialer.node_id}.{name}"
        path.unlink(missing_ok=True)
        await asyncio.start_unix_server(handler, path, limit=LINE_BYTES_MAX)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


def _lines(answer: Answer) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            try:
                made = await answer(json.loads(line))
            except RaftError as error:
                made = {"error": type(error).__name__, "message": str(error)}
            writer.write(json.dumps(made).encode() + b"\n")

    return handle


async def asked(path: Path, message: object) -> bytes:
    """The line that one of those sockets answers, empty when it is closed before; OSError when nobody listens."""
    reader, writer = await asyncio.open_unix_connection(str(path), limit=LINE_BYTES_MAX)
    try:
        writer.write(json.dumps(message).encode() + b"\n")
        return await reader.readline()
    finally:
        writer.close()
