"""Clients that create, change and remove services while their managers' leader is killed again and again.

Three managers as real processes with the real control API and its proxies. Every call must end well in the end,
take effect once, and never be told about the effect of its own earlier attempt.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.manager_processes import Managers

PROGRAM = """
import asyncio, json, sys
from pathlib import Path
from node.manager.controlapi import ControlApi
from node.manager.forward import ControlProxy, register_control
from node.rpc import RpcError
from raft.objects.base import Annotations
from raft.objects.request import Request
from raft.objects.service import ContainerSpec, ServiceSpec, TaskSpec
from raft.store import Store
from tests.manager_program import Dialer, asked, opened, serve

class Peers(Dialer):
    def __init__(self, folder, node_id):
        super().__init__(folder, node_id)
        self.handlers = {}

    def handle(self, method, handler, *, roles):
        self.handlers[method] = handler

    async def call(self, address, method, payload, *, timeout):
        path = self.folder / f"{address.partition(':')[0]}.rpc"
        try:
            async with asyncio.timeout(timeout):
                line = await asked(path, [method, payload.decode()])
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
    store, peers = Store(), Peers(Path(sys.argv[1]), sys.argv[2])
    consensus = opened(store, peers, sys.argv[3], snapshot_interval=200)
    api = ControlApi(store, consensus)
    register_control(peers, api, consensus)
    proxy = ControlProxy(peers.node_id, api, consensus, peers)

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

    await serve(peers, consensus, rpc=peers.answer, control=request)

asyncio.run(main())
"""

# What a client may be told; all of it but the first says that the same request may be sent again.
TRY_AGAIN = {"Connection", "MaybeCommitted", "Unavailable"}


class Asked(Managers):
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


@pytest.fixture
async def managers(tmp_path: Path) -> AsyncIterator[Asked]:
    async with Asked(tmp_path, PROGRAM) as made:
        yield made


async def client(managers: Asked, prefix: str, stop: asyncio.Event, expected: dict[str, list[Any]]) -> None:
    """Notes of each service that must be there at the end: name -> [id, version, label]."""
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


async def test_leaders_are_killed_and_every_call_takes_effect_once(managers: Asked) -> None:
    await managers.start_three()
    stop = asyncio.Event()
    expected: dict[str, list[Any]] = {}
    clients = [asyncio.create_task(client(managers, f"c{number}", stop, expected)) for number in range(6)]
    for _ in range(6):
        wanted = len(expected) + random.randint(4, 6)
        async with asyncio.timeout(30):
            while len(expected) < wanted:
                await asyncio.sleep(0.01)
        leader = await managers.leader()
        await managers.kill(leader)
        await managers.leader()
        await managers.start(leader, "resume")
    stop.set()
    await asyncio.gather(*clients)
    for node_id in sorted(managers.processes):
        assert await managers.ask(node_id, verb="list") == expected
