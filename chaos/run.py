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

CALM_S = (0.5, 1.5)
AFTERWARDS_S = 1.0

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
    """Load and faults for about so many seconds, then calm, a last look, and the check."""
    try:
        await asyncio.to_thread(nemesis.prepare)
        async with _apis(cluster) as apis:
            workload = Workload(prefix, apis, random.Random(nemesis.rng.random()))
            await workload.set_up()
            rounds = await _under_load(cluster, nemesis, workload, seconds, say)
            listed = await workload.look_at_everything()
    finally:
        await asyncio.to_thread(nemesis.restore)
    return await asyncio.to_thread(_judge, nemesis, cluster.count, rounds, workload.operations, listed)


@contextlib.asynccontextmanager
async def _apis(cluster: Cluster) -> AsyncIterator[dict[str, Api]]:
    apis = {name: Api(cluster.node(name).socket, OPERATION_S_MAX) for name in cluster.managers}
    try:
        yield apis
    finally:
        for api in apis.values():
            await api.close()


async def _under_load(
    cluster: Cluster, nemesis: Nemesis, workload: Workload, seconds: float, say: Say
) -> int:
    async with asyncio.TaskGroup() as group:
        group.create_task(workload.run())
        try:
            rounds = await _torment(nemesis, seconds, say)
            await asyncio.to_thread(cluster.wait_until_well)
            await asyncio.sleep(AFTERWARDS_S)
        finally:
            workload.stop()
    return rounds


async def _torment(nemesis: Nemesis, seconds: float, say: Say) -> int:
    clock = asyncio.get_running_loop().time
    end, rounds = clock() + seconds, 0
    while True:
        await asyncio.sleep(nemesis.rng.uniform(*CALM_S))
        if rounds and clock() >= end:
            return rounds
        try:
            say(f"{nemesis.name}: {await asyncio.to_thread(nemesis.hurt)}")
            await asyncio.sleep(nemesis.rng.uniform(*nemesis.holds_s))
        finally:
            await asyncio.to_thread(nemesis.undo)
        rounds += 1


# --- the judgement ---


def _judge(
    nemesis: Nemesis,
    managers: int,
    rounds: int,
    operations: list[Operation],
    listed: dict[str, list[str]],
) -> Result:
    counts = Counter(operation.outcome for operation in operations)
    result = Result(
        nemesis=nemesis.name,
        managers=managers,
        rounds=rounds,
        operations=len(operations),
        acknowledged=counts[Outcome.OK],
        failed=counts[Outcome.FAIL] + counts[Outcome.REFUSED],
        unknown=counts[Outcome.UNKNOWN],
        lost=lost(operations, listed),
        duplicated=duplicated(operations, listed),
        longest_gap_s=longest_gap_s(operations),
        violations=[],
        notes=nemesis.notes,
        history=operations,
    )
    try:
        result.violations = check(operations)
    except Undecided as error:
        result.problems.append(f"not decided: {error}")
    result.problems += _disagreements(listed)
    return result


def _is_creation(operation: Operation) -> bool:
    return operation.kind is Kind.CAS and operation.expected is None


def lost(operations: Sequence[Operation], listed: dict[str, list[str]]) -> list[str]:
    everywhere = set.intersection(*(set(names) for names in listed.values()))
    made = {o.key for o in operations if _is_creation(o) and o.outcome is Outcome.OK}
    return sorted(made - everywhere)


def duplicated(operations: Sequence[Operation], listed: dict[str, list[str]]) -> list[str]:
    twice = {name for names in listed.values() for name, count in Counter(names).items() if count > 1}
    # Every name is tried once: whoever finds it taken was carried out twice.
    taken = {o.key for o in operations if _is_creation(o) and o.outcome is Outcome.REFUSED}
    return sorted(twice | taken)


def _disagreements(listed: dict[str, list[str]]) -> list[str]:
    first, *others = listed
    return [
        f"{first} and {other} list different names at the end: {sorted(difference)[:5]}"
        for other in others
        if (difference := set(listed[first]) ^ set(listed[other]))
    ]


def longest_gap_s(operations: Sequence[Operation]) -> float:
    """Seconds between two acknowledgements of writes that follow each other, at most."""
    ends = sorted(
        operation.end
        for operation in operations
        if operation.kind is not Kind.READ and operation.outcome is Outcome.OK and operation.end is not None
    )
    return max((later - earlier for earlier, later in itertools.pairwise(ends)), default=0) / 1e9
