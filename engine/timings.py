"""How long the engine's verbs take: counts in buckets, as Prometheus wants them. Knows nothing of its text format."""

from __future__ import annotations

import bisect
import contextlib
import time
from collections.abc import Callable, Iterator

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Histogram:
    """`counts` has one more entry than BUCKETS_S: what took longer than all of them. Each entry is for itself."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.sum_s = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect.bisect_left(BUCKETS_S, seconds)] += 1
        self.sum_s += seconds


class Timings:
    """One histogram for each action; only what succeeds counts, as in Docker."""

    def __init__(self, actions: tuple[str, ...], clock: Callable[[], float] = time.monotonic) -> None:
        self.histograms = {action: Histogram() for action in actions}
        self._clock = clock

    @contextlib.contextmanager
    def of(self, action: str) -> Iterator[None]:
        began = self._clock()
        yield
        self.histograms[action].add(self._clock() - began)
