"""Prometheus' text format, and the buckets of the engine's verbs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine.timings import BUCKETS_S, Histogram, Timings
from node.metrics import Family, _buckets, rendered


def test_the_text() -> None:
    def families() -> Iterator[Family]:
        yield Family("a_total", "counter", "All", [("", {}, 3)])
        yield Family("b", "gauge", "Some", [("", {"x": 'a"b\\c\n', "y": ""}, 0.5)])

    assert rendered(families()).splitlines() == [
        *("# HELP a_total All", "# TYPE a_total counter", "a_total 3"),
        *("# HELP b Some", "# TYPE b gauge", 'b{x="a\\"b\\\\c\\n",y=""} 0.5'),
    ]


def test_a_bucket_has_the_smaller_ones_in_it() -> None:
    histogram = Histogram()
    for seconds in (0.001, 0.005, 0.3, 99.0):
        histogram.add(seconds)
    shown = {
        (end, labels.get("le")): value for end, labels, value in _buckets({"action": "start"}, histogram)
    }
    assert shown["_bucket", "0.005"] == 2
    assert shown["_bucket", "0.25"] == 2
    assert (shown["_bucket", "0.5"], shown["_bucket", "10"], shown["_bucket", "+Inf"]) == (3, 3, 4)
    assert (shown["_count", None], shown["_sum", None]) == (4, pytest.approx(99.306))
    assert len(shown) == len(BUCKETS_S) + 3


def test_only_what_succeeds_is_timed() -> None:
    now = [0.0]
    timings = Timings(("start",), lambda: now[0])
    with timings.of("start"):
        now[0] += 2.0
    with pytest.raises(KeyError), timings.of("start"):
        raise KeyError
    assert (sum(timings.histograms["start"].counts), timings.histograms["start"].sum_s) == (1, 2.0)
