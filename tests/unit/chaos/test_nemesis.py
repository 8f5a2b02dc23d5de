"""What the nemeses ask of a cluster, and that they undo it."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterable
from typing import cast

import pytest

from chaos.cluster import Cluster
from chaos.nemesis import NEMESES, Bridge, Halves, LeaderAlone, OneWay, PauseLeader


class FakeCluster:
    """Remembers who is down, stopped and cut off; n2 leads."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.managers = [f"n{number}" for number in range(1, count + 1)]
        self.down: set[str] = set()
        self.stopped: set[str] = set()
        self.cuts: set[tuple[str, str]] = set()

    def leader(self) -> str:
        return "n2"

    def kill(self, names: Iterable[str]) -> None:
        self.down |= set(names)

    def start(self, names: Iterable[str]) -> None:
        self.down -= set(names)

    def signal(self, name: str, number: signal.Signals) -> None:
        if number == signal.SIGSTOP:
            self.stopped.add(name)
        else:
            self.stopped.discard(name)

    def cut(self, pairs: Iterable[tuple[str, str]]) -> None:
        self.cuts = set(pairs)

    def heal(self) -> None:
        self.cuts = set()

    def sees(self, source: str, target: str) -> bool:
        return (source, target) not in self.cuts


SIMPLE = (
    "kill-one",
    "kill-leader",
    "kill-all",
    "pause-leader",
    "halves",
    "leader-alone",
    "one-way",
    "bridge",
)


@pytest.mark.parametrize("count", [3, 5])
@pytest.mark.parametrize("name", SIMPLE)
def test_what_is_done_is_undone_also_twice(name: str, count: int) -> None:
    cluster = FakeCluster(count)
    nemesis = NEMESES[name](cast(Cluster, cluster), random.Random(1))
    for _ in range(20):
        said = nemesis.hurt()
        assert said and (cluster.down or cluster.stopped or cluster.cuts)
        nemesis.undo()
        nemesis.undo()
        assert not (cluster.down or cluster.stopped or cluster.cuts)


def test_kills_take_whom_they_say() -> None:
    for name, expected in (("kill-leader", {"n2"}), ("kill-all", {"n1", "n2", "n3"})):
        cluster = FakeCluster(3)
        NEMESES[name](cast(Cluster, cluster), random.Random(1)).hurt()
        assert cluster.down == expected


def test_a_paused_leader_sleeps_longer_than_it_believes_in_itself() -> None:
    assert PauseLeader.holds_s[0] > 1.0


@pytest.mark.parametrize("count", [3, 5])
def test_the_shapes_of_partitions(count: int) -> None:
    cluster = FakeCluster(count)
    for seed in range(20):
        rng = random.Random(seed)
        Halves(cast(Cluster, cluster), rng).hurt()
        sizes = {sum(cluster.sees(one, other) for other in cluster.managers) for one in cluster.managers}
        assert sizes == {count // 2, count - count // 2}
        LeaderAlone(cast(Cluster, cluster), rng).hurt()
        assert [name for name in cluster.managers if cluster.sees("n2", name)] == ["n2"]
        assert [name for name in cluster.managers if cluster.sees(name, "n2")] == ["n2"]
        OneWay(cast(Cluster, cluster), rng).hurt()
        assert all(cluster.sees(target, source) for source, target in cluster.cuts)
        Bridge(cast(Cluster, cluster), rng).hurt()
        bridges = [
            name for name in cluster.managers if all(cluster.sees(name, other) for other in cluster.managers)
        ]
        assert len(bridges) == 1
        seen = {sum(cluster.sees(one, other) for other in cluster.managers) for one in cluster.managers}
        assert seen == {count, count // 2 + 1}
