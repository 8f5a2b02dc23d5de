"""Make a failing plan smaller while it still breaks the same rule, and say how to repeat it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from tests.sim.plan import Plan
from tests.sim.run import Report

Simulate = Callable[[Plan], Report]
T = TypeVar("T")

ATTEMPTS_MAX = 300


def shrink(plan: Plan, rule: str, simulate: Simulate) -> Plan:
    """The smallest plan found in a bounded number of runs: first fewer faults, then fewer requests."""
    budget = [ATTEMPTS_MAX]

    def fails(candidate: Plan) -> bool:
        budget[0] -= 1
        return simulate(candidate).rule == rule

    def with_faults(faults: Sequence[object]) -> Plan:
        return msgspec.structs.replace(plan, faults=tuple(faults))

    plan = with_faults(_fewer(plan.faults, lambda faults: fails(with_faults(faults)), budget))

    def with_requests(requests: Sequence[object]) -> Plan:
        return msgspec.structs.replace(plan, requests=tuple(requests))

    return with_requests(_fewer(plan.requests, lambda requests: fails(with_requests(requests)), budget))


def _fewer(events: Sequence[T], fails: Callable[[Sequence[T]], bool], budget: list[int]) -> Sequence[T]:
    """Leave out pieces, large ones first, as long as it goes on failing."""
    size = max(1, len(events) // 2)
    while True:
        start = 0
        while start < len(events) and budget[0] > 0:
            candidate = [*events[:start], *events[start + size :]]
            if fails(candidate):
                events = candidate
            else:
                start += size
        if size == 1 or budget[0] <= 0:
            return events
        size = max(1, size // 2)


def describe(plan: Plan, report: Report) -> str:
    lines = [
        f"seed {plan.seed}: {report.message}",
        f"  repeat it with: ./dev sim SEED={plan.seed} RUNS=1",
        f"  {len(plan.nodes)} nodes, latency x{plan.latency:g}, {len(plan.requests)} requests, and these faults:",
    ]
    lines.extend(
        f"    {fault.at:7.4f} s  {fault.kind} {','.join(fault.nodes)} for {fault.seconds} s, {fault.amount}"
        for fault in plan.faults
    )
    return "\n".join(lines)
