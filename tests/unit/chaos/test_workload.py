"""The clients and the check together, on a swarm that is one dictionary: right, and wrong in known ways."""

from __future__ import annotations

import asyncio
import random
from typing import cast

import pytest

from chaos import workload as workloads
from chaos.api import Answer, Api
from chaos.history import Outcome
from chaos.linearizability import check
from chaos.run import duplicated, lost
from chaos.workload import Workload

Row = dict[str, object]
MANAGERS = ("n1", "n2", "n3")


def _is_register(body: Row | None) -> bool:
    """Those must come to be, or there is nothing to play with."""
    return body is not None and "-r" in str(body["Name"])


class Swarm:
    """Objects by area and name; a name serves as id."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.rows: dict[tuple[str, str], Row] = {}
        self.version = 0

    async def call(self, method: str, path: str, body: Row | None) -> Answer:
        await asyncio.sleep(self.rng.uniform(0, 0.004))
        answer = self.serve(method, path, body)
        await asyncio.sleep(self.rng.uniform(0, 0.004))
        return answer

    def serve(self, method: str, path: str, body: Row | None) -> Answer:
        area, _, rest = path.lstrip("/").partition("/")
        if method == "GET" and not rest:
            area = area.partition("?")[0]
            return Answer(200, [row for (where, _), row in self.rows.items() if where == area], Outcome.OK)
        if method == "GET":
            row = self.rows.get((area, rest))
            return Answer(200, row, Outcome.OK) if row else Answer(404, None, Outcome.REFUSED)
        assert body is not None
        if rest == "create":
            return self.create(area, body)
        name, _, query = rest.partition("/update?version=")
        return self.update((area, name), int(query), body)

    def create(self, area: str, body: Row) -> Answer:
        name = str(body["Name"])
        if (area, name) in self.rows:
            return Answer(409, None, Outcome.REFUSED, "409: exists already")
        self.put((area, name), body)
        return Answer(201, {"ID": name}, Outcome.OK)

    def update(self, key: tuple[str, str], version: int, body: Row) -> Answer:
        if cast("dict[str, int]", self.rows[key]["Version"])["Index"] != version:
            return Answer(500, None, Outcome.REFUSED)
        self.put(key, body)
        return Answer(200, None, Outcome.OK)

    def put(self, key: tuple[str, str], body: Row) -> None:
        self.version += 1
        self.rows[key] = {"Spec": body, "Version": {"Index": self.version}}


class AnswersAreLost(Swarm):
    """One in five of creations that were carried out or not."""

    async def call(self, method: str, path: str, body: Row | None) -> Answer:
        if method == "GET" or _is_register(body) or self.rng.random() > 0.2:
            return await super().call(method, path, body)
        if self.rng.random() < 0.5:
            await super().call(method, path, body)
        return Answer(0, None, Outcome.UNKNOWN)


class StaleReads(Swarm):
    """Now and then an object is shown as it was before."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self.before: dict[tuple[str, str], Row] = {}

    def put(self, key: tuple[str, str], body: Row) -> None:
        if key in self.rows:
            self.before[key] = self.rows[key]
        super().put(key, body)

    def serve(self, method: str, path: str, body: Row | None) -> Answer:
        area, _, name = path.lstrip("/").partition("/")
        if method == "GET" and (area, name) in self.before and self.rng.random() < 0.05:
            return Answer(200, self.before[area, name], Outcome.OK)
        return super().serve(method, path, body)


class VersionsAreNotCompared(Swarm):
    def update(self, key: tuple[str, str], version: int, body: Row) -> Answer:
        self.put(key, body)
        return Answer(200, None, Outcome.OK)


class AcknowledgesWithoutWriting(Swarm):
    def create(self, area: str, body: Row) -> Answer:
        if not _is_register(body) and self.rng.random() < 0.2:
            return Answer(201, {"ID": body["Name"]}, Outcome.OK)
        return super().create(area, body)


class RefusesAndWrites(Swarm):
    """A refusal that promises that nothing was written, and is wrong."""

    def create(self, area: str, body: Row) -> Answer:
        answer = super().create(area, body)
        if not _is_register(body) and self.rng.random() < 0.2:
            return Answer(503, None, Outcome.FAIL)
        return answer


class CreatesTwice(Swarm):
    """What an inner repetition looks like to the client: its own name is taken."""

    def create(self, area: str, body: Row) -> Answer:
        answer = super().create(area, body)
        if not _is_register(body) and self.rng.random() < 0.2:
            return super().create(area, body)
        return answer


class Door:
    def __init__(self, swarm: Swarm) -> None:
        self.swarm = swarm

    async def call(
        self, method: str, path: str, body: Row | None = None, *, timeout_s: float | None = None
    ) -> Answer:
        return await self.swarm.call(method, path, body)


async def played(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> tuple[Workload, dict[str, list[str]]]:
    monkeypatch.setattr(workloads, "THINK_S_MAX", 0.005)
    monkeypatch.setattr(workloads, "CREATION_PERIOD_S", 0.005)
    workload = Workload("p0", {name: cast(Api, Door(swarm)) for name in MANAGERS}, random.Random(1))
    await workload.set_up()
    asyncio.get_running_loop().call_later(0.6, workload.stop)
    await workload.run()
    return workload, await workload.look_at_everything()


@pytest.mark.parametrize("kind", [Swarm, AnswersAreLost])
async def test_a_right_swarm_passes(kind: type[Swarm], monkeypatch: pytest.MonkeyPatch) -> None:
    workload, listed = await played(kind(random.Random(2)), monkeypatch)
    assert check(workload.operations) == []
    assert lost(workload.operations, listed) == duplicated(workload.operations, listed) == []
    assert len(workload.operations) > 100
    assert {operation.manager for operation in workload.operations} == set(MANAGERS)


@pytest.mark.parametrize(
    "kind", [StaleReads, VersionsAreNotCompared, AcknowledgesWithoutWriting, RefusesAndWrites, CreatesTwice]
)
async def test_a_wrong_swarm_is_found(kind: type[Swarm], monkeypatch: pytest.MonkeyPatch) -> None:
    workload, _ = await played(kind(random.Random(2)), monkeypatch)
    assert check(workload.operations) != []


class OneManagerForgets(Swarm):
    """Every manager lists the same but one, which is asked last."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self.lists = 0

    def serve(self, method: str, path: str, body: Row | None) -> Answer:
        answer = super().serve(method, path, body)
        if path.startswith("/configs?"):
            self.lists += 1
            if self.lists == len(MANAGERS):
                return Answer(200, answer.body[:-1], Outcome.OK)
        return answer


async def test_a_manager_that_has_not_everything_at_the_end_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    workload, listed = await played(OneManagerForgets(random.Random(2)), monkeypatch)
    assert len(lost(workload.operations, listed)) == 1
    (violation,) = check(workload.operations)
    assert violation.operation.client == "end"


async def test_lost_and_doubled_creations_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    workload, listed = await played(AcknowledgesWithoutWriting(random.Random(2)), monkeypatch)
    assert lost(workload.operations, listed) != []
    workload, listed = await played(CreatesTwice(random.Random(2)), monkeypatch)
    assert duplicated(workload.operations, listed) != []
