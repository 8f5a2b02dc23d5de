"""Clients that create, change and remove services while their managers' leader is killed again and again.

Three managers as real processes with the real control API and its proxies, over unix sockets: no packet
leaves the machine and no root is needed. Every call must end well in the end, take effect once, and never
be told about the effect of its own earlier attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

# One manager: argv = folder, node id, "bootstrap" | "join" | "resume". Requests and answers are JSON lines.
PROGRAM = """
import asyncio, base64, json, sys
from pathlib import Path
import msgspec
from node.manager.controlapi import ControlApi
from node.manager.forward import ControlProxy, register_control
from node.rpc import RpcError
from raft.consensus import Consensus, ConsensusConfig
from raft.errors import RaftError
from raft.objects.base import Annotations
from raft.objects.request import Request
from raft.objects.service import ContainerSpec, ServiceSpec, TaskSpec
from raft.store import Store

folder, node_id, how = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

async def exchange(path, message, timeout):
    async with asyncio.timeout(timeout):
        reader, writer = await asyncio.open_unix_connection(str(path), limit=1 << 24)
        try:
            writer.write(json.dumps(message).encode() + b"\\n")
            return await reader.readline()
        finally:
            writer.close()

class Peers:
    def __init__(self):
        self.handlers = {}

    async def dial(self, other, address):
        reader, writer = await asyncio.open_unix_connection(str(folder / f"{other}.raft"))
        writer.write(node_id.encode() + b"\\n")
        return reader, writer

    def handle(self, method, handler, *, roles):
        self.handlers[method] = handler

    async def call(self, address, method, payload, *, timeout):
        path = folder / f"{address.partition(':')[0]}.rpc"
        try:
            line = await exchange(path, [method, payload.decode()], timeout)
        except (ConnectionRefusedError, FileNotFoundError) as error:
            raise RpcError("unavailable", f"cannot reach {address}") from error
        except (OSError, TimeoutError) as error:
            raise RpcError("maybe_committed", f"no answer from {address}") from error
        if not line:
            raise RpcError("maybe_committed", f"no answer from {address}")
        answer = json.loads(line)
        if "code" in answer:
            raise RpcError(answer["code"], answer["message"], answer["detail"])
        return answer["result"].encode()

    async def answer(self, message):
        method, payload = message
        try:
            return {"result": (await self.handlers[method](None, payload.encode())).decode()}
        except RpcError as error:
            return {"code": error.code, "message": error.message, "detail": error.detail}

async def main():
    store, peers = Store(), Peers()
    config = ConsensusConfig(node_id, node_id + ":1", "c1", folder / node_id, b"k" * 32, snapshot_interval=200)
    arguments = ({},) if how == "join" else ()
    consensus = getattr(Consensus, how)(config, store, peers, *arguments)
    store.attach(consensus)
    api = ControlApi(store, consensus)
    register_control(peers, api, consensus)
    proxy = ControlProxy(node_id, api, consensus, peers)
    await consensus.start()

    async def raft(reader, writer):
        consensus.accept((await reader.readline()).decode().strip(), reader, writer)

    def spec(message):
        labels = {"n": str(message.get("label", 0))}
        return ServiceSpec(
            annotations=Annotations(name=message["name"], labels=labels),
            task=TaskSpec(container=ContainerSpec(image="hello")),
        )

    async def request(message):
        verb, name = message["verb"], message.get("name", "")
        control = proxy
        if "key" in message:
            control = proxy.for_request(Request(message["key"], repr(sorted(message.items())).encode(), True))
        if verb == "create":
            made = await control.create_service(spec(message))
            return {"id": made.id, "version": made.meta.version}
        if verb == "update":
            made = await control.update_service(message["id"], message["version"], spec(message))
            return {"version": made.meta.version}
        if verb == "remove":
            await control.remove_service(message["id"])
            return {}
        if verb == "add":
            await consensus.add_member(name, name + ":1")
            return {}
        if verb == "list":
            found = await proxy.list_services({})
            return {
                s.spec.annotations.name: [s.id, s.meta.version, s.spec.annotations.labels["n"]] for s in found
            }
        return {"leader": consensus.is_leader, "applied": store.index, "index": proxy.index}

    def serving(answer):
        async def serve(reader, writer):
            while line := await reader.readline():
                try:
                    made = await answer(json.loads(line))
                except RaftError as error:
                    made = {"error": type(error).__name__, "message": str(error)}
                writer.write(json.dumps(made).encode() + b"\\n")
        return serve

    for name, handler in (("raft", raft), ("rpc", serving(peers.answer)), ("control", serving(request))):
        path = folder / f"{node_id}.{name}"
        path.unlink(missing_ok=True)
        await asyncio.start_unix_server(handler, path, limit=1 << 24)
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""

