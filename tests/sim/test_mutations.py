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
# Where it was found when it was looked for last, if that was not among the first seeds: the search begins there.
FOUND = {
    "votes_twice_in_a_term": 14,
    "counts_votes_as_the_stock_class": 177,
    "does_not_compare_the_previous_term": 19,
    "truncates_what_matches": 16,
    "commits_what_was_not_verified": 16,
    "compacts_before_the_snapshot_is_stored": 19,
    "votes_only_as_a_member": 8,
    "changes_members_two_at_a_time": 208,
    "tells_of_members_that_nobody_has_confirmed": 20,
    "tells_of_a_snapshot_before_it_is_durable": 78,
    "installs_a_snapshot_before_it_is_durable": 52,
    "sends_a_snapshot_that_was_replaced": 120,
    "reads_on_from_a_replaced_connection": 89,
}
ALL = MUTATIONS | MUTATIONS_ABOVE


def seeds(name: str) -> list[int]:
    """All of them, in the order of the search."""
    first = FOUND.get(name, 1)
    return [*range(first, SEEDS_MAX + 1), *range(1, first)]


@pytest.mark.parametrize("name", ALL)
def test_mutation_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ALL[name](monkeypatch)
    only = FAULTS.get(name, ())
    assert any(simulate(make_plan(seed, only)).rule for seed in seeds(name))


def test_the_tables_name_what_there_is() -> None:
    assert {kind for kinds in FAULTS.values() for kind in kinds} <= set(KINDS)
    assert set(FAULTS) | set(FOUND) <= set(ALL)


def test_every_seed_is_tried_before_a_mutation_counts_as_not_found() -> None:
    assert all(sorted(seeds(name)) == list(range(1, SEEDS_MAX + 1)) for name in ALL)
