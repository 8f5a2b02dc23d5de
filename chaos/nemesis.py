"""What is done to the managers. Each nemesis hurts, waits, and always undoes what it did.

All methods block and run in a thread. `hurt` returns a sentence for the log; `undo` is called after every
`hurt`, also after one that failed half-way, and may be called twice; `prepare` and `restore` enclose all rounds.
"""

from __future__ import annotations

import base64
import contextlib
import os
import random
import signal
import time
from pathlib import Path
from typing import Any, ClassVar

from chaos.clocks import Clocks, settable_clocks
from chaos.cluster import Cluster, both_ways
from node.lab import api, processes


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


# --- clocks ---


class Clock(Nemesis):
    """The wall clock of one manager jumps, and jumps back."""

    name = "clock"
    holds_s = (1.0, 3.0)

    # Certificates begin an hour before they were made.
    steps_s: ClassVar[tuple[float, ...]] = (-1800, -300, -5, 5, 300, 1800)

    def __init__(self, cluster: Cluster, rng: random.Random) -> None:
        super().__init__(cluster, rng)
        self._open = contextlib.ExitStack()
        self._clocks: Clocks | None = None

    def prepare(self) -> None:
        """A clock that can be set is one that the daemon was started with."""
        self._clocks = self._open.enter_context(settable_clocks())
        self._set_all_right()
        self.cluster.restart()

    def hurt(self) -> str:
        assert self._clocks is not None, "prepared"
        name, step = (
            self.rng.choice([self.cluster.leader(), self.some_manager()]),
            self.rng.choice(self.steps_s),
        )
        self._clocks.set(self.cluster.node(name), step)
        return f"clock of {name} {step:+g} s"

    def undo(self) -> None:
        self._set_all_right()

    def restore(self) -> None:
        self._open.close()
        self.cluster.restart()

    def _set_all_right(self) -> None:
        assert self._clocks is not None, "prepared"
        for name in self.cluster.managers:
            self._clocks.set(self.cluster.node(name), 0)


# --- disks ---


class FullDisk(Nemesis):
    """The file system of a manager's state is full, and has room again."""

    name = "full-disk"
    holds_s = (2.0, 5.0)
    megabytes: ClassVar[int] = 32

    def prepare(self) -> None:
        for name in self.cluster.managers:
            self.cluster.use_small_disk(name, self.megabytes)

    def hurt(self) -> str:
        name = self.rng.choice([self.cluster.leader(), self.some_manager()])
        _fill(self._filler(name))
        return f"disk of {name} is full"

    def undo(self) -> None:
        for name in self.cluster.managers:
            self._filler(name).unlink(missing_ok=True)

    def restore(self) -> None:
        for name in self.cluster.managers:
            self.cluster.use_large_disk(name)

    def _filler(self, name: str) -> Path:
        return self.cluster.node(name).state_dir / "filler"


def _fill(path: Path) -> None:
    """Down to the last block."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size) == size:
                    pass


# --- snapshots ---


class Snapshots(Nemesis):
    """kill -9 of a manager that is writing a snapshot, its own or its leader's; sometimes of all at once."""

    name = "snapshots"
    holds_s = (0.5, 4.0)
    interval: ClassVar[int] = 60
    kept_entries: ClassVar[int] = 10
    ballast: ClassVar[int] = 4  # configs
    ballast_bytes: ClassVar[int] = 480_000  # each
    wait_s: ClassVar[float] = 10.0

    def __init__(self, cluster: Cluster, rng: random.Random) -> None:
        super().__init__(cluster, rng)
        self._before: dict[str, Any] = {}
        self._ballast: list[str] = []
        self._kills = 0
        self._in_the_middle = 0

    def prepare(self) -> None:
        """Snapshots that are made often and are not done in a moment."""
        node = self.cluster.node(self.cluster.leader())
        self._before = dict(api.call(node, "GET", "/swarm")["Spec"]["Raft"])
        self._set_raft(SnapshotInterval=self.interval, LogEntriesForSlowFollowers=self.kept_entries)
        for number in range(self.ballast):
            data = base64.b64encode(self.rng.randbytes(self.ballast_bytes)).decode()
            body = {"Name": f"ballast{number}", "Data": data}
            self._ballast.append(api.call(node, "POST", "/configs/create", body)["ID"])

    def hurt(self) -> str:
        everybody = {name: processes.swarmd_pids(self.cluster.node(name)) for name in self.cluster.managers}
        old = {path for name in everybody for path in self._unfinished(name)}
        writer = self._writer_of_a_snapshot(old)
        victims = list(everybody) if self.rng.random() < 0.3 else [writer or self.some_manager()]
        for name in victims:
            for pid in everybody[name]:
                os.kill(pid, signal.SIGKILL)
        self.cluster.kill(victims)
        caught = [name for name in victims if self._unfinished(name) - old]
        self._kills += len(victims)
        self._in_the_middle += len(caught)
        middle = f", in the middle of a snapshot: {', '.join(caught)}" if caught else ""
        return f"kill -9 of {', '.join(victims)}{middle}"

    def undo(self) -> None:
        self.cluster.start(self.cluster.managers)

    def restore(self) -> None:
        self.notes.append(f"{self._in_the_middle} of {self._kills} kills in the middle of a snapshot")
        node = self.cluster.node(self.cluster.leader())
        for config in self._ballast:
            api.call(node, "DELETE", f"/configs/{config}")
        if self._before:
            self._set_raft(**self._before)

    def _writer_of_a_snapshot(self, old: set[Path]) -> str | None:
        """The first manager that is seen at it; `old`: what earlier kills have left."""
        deadline = time.monotonic() + self.wait_s
        while time.monotonic() < deadline:
            for name in self.cluster.managers:
                if self._unfinished(name) - old:
                    return name
            time.sleep(0.0005)
        return None

    def _unfinished(self, name: str) -> set[Path]:
        return set(self.cluster.snapshots(name).glob("*.tmp"))

    def _set_raft(self, **changes: int) -> None:
        node = self.cluster.node(self.cluster.leader())
        swarm = api.call(node, "GET", "/swarm")
        spec = swarm["Spec"] | {"Raft": swarm["Spec"]["Raft"] | changes}
        api.call(node, "POST", f"/swarm/update?version={swarm['Version']['Index']}", spec)


NEMESES: dict[str, type[Nemesis]] = {
    nemesis.name: nemesis
    for nemesis in (
        *(KillOne, KillLeader, KillAll, PauseLeader),
        *(Halves, LeaderAlone, OneWay, Bridge),
        *(Clock, FullDisk, Snapshots),
    )
}
