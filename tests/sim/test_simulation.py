"""Many short lives of a cluster, each drawn from a seed. `./dev sim SEED=n RUNS=m` chooses which.

A failing seed is shrunk and printed; the same seed does the same, message by message.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.mutations import acknowledges_when_it_loses_the_lead
from tests.sim.plan import make_plan
from tests.sim.run import simulate
from tests.sim.shrink import describe, shrink

ROOT = Path(__file__).parent.parent.parent
FIRST = int(os.environ.get("SWARMCTL_SIM_SEED", "1"))
RUNS = int(os.environ.get("SWARMCTL_SIM_RUNS", "200"))
CHUNK = 25
CHUNKS = [range(start, min(start + CHUNK, FIRST + RUNS)) for start in range(FIRST, FIRST + RUNS, CHUNK)]


@pytest.mark.parametrize("seeds", CHUNKS, ids=lambda seeds: f"{seeds.start}-{seeds.stop - 1}")
def test_no_promise_is_broken(seeds: range) -> None:
    acknowledged = reads = 0
    for seed in seeds:
        plan = make_plan(seed)
        report = simulate(plan)
        if report.rule:
            smaller = shrink(plan, report.rule, simulate)
            pytest.fail(describe(smaller, simulate(smaller)), pytrace=False)
        acknowledged += report.acknowledged
        reads += report.reads
    assert acknowledged >= 10 * len(seeds), "the runs prove nothing when nothing is written"
    assert reads >= 2 * len(seeds)


_DIGEST = (
    "from tests.sim import plan, run; print([run.simulate(plan.make_plan(s)).digest for s in (1, 2, 3)])"
)


def test_a_seed_does_the_same_in_every_process() -> None:
    """Also with another order of sets and dictionaries of strings."""
    outputs = {
        subprocess.run(
            [sys.executable, "-c", _DIGEST],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
        ).stdout
        for hash_seed in ("1", "2", "3")
    }
    assert len(outputs) == 1
    assert len(set(eval(outputs.pop(), {}))) == 3, "different seeds are different runs"


def test_a_failing_plan_is_shrunk_to_what_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    acknowledges_when_it_loses_the_lead(monkeypatch)
    plan = make_plan(1)
    report = simulate(plan)
    assert report.rule == "false success"
    smaller = shrink(plan, report.rule, simulate)
    assert len(smaller.faults) == 1 < len(plan.faults)
    assert len(smaller.requests) <= 2 < len(plan.requests)
    text = describe(smaller, simulate(smaller))
    assert "seed 1: false success" in text
    assert "./dev sim SEED=1 RUNS=1" in text
