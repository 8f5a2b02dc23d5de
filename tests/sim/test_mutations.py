"""The simulation is worth something only if it finds what is broken: here it must find every mutation."""

from __future__ import annotations

import pytest

from tests.sim.mutations import MUTATIONS
from tests.sim.plan import KINDS, make_plan
from tests.sim.run import simulate

SEEDS_MAX = 300

# The kinds of faults to look with, where a few of them lead there sooner than all of them.
FAULTS = {
    "votes_for_anybody": ("isolate", "crash"),
    "counts_votes_as_the_stock_class": ("disturb", "isolate"),
    "acknowledges_before_the_sync": ("power cut", "isolate"),
    "commits_older_terms_by_counting": ("disturb", "isolate"),
    "loses_term_and_vote_at_a_restart": ("restart", "crash all", "isolate"),
    "calls_the_unknown_not_written": ("isolate", "one way"),
    "votes_only_as_a_member": ("add", "remove", "crash", "isolate"),
    "changes_members_two_at_a_time": ("add", "remove", "isolate"),
    "compacts_before_the_snapshot_is_stored": ("crash",),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTATIONS[name](monkeypatch)
    only = FAULTS.get(name, ())
    assert any(simulate(make_plan(seed, only)).rule for seed in range(1, SEEDS_MAX + 1))


def test_faults_are_of_known_kinds() -> None:
    assert {kind for kinds in FAULTS.values() for kind in kinds} <= set(KINDS)
    assert set(FAULTS) <= set(MUTATIONS)
