"""What is done to the managers. Each nemesis hurts, waits, and always undoes what it did.

All methods block and run in a thread. `hurt` returns a sentence for the log; `undo` is called after every
`hurt`, also after one that failed half-way, and may be called twice; `prepare` and `restore` enclose all rounds.
"""

from __future__ import annotations

import random
import signal
from typing import ClassVar

from chaos.cluster import Cluster, both_ways


class Nemesis:
    name: ClassVar[str]
    holds_s: ClassVar[tuple[float, float]] = (0.5, 2.0)  # from `hurt` to `undo`, at least and at most

    def __init__(self, cluster: Cluster, rng: random.Random) -> None:
        self.cluster = cluster
        self.rng = rng
        self.notes: list[str] = []

    def prepare(self) -> None:
        """Before the clients start."""

    def hurt(self) -> str:
        raise NotImplementedError

    def undo(self) -> None:
        raise NotImplementedError

    def restore(self) -> None:
        """After the clients have stopped."""

    def some_manager(self) -> str:
        return self.rng.choice(self.cluster.managers)

    def others(self, name: str) -> list[str]:
        return [other for other in self.cluster.managers if other != name]


# --- kill -9 ---


class _Kill(Nemesis):
    def victims(self) -> list[str]:
        raise NotImplementedError

    def hurt(self) -> str:
        victims = self.victims()
        self.cluster.kill(victims)
        return f"kill -9 of {', '.join(victims)}"

    def undo(self) -> None:
        self.cluster.start(self.cluster.managers)


class KillOne(_Kill):
    name = "kill-one"

    def victims(self) -> list[str]:
        return [self.some_manager()]


class KillLeader(_Kill):
    name = "kill-leader"
    holds_s = (1.5, 3.0)

    def victims(self) -> list[str]:
        return [self.cluster.leader()]


class KillAll(_Kill):
    name = "kill-all"
    holds_s = (0.0, 0.5)

    def victims(self) -> list[str]:
        return self.rng.sample(self.cluster.managers, self.cluster.count)


# --- pauses ---


class PauseLeader(Nemesis):
    """Stopped for longer than a leader believes in itself without an answer, then it goes on as if nothing
    had happened."""

    name = "pause-leader"
    holds_s = (1.2, 4.0)

    def __init__(self, cluster: Cluster, rng: random.Random) -> None:
        super().__init__(cluster, rng)
        self._stopped = ""

    def hurt(self) -> str:
        self._stopped = self.cluster.leader()
        self.cluster.signal(self._stopped, signal.SIGSTOP)
        return f"SIGSTOP of the leader {self._stopped}"

    def undo(self) -> None:
        if self._stopped:
            self.cluster.signal(self._stopped, signal.SIGCONT)
            self._stopped = ""


# --- partitions ---


class _Partition(Nemesis):
    holds_s = (2.0, 5.0)

    def cuts(self) -> tuple[set[tuple[str, str]], str]:
        """(from, to) pairs whose packets are dropped, and what that is called."""
        raise NotImplementedError

    def hurt(self) -> str:
        pairs, what = self.cuts()
        self.cluster.cut(pairs)
        return what

    def undo(self) -> None:
        self.cluster.heal()

    def halves(self) -> tuple[list[str], list[str]]:
        """The smaller one first."""
        mixed = self.rng.sample(self.cluster.managers, self.cluster.count)
        middle = self.cluster.count // 2
        return mixed[:middle], mixed[middle:]


class Halves(_Partition):
    name = "halves"

    def cuts(self) -> tuple[set[tuple[str, str]], str]:
        few, many = self.halves()
        return both_ways(few, many), f"{', '.join(few)} | {', '.join(many)}"


class LeaderAlone(_Partition):
    name = "leader-alone"

    def cuts(self) -> tuple[set[tuple[str, str]], str]:
        leader = self.cluster.leader()
        return both_ways([leader], self.others(leader)), f"leader {leader} | {', '.join(self.others(leader))}"


class OneWay(_Partition):
    """The leader is heard and hears nothing, or hears and is not heard, or one link has one direction."""

    name = "one-way"

    def cuts(self) -> tuple[set[tuple[str, str]], str]:
        leader = self.cluster.leader()
        others = self.others(leader)
        form = self.rng.choice(["deaf", "mute", "link"])
        if form == "deaf":
            return {(other, leader) for other in others}, f"leader {leader} hears nobody"
        if form == "mute":
            return {(leader, other) for other in others}, f"nobody hears leader {leader}"
        first, second = self.rng.sample(self.cluster.managers, 2)
        return {(first, second)}, f"{second} does not hear {first}"


class Bridge(_Partition):
    """Two halves that share one manager, which sees both."""

    name = "bridge"

    def cuts(self) -> tuple[set[tuple[str, str]], str]:
        bridge, *rest = self.rng.sample(self.cluster.managers, self.cluster.count)
        middle = len(rest) // 2
        some, others = rest[:middle], rest[middle:]
        return both_ways(some, others), f"{', '.join(some)} | {', '.join(others)}, {bridge} sees both"


NEMESES: dict[str, type[Nemesis]] = {
    nemesis.name: nemesis
    for nemesis in (KillOne, KillLeader, KillAll, PauseLeader, Halves, LeaderAlone, OneWay, Bridge)
}
