"""The simulation is worth something only if it finds what is broken: here it must find every mutation."""

from __future__ import annotations

import pytest

from tests.sim.mutations import MUTATIONS
from tests.sim.mutations_above import MUTATIONS_ABOVE
from tests.sim.plan import KINDS, make_plan
from tests.sim.run import simulate

SEEDS_MAX = 300

# The kinds of faults to look with, where a few of them lead there sooner than all of them.
FAULTS = {
    "votes_for_anybody": ("isolate", "crash"),
    "counts_votes_as_the_stock_class": ("disturb", "kill"),
    "acknowledges_before_the_sync": ("power cut",),
    "commits_older_terms_by_counting": ("disturb", "isolate"),
    "loses_term_and_vote_at_a_restart": ("restart", "crash all", "isolate"),
    "reads_without_asking_a_majority": ("isolate",),
    "calls_the_unknown_not_written": ("isolate", "one way"),
    "votes_only_as_a_member": ("add", "remove", "crash", "isolate"),
    "changes_members_two_at_a_time": ("add", "remove", "split"),
    "compacts_before_the_snapshot_is_stored": ("crash",),
    "tells_a_time_out_as_not_written": ("stall", "pause"),
    "confirms_reads_by_its_own_belief": ("isolate",),
    "tells_of_members_that_nobody_has_confirmed": ("add", "remove", "isolate", "stall"),
    "tells_of_a_snapshot_before_it_is_durable": ("crash",),
    "installs_a_snapshot_before_it_is_durable": ("isolate", "power cut"),
    "sends_a_snapshot_that_was_replaced": ("disturb", "isolate"),
    "stops_without_an_answer": ("stop", "stall"),
    "takes_damage_for_a_torn_end": ("rot",),
}
ALL = MUTATIONS | MUTATIONS_ABOVE


@pytest.mark.parametrize("name", ALL)
def test_mutation_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ALL[name](monkeypatch)
    only = FAULTS.get(name, ())
    assert any(simulate(make_plan(seed, only)).rule for seed in range(1, SEEDS_MAX + 1))


def test_faults_are_of_known_kinds() -> None:
    assert {kind for kinds in FAULTS.values() for kind in kinds} <= set(KINDS)
    assert set(FAULTS) <= set(ALL)