# What a client may be told; all of it but the first says that the same request may be sent again.
TRY_AGAIN = {"Connection", "MaybeCommitted", "Unavailable"}


class Managers:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, node_id: str, how: str) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, str(self.folder), node_id, how,
            stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        async with asyncio.timeout(30):
            assert await process.stdout.readline() == b"ready\n", f"{node_id} did not start"
        self.processes[node_id] = process

    async def kill(self, node_id: str) -> None:
        process = self.processes.pop(node_id)
        process.send_signal(signal.SIGKILL)
        await process.wait()

    async def ask(self, node_id: str, timeout_s: float = 40, **message: Any) -> dict[str, Any]:
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await asyncio.open_unix_connection(
                    self.folder / f"{node_id}.control", limit=1 << 24
                )
                try:
                    writer.write(json.dumps(message).encode() + b"\n")
                    line = await reader.readline()
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return {"error": "Connection"}
        answer: dict[str, Any] = json.loads(line) if line else {"error": "Connection"}
        return answer

    async def any(self, **message: Any) -> dict[str, Any]:
        """Ask one after the other until one answers well; what else is said must allow that."""
        async with asyncio.timeout(90):
            while True:
                node_id = random.choice(sorted(self.processes) or ["n1"])
                answer = await self.ask(node_id, **message)
                if "error" not in answer:
                    return answer
                assert answer["error"] in TRY_AGAIN, (message, answer)
                await asyncio.sleep(0.02)

    async def once(self, **message: Any) -> dict[str, Any]:
        """A write with a key of its own: sent again, through any manager, until it is answered."""
        index = (await self.any(verb="status"))["index"]
        return await self.any(key=f"{index}-{secrets.token_hex(12)}", **message)

    async def leader(self) -> str:
        async with asyncio.timeout(30):
            while True:
                for node_id in list(self.processes):
                    if (await self.ask(node_id, verb="status", timeout_s=2)).get("leader"):
                        return node_id
                await asyncio.sleep(0.02)


@pytest.fixture
async def managers(tmp_path: Path) -> AsyncIterator[Managers]:
    made = Managers(tmp_path)
    yield made
    for node_id in list(made.processes):
        with contextlib.suppress(ProcessLookupError):
            await made.kill(node_id)


async def client(managers: Managers, prefix: str, stop: asyncio.Event) -> dict[str, list[Any]]:
    """Name -> [id, version, label] of what must be there at the end."""
    expected: dict[str, list[Any]] = {}
    number = 0
    while not stop.is_set():
        name = f"{prefix}-{number}"
        made = await managers.once(verb="create", name=name)
        changed = await managers.once(
            verb="update", id=made["id"], version=made["version"], name=name, label=number + 1
        )
        assert changed["version"] > made["version"]
        if number % 3 == 2:
            await managers.once(verb="remove", id=made["id"], name=name)
        else:
            expected[name] = [made["id"], changed["version"], str(number + 1)]
        number += 1
    return expected


async def test_leaders_are_killed_and_every_call_takes_effect_once(managers: Managers) -> None:
    await managers.start("n1", "bootstrap")
    for node_id in ("n2", "n3"):
        await managers.start(node_id, "join")
        assert await managers.ask("n1", verb="add", name=node_id) == {}
    stop = asyncio.Event()
    clients = [asyncio.create_task(client(managers, f"c{number}", stop)) for number in range(6)]
    for _ in range(6):
        await asyncio.sleep(random.uniform(0.3, 1.2))
        leader = await managers.leader()
        await managers.kill(leader)
        await managers.leader()
        await managers.start(leader, "resume")
    stop.set()
    expected: dict[str, list[Any]] = {}
    for made in await asyncio.gather(*clients):
        expected.update(made)
    assert len(expected) > 20
    for node_id in sorted(managers.processes):
        assert await managers.ask(node_id, verb="list") == expected
