"""The load on etcd, in a process of its own. Arguments: folder with the certificates, port of a member."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import msgspec

from bench.raft import grpc, load
from bench.raft.etcd import client_context
from bench.raft.processes import serve

CLIENTS_PER_CONNECTION = 64


def put_request(key: bytes, value: bytes) -> bytes:
    """etcdserverpb.PutRequest: key is field 1, value field 2."""
    return b"\x0a" + _sized(key) + b"\x12" + _sized(value)


def _sized(data: bytes) -> bytes:
    assert len(data) < 1 << 14
    length = bytes([len(data)]) if len(data) < 128 else bytes([len(data) & 127 | 128, len(data) >> 7])
    return length + data


async def main() -> None:
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    headers = grpc.header_block(f"127.0.0.1:{port}", "/etcdserverpb.KV/Put")
    context = client_context(folder, "h2")

    async def handle(message: dict[str, Any]) -> dict[str, Any]:
        clients = message["clients"]
        count = -(-clients // CLIENTS_PER_CONNECTION)
        connections = [await grpc.connect("127.0.0.1", port, context) for _ in range(count)]

        async def write(client: int, value: bytes) -> None:
            await connections[client % count].call(headers, put_request(b"client-%d" % client, value))

        made = await load.run(write, clients, message["seconds"])
        for connection in connections:
            connection.close()
        return msgspec.to_builtins(made)  # type: ignore[no-any-return]

    await serve(handle)


if __name__ == "__main__":
    asyncio.run(main())
