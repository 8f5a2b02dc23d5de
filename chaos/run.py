"""One nemesis against one cluster under load, and the judgement of what the clients saw."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from chaos.api import Api
from chaos.cluster import Cluster
from chaos.history import Kind, Operation, Outcome
from chaos.linearizability import Undecided, Violation, check
from chaos.nemesis import Nemesis
from chaos.workload import OPERATION_S_MAX, Workload
from node.lab.model import LabError

CALM_S = (0.5, 1.5)
AFTERWARDS_S = 1.0
TAKEN = "409"  # the status with which such a detail begins

Say = Callable[[str], None]


@dataclass
class Result:
    """`lost`: acknowledged creations that some manager does not list at the end; `duplicated`: names that
    exist twice, or were taken when they were used for the first time; `problems`: what else is wrong."""

    nemesis: str
    managers: int
    rounds: int
    operations: int
    acknowledged: int
    failed: int
    unknown: int
    lost: list[str]
    duplicated: list[str]
    longest_gap_s: float
    violations: list[Violation]
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    history: list[Operation] = field(default_factory=list)

    @property
    def is_linearizable(self) -> bool:
        return not self.violations

    @property
    def is_right(self) -> bool:
        return not (self.violations or self.lost or self.duplicated or self.problems)


async def run(cluster: Cluster, nemesis: Nemesis, seconds: float, prefix: str, say: Say) -> Result:
    """Load and faults for about so many seconds, then calm, a last look, and the check.

    Managers that do not recover are a problem of the result; LabError is raised for what comes before and after.
    """
    trial = _Trial(cluster, nemesis, say)
    try:
        await asyncio.to_thread(nemesis.prepare)
        async with _apis(cluster) as apis:
            workload = Workload(prefix, apis, random.Random(nemesis.rng.random()))
            await workload.set_up()
            await trial.under_load(workload, seconds)
            if not trial.problems:
                await trial.last_look(workload)
    finally:
        await asyncio.to_thread(nemesis.restore)
    return await asyncio.to_thread(_judge, trial, workload.operations)


@contextlib.asynccontextmanager
async def _apis(cluster: Cluster) -> AsyncIterator[dict[str, Api]]:
    apis = {name: Api(cluster.node(name).socket, OPERATION_S_MAX) for name in cluster.managers}
    try:
        yield apis
    finally:
        for api in apis.values():
            await api.close()


class _Trial:
    """What happens to the cluster while the clients are at work, and what became of it."""

    def __init__(self, cluster: Cluster, nemesis: Nemesis, say: Say) -> None:
        self.cluster = cluster
        self.nemesis = nemesis
        self.rounds = 0
        self.problems: list[str] = []
        self.listed: dict[str, list[str]] = {}
        self._say = say

    async def under_load(self, workload: Workload, seconds: float) -> None:
        """The clients end in order also when the managers do not recover: no request may be forgotten."""
        async with asyncio.TaskGroup() as group:
            group.create_task(workload.run())
            try:
                await self._torment(seconds)
                await asyncio.to_thread(self.cluster.wait_until_well)
                await asyncio.sleep(AFTERWARDS_S)
            except LabError as error:
                self.problems.append(str(error))
            finally:
                workload.stop()

    async def last_look(self, workload: Workload) -> None:
        try:
            self.listed = await workload.look_at_everything()
        except RuntimeError as error:
            self.problems.append(str(error))

    async def _torment(self, seconds: float) -> None:
        nemesis, clock = self.nemesis, asyncio.get_running_loop().time
        end = clock() + seconds
        while True:
            await asyncio.sleep(nemesis.rng.uniform(*CALM_S))
            if self.rounds and clock() >= end:
                return
            try:
                self._say(f"{nemesis.name}: {await asyncio.to_thread(nemesis.hurt)}")
                await asyncio.sleep(nemesis.rng.uniform(*nemesis.holds_s))
            finally:
                await asyncio.to_thread(nemesis.undo)
            self.rounds += 1


# --- the judgement ---


def _judge(trial: _Trial, operations: list[Operation]) -> Result:
    counts = Counter(operation.outcome for operation in operations)
    result = Result(
        nemesis=trial.nemesis.name,
        managers=trial.cluster.count,
        rounds=trial.rounds,
        operations=len(operations),
        acknowledged=counts[Outcome.OK],
        failed=counts[Outcome.FAIL] + counts[Outcome.REFUSED],
        unknown=counts[Outcome.UNKNOWN],
        lost=lost(operations, trial.listed),
        duplicated=duplicated(operations, trial.listed),
        longest_gap_s=longest_gap_s(operations),
        violations=[],
        problems=trial.problems,
        notes=trial.nemesis.notes,
        history=operations,
    )
    try:
        result.violations = check(operations)
    except Undecided as error:
        result.problems.append(f"not decided: {error}")
    return result


def _is_creation(operation: Operation) -> bool:
    return operation.kind is Kind.CAS and operation.expected is None


def lost(operations: Sequence[Operation], listed: dict[str, list[str]]) -> list[str]:
    if not listed:
        return []
    everywhere = set.intersection(*(set(names) for names in listed.values()))
    made = {o.key for o in operations if _is_creation(o) and o.outcome is Outcome.OK}
    return sorted(made - everywhere)


def duplicated(operations: Sequence[Operation], listed: dict[str, list[str]]) -> list[str]:
    twice = {name for names in listed.values() for name, count in Counter(names).items() if count > 1}
    # Every name is tried once: whoever finds it taken was carried out twice.
    taken = {o.key for o in operations if _is_creation(o) and o.detail.startswith(TAKEN)}
    return sorted(twice | taken)


def longest_gap_s(operations: Sequence[Operation]) -> float:
    """Seconds between two acknowledgements of writes that follow each other, at most."""
    ends = sorted(
        operation.end
        for operation in operations
        if operation.kind is not Kind.READ and operation.outcome is Outcome.OK and operation.end is not None
    )
    return max((later - earlier for earlier, later in itertools.pairwise(ends)), default=0) / 1e9
