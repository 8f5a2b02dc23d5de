"""The clients: they write and read through all managers at once and record what they did.

Most clients stay with one manager, some go from one to the other; they differ in how long they wait for an
answer. Registers are the label `value` of configs, changed by compare-and-swap on the version that was read.
Creations are configs and services (of no replicas) with names used once; each name is a register as well, empty
until it is created, so that a creation that is lost or not seen is a violation like any other. Creations and
their look-ups do not wait for each other: so the longest time without an accepted write is a matter of the
managers, and a leader of the past is asked as well, at which clients that wait would all be stuck.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from chaos.api import Answer, Api
from chaos.history import Kind, Operation, Outcome, started

CLIENTS_PER_MANAGER = 3
ROAMING_CLIENTS = 3
REGISTERS = 4
CREATION_PERIOD_S = 0.05
LOOK_UP_PERIOD_S = 0.015
PATIENCE_S = (0.4, 1.5, 4.0)
THINK_S_MAX = 0.05
OPERATION_S_MAX = 4.0
SET_UP_S_MAX = 30.0
RECENT_CREATIONS = 10


@dataclass(frozen=True)
class Seen:
    """A register as a client saw it last."""

    value: str | None
    version: int


@dataclass
class Client:
    """`home`: the managers that it asks; `patience_s`: how long it waits; `seen`: by register."""

    name: str
    home: list[str]
    patience_s: float
    seen: dict[str, Seen] = field(default_factory=dict)


class Workload:
    """`prefix` keeps the names of one run apart from those of another; `sockets` by name of the manager."""

    def __init__(self, prefix: str, apis: Mapping[str, Api], rng: random.Random) -> None:
        self._prefix = prefix
        self._apis = dict(apis)
        self._rng = rng
        self._names = list(apis)
        self._ids: dict[str, str] = {}  # register -> id of its config
        self._tried: list[str] = []  # keys of creations
        self._acknowledged: list[str] = []
        self._values = 0
        self._stopping = asyncio.Event()
        self.operations: list[Operation] = []

    # ---- a run ----

    async def set_up(self) -> None:
        """The registers exist. Raises TimeoutError when the managers do not take them."""
        async with asyncio.timeout(SET_UP_S_MAX):
            for number in range(REGISTERS):
                await self._set_up_register(f"{self._prefix}-r{number}")

    async def _set_up_register(self, key: str) -> None:
        while key not in self._ids:
            operation, answer = await self._create(key, "set-up", self._rng.choice(self._names), value="0")
            if operation.outcome is Outcome.OK:
                self._ids[key] = str(answer.body["ID"])
                return
            if operation.outcome is not Outcome.FAIL:
                raise RuntimeError(f"register {key} could not be made: {operation.detail}")
            await asyncio.sleep(0.1)

    async def run(self) -> None:
        """Until `stop`; every client finishes the request it is at."""
        homes: list[list[str]] = [[name] for name in self._names] * CLIENTS_PER_MANAGER
        homes += [self._names] * ROAMING_CLIENTS
        async with asyncio.TaskGroup() as group:
            for number, home in enumerate(homes):
                patience_s = PATIENCE_S[number // len(self._names) % len(PATIENCE_S)]
                group.create_task(self._client(Client(f"c{number}", home, patience_s)))
            group.create_task(self._at_intervals(CREATION_PERIOD_S, self._make, group))
            group.create_task(self._at_intervals(LOOK_UP_PERIOD_S, self._look_up, group))

    def stop(self) -> None:
        self._stopping.set()

    async def _client(self, client: Client) -> None:
        while not self._stopping.is_set():
            await self._chosen()(client)
            await asyncio.sleep(self._rng.uniform(0, THINK_S_MAX))

    def _chosen(self) -> Callable[[Client], Awaitable[None]]:
        actions = (self._look, self._swap, self._look_and_swap)
        return self._rng.choices(actions, weights=(3, 1, 3))[0]

    async def _at_intervals(
        self, period_s: float, action: Callable[[str], Coroutine[None, None, None]], group: asyncio.TaskGroup
    ) -> None:
        """Through one manager after the other."""
        for manager in itertools.cycle(self._names):
            if self._stopping.is_set():
                return
            group.create_task(action(manager))
            await asyncio.sleep(period_s)

    # ---- registers ----

    async def _look(self, client: Client) -> None:
        await self._read(client, self._rng.choice(list(self._ids)))

    async def _look_and_swap(self, client: Client) -> None:
        """The usual way of a client: read, then write what depends on it."""
        key = self._rng.choice(list(self._ids))
        client.seen.pop(key, None)
        await self._read(client, key)
        if key in client.seen:
            await self._compare_and_swap(client, key)

    async def _swap(self, client: Client) -> None:
        """On what was seen long ago: nearly always refused, and it must be."""
        if client.seen:
            await self._compare_and_swap(client, self._rng.choice(list(client.seen)))

    async def _read(self, client: Client, key: str) -> None:
        manager = self._rng.choice(client.home)
        operation = started(client.name, manager, key, Kind.READ)
        answer = await self._apis[manager].call(
            "GET", f"/configs/{self._ids[key]}", timeout_s=client.patience_s
        )
        if answer.outcome is Outcome.OK:
            value = str(answer.body["Spec"]["Labels"]["value"])
            client.seen[key] = Seen(value, int(answer.body["Version"]["Index"]))
            self.operations.append(operation.ended(Outcome.OK, value=value))
        else:
            self.operations.append(_unsuccessful_read(operation, answer))

    async def _compare_and_swap(self, client: Client, key: str) -> None:
        manager, base = self._rng.choice(client.home), client.seen.pop(key)
        value = self._new_value()
        operation = started(client.name, manager, key, Kind.CAS, value=value, expected=base.value)
        path = f"/configs/{self._ids[key]}/update?version={base.version}"
        body = {"Name": key, "Labels": {"value": value}}
        answer = await self._apis[manager].call("POST", path, body, timeout_s=client.patience_s)
        self.operations.append(operation.ended(answer.outcome, detail=answer.detail))

    def _new_value(self) -> str:
        self._values += 1
        return str(self._values)

    # ---- creations ----

    async def _make(self, manager: str) -> None:
        kind = self._rng.choices(("c", "s"), weights=(3, 1))[0]
        key = f"{self._prefix}-{kind}{self._new_value()}"
        self._tried.append(key)
        operation, _ = await self._create(key, "maker", manager, "made")
        if operation.outcome is Outcome.OK:
            self._acknowledged.append(key)

    async def _create(self, key: str, client: str, manager: str, value: str) -> tuple[Operation, Answer]:
        operation = started(client, manager, key, Kind.CAS, value=value)
        if _is_service(key, self._prefix):
            answer = await self._apis[manager].call("POST", "/services/create", _service(key))
        else:
            body = {"Name": key, "Labels": {"value": value}, "Data": "eA=="}
            answer = await self._apis[manager].call("POST", "/configs/create", body)
        operation = operation.ended(answer.outcome, detail=answer.detail)
        self.operations.append(operation)
        return operation, answer

    async def _look_up(self, manager: str) -> None:
        """One of the latest creations, acknowledged or not."""
        recent = self._rng.choice((self._tried, self._acknowledged))[-RECENT_CREATIONS:]
        if not recent:
            return
        key = self._rng.choice(recent)
        operation = started("looker", manager, key, Kind.READ)
        area = "services" if _is_service(key, self._prefix) else "configs"
        answer = await self._apis[manager].call("GET", f"/{area}/{key}")
        if answer.outcome is Outcome.OK:
            self.operations.append(operation.ended(Outcome.OK, value="made"))
        else:
            self.operations.append(_unsuccessful_read(operation, answer))

    # ---- the end ----

    async def look_at_everything(self) -> dict[str, list[str]]:
        """Read every register and look up every creation through every manager, as part of the history.

        Returns the names that each manager listed. Raises RuntimeError when one does not answer.
        """
        listed: dict[str, list[str]] = {}
        for manager in self._names:
            listed[manager] = await self._list(manager)
            for key in self._ids:
                await self._read(Client("end", [manager], OPERATION_S_MAX), key)
        return listed

    async def _list(self, manager: str) -> list[str]:
        lookups = [started("end", manager, key, Kind.READ) for key in self._tried]
        names = []
        for area in ("configs", "services"):
            filters = quote(json.dumps({"name": [f"{self._prefix}-"]}))
            answer = await self._apis[manager].call("GET", f"/{area}?filters={filters}")
            if answer.outcome is not Outcome.OK:
                raise RuntimeError(f"{manager} does not list its {area} at the end: {answer.detail}")
            names += [str(row["Spec"]["Name"]) for row in answer.body]
        present = set(names)
        for lookup in lookups:
            value = "made" if lookup.key in present else None
            self.operations.append(lookup.ended(Outcome.OK, value=value))
        return names


def _unsuccessful_read(operation: Operation, answer: Answer) -> Operation:
    if answer.status == 404:
        return operation.ended(Outcome.OK, value=None, detail=answer.detail)
    return operation.ended(Outcome.FAIL, detail=answer.detail)


def _is_service(key: str, prefix: str) -> bool:
    return key.startswith(f"{prefix}-s")


def _service(name: str) -> dict[str, object]:
    """Of no replicas: it is only a name in the store."""
    return {
        "Name": name,
        "TaskTemplate": {"ContainerSpec": {"Image": "none:1"}},
        "Mode": {"Replicated": {"Replicas": 0}},
    }
