"""One run: carry out a plan, watch the invariants, and ask at the end whether the cluster still works."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import msgspec
import pytest

from tests.sim.cluster import Cluster
from tests.sim.founding import found_anew
from tests.sim.invariants import Violation, WatchedLog
from tests.sim.manager import Manager
from tests.sim.network import Pair
from tests.sim.plan import CALM_S, TROUBLE_S, Fault, Plan, Request
from tests.sim.rot import Rot
from tests.sim.workload import Clients, Operators

LAST_FAULT_S = CALM_S + TROUBLE_S + 2.2
RECOVERY_S = 15.0
POWER_CUT_S = 1.0

# Small, so that short runs come to second segments, to snapshots of several pieces, and to every time-out.
_SIZES = {
    "raft.consensus.TICK_S": 0.04,
    "raft.consensus.PROPOSE_TIMEOUT_S": 1.5,
    "raft.consensus.BARRIER_TIMEOUT_S": 1.0,
    "raft.consensus.HAND_OVER_TIMEOUT_S": 1.0,
    "raft.consensus.JOINER_CONTACT_TIMEOUT_S": 2.0,
    "raft.consensus.JOINER_STALLED_S": 3.0,
    "node.lost_log.ASK_TIMEOUT_S": 2.0,
    "node.manager.manager.EXPEL_TIMEOUT_S": 1.5,
    "node.membership_keeper.ASK_TIMEOUT_S": 3.0,
    "node.membership_keeper.RECHECK_S": 1.0,
    "node.membership_keeper.SILENT_S": 1.5,
    "raft.snapshot_keeper.KEPT_S": 1.0,
    "raft.transport.DIAL_TIMEOUT_S": 0.8,
    "raft.transport.HELLO_TIMEOUT_S": 1.0,
    "raft.transport.CONGESTED_BYTES": 3000,
    "raft.transport.BUFFER_BYTES_MAX": 15_000,
    "raft.wal.SEGMENT_BYTES": 3000,
    "raft.stock.BATCH_BYTES": 1500,
    "raft.dump.PIECE_BYTES": 100,
    "raft.transfers.WINDOW_BYTES": 250,
    "raft.syncobj.APPLIED_ENTRIES_MAX": 5,
    "raft.syncobj.APPLIED_BYTES_MAX": 600,
}


class Report(msgspec.Struct, frozen=True):
    """`rule` and `message` say what was violated, both empty when nothing was."""

    rule: str
    message: str
    digest: int  # of every message with its time: the same for the same plan
    events: int
    simulated_s: float
    elections: int
    commits: int
    acknowledged: int
    unknown: int  # writes that may or may not have been done
    reads: int
    changes: int  # of the members
    returns: int  # of nodes without a log


def simulate(plan: Plan) -> Report:
    """Never raises for what the simulated nodes do."""
    run = _Run(plan)
    rule, message = "", ""
    with _world(run.cluster):
        try:
            run.go()
        except Violation as violation:
            rule, message = violation.rule, str(violation)
        except Exception as err:  # noqa: BLE001 (a node that stops is a finding like any other)
            rule, message = "stopped", f"{type(err).__name__}: {err} ({_place(err)})"
        finally:
            run.cluster.end()
    oracle, clients = run.cluster.oracle, run.clients
    return Report(
        rule,
        message,
        run.cluster.network.digest,
        run.events,
        run.cluster.events.now,
        len(oracle.terms),
        len(oracle.committed),
        clients.acknowledged,
        clients.unknown,
        clients.read,
        run.operators.changes,
        sum(manager.era for manager in run.cluster.managers.values()),
    )


@contextmanager
def _world(cluster: Cluster) -> Iterator[None]:
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in _SIZES.items():
            patch.setattr(name, value)
        patch.setattr("raft.consensus.Log", WatchedLog)
        for name in [name for name in logging.root.manager.loggerDict if name.startswith(("raft", "node"))]:
            patch.setattr(logging.getLogger(name), "disabled", True)
        stack.enter_context(cluster.turns.installed(patch))
        yield


def _place(err: BaseException) -> str:
    trace = err.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    assert trace is not None
    return f"{trace.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno}"


class _Run:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.cluster = Cluster(plan.seed)
        self.cluster.network.slowness = plan.latency
        self.clients = Clients(self.cluster)
        self.operators = Operators(self.cluster)
        self.events = 0

    def go(self) -> None:
        events = self.cluster.events
        self.cluster.start(list(self.plan.nodes))
        for fault in self.plan.faults:
            events.at(fault.at, lambda fault=fault: self._strike(fault))  # type: ignore[misc]
        for request in self.plan.requests:
            events.at(request.at, lambda request=request: self.clients.begin(request))  # type: ignore[misc]
        self._run_until(LAST_FAULT_S)
        known = self.cluster.managers.values()
        survivors = [m for m in known if m.is_whole and not m.era and m.id in self.plan.nodes]
        if self.plan.is_last_left and survivors:
            self._found_anew(random.Random(self.plan.seed).choice(survivors))
        else:
            self._recover()

    def _run_until(self, time: float) -> None:
        self.events += self.cluster.run(time)

    def _found_anew(self, survivor: Manager) -> None:
        """The new cluster must work alone, and grow."""
        for manager in self.cluster.managers.values():
            manager.disk.heal()
        found_anew(self.cluster, survivor)
        self._write_one()
        fresh = self.cluster.manager("f2")
        self.operators.add(self.cluster.leaders()[0], fresh)
        self._write_one()
        last = max(self.cluster.oracle.committed)
        self._until(lambda: fresh.up and fresh.engine.applied_index() >= last, "a member does not catch up")

    def _recover(self) -> None:
        """With a majority repaired a write must succeed, with all of them it must reach every member."""
        for manager in self.cluster.managers.values():
            manager.disk.heal()
            if manager.is_returning and manager.rot is Rot.NONE:
                manager.crash()  # its disk had failed: an operator starts it again, and it finds its log
        self._start_all()
        for manager in self._spared():
            manager.crash()
        self._write_one()
        self._start_all()
        last = max(self.cluster.oracle.committed)
        self._until(lambda: self._all_have(last), "a member does not catch up")

    def _start_all(self) -> None:
        for manager in self.cluster.managers.values():
            if not manager.runs and manager.life:
                manager.start()

    def _spared(self) -> list[Manager]:
        """Nodes that the cluster must be able to do without, by every configuration that anybody knows."""
        up = [manager for manager in self.cluster.managers.values() if manager.up]
        left = {manager.id for manager in up}
        for manager in random.Random(self.plan.seed).sample(up, len(up)):
            rest = left - {manager.id}
            if self._is_enough(rest):
                left = rest
        return [manager for manager in up if manager.id not in left]

    def _is_enough(self, node_ids: set[str]) -> bool:
        known = [manager.configuration for manager in self.cluster.managers.values()]
        return all(len(node_ids & set(c.members)) >= c.quorum for c in known if c.members)

    def _write_one(self) -> None:
        before = self.clients.acknowledged

        def ask() -> None:
            if self.clients.acknowledged == before:
                self.clients.begin(Request(0.0, "write", "a", 0))
                self.cluster.events.after(0.3, ask)

        ask()
        self._until(lambda: self.clients.acknowledged > before, "no write succeeds")

    def _all_have(self, index: int) -> bool:
        return any(self._has_all(leader, index) for leader in self.cluster.leaders())

    def _has_all(self, leader: Manager, index: int) -> bool:
        """Its members have that entry, and all that lost their logs are members again."""
        configuration = leader.engine.configuration
        members = [self.cluster.managers[node_id] for node_id in configuration.members]
        returned = {m.id for m in self.cluster.managers.values() if m.era or m.is_returning}
        back = returned & self.cluster.wanted
        return back - set(configuration.removed) <= set(configuration.members) and all(
            manager.up and manager.engine.applied_index() >= index for manager in members
        )

    def _until(self, condition: Callable[[], bool], problem: str) -> None:
        deadline = self.cluster.events.now + RECOVERY_S
        while not condition():
            if self.cluster.events.now >= deadline:
                raise Violation("no progress", f"{problem} within {RECOVERY_S:g} s")
            self._run_until(self.cluster.events.now + 0.1)

    # ---- faults ----

    def _strike(self, fault: Fault) -> None:
        managers = [self._resolve(name) for name in fault.nodes]
        getattr(self, "_fault_" + fault.kind.replace(" ", "_"))(fault, managers)

    def _resolve(self, name: str) -> Manager:
        if name != "leader":
            return self.cluster.manager(name)
        leaders = self.cluster.leaders()
        return leaders[-1] if leaders else next(iter(self.cluster.managers.values()))

    def _fault_crash(self, fault: Fault, managers: list[Manager]) -> None:
        for manager in managers:
            if manager.runs:
                manager.crash()
                self.cluster.restart_later(manager, fault.seconds)

    _fault_restart = _fault_crash_majority = _fault_crash_all = _fault_crash

    def _fault_kill(self, fault: Fault, managers: list[Manager]) -> None:
        if managers[0].runs:
            managers[0].kill()
            self.cluster.restart_later(managers[0], fault.seconds)

    def _fault_stop(self, fault: Fault, managers: list[Manager]) -> None:
        manager = managers[0]
        if manager.up:
            manager.stop(lambda: self.cluster.restart_later(manager, fault.seconds))

    def _fault_rot(self, fault: Fault, managers: list[Manager]) -> None:
        manager = managers[0]
        if manager.up and self._can_do_without(manager):
            manager.decay(fault.amount)
            self.cluster.restart_later(manager, fault.seconds)

    def _fault_lose_disk(self, fault: Fault, managers: list[Manager]) -> None:
        manager = managers[0]
        if manager.up and self._can_do_without(manager):
            manager.crash()
            manager.lose_disk()
            self.cluster.restart_later(manager, fault.seconds)

    def _fault_promote(self, fault: Fault, managers: list[Manager]) -> None:
        """Former members: whoever was struck, or else the first that there is."""
        former = [m for m in self.cluster.managers.values() if m.life and m.id not in self.cluster.wanted]
        for manager in former[:1]:
            if self._can_do_without(manager):
                self.operators.promote(manager)

    def _can_do_without(self, manager: Manager) -> bool:
        """What is on its disk: only the others can give it back."""
        rest = {m.id for m in self.cluster.managers.values() if m.is_whole and m is not manager}
        return manager.is_whole and self._is_enough(rest)

    def _fault_power_cut(self, fault: Fault, managers: list[Manager]) -> None:
        disk = managers[0].disk
        disk.cut_after = int(fault.amount)
        self.cluster.events.after(POWER_CUT_S, disk.spare)

    def _fault_isolate(self, fault: Fault, managers: list[Manager]) -> None:
        self.cluster.network.cut(self._pairs_of(managers[0]), fault.seconds)

    def _fault_split(self, fault: Fault, managers: list[Manager]) -> None:
        side = {manager.id for manager in managers}
        pairs = [pair for pair in self.cluster.network.pairs() if (pair[0] in side) != (pair[1] in side)]
        self.cluster.network.cut(pairs, fault.seconds)

    def _fault_one_way(self, fault: Fault, managers: list[Manager]) -> None:
        if managers[0] is not managers[1]:
            self.cluster.network.cut([(managers[0].id, managers[1].id)], fault.seconds)

    def _fault_stall(self, fault: Fault, managers: list[Manager]) -> None:
        node_id = managers[0].id
        pairs = [p for p in self._pairs_of(managers[0]) if fault.amount < 0.3 or p[0] == node_id]
        self.cluster.network.stall(pairs, fault.seconds)

    def _fault_disturb(self, fault: Fault, managers: list[Manager]) -> None:
        pairs = sorted({pair for manager in managers for pair in self._pairs_of(manager)})
        self.cluster.network.disturb(pairs, fault.seconds, fault.amount, fault.amount, late=True)

    def _fault_slow_disk(self, fault: Fault, managers: list[Manager]) -> None:
        managers[0].disk.sync_s = fault.amount
        self.cluster.events.after(fault.seconds, managers[0].disk.quicken)

    def _fault_disk_fails(self, fault: Fault, managers: list[Manager]) -> None:
        managers[0].disk.failing = True
        self.cluster.events.after(fault.seconds, managers[0].disk.heal)

    def _fault_pause(self, fault: Fault, managers: list[Manager]) -> None:
        managers[0].pause(fault.seconds)

    def _fault_hand_over(self, fault: Fault, managers: list[Manager]) -> None:
        for leader in self.cluster.leaders():
            self.operators.hand_over(leader)

    def _fault_add(self, fault: Fault, managers: list[Manager]) -> None:
        for leader in self.cluster.leaders():
            self.operators.add(leader, managers[0])

    def _fault_remove(self, fault: Fault, managers: list[Manager]) -> None:
        for leader in self.cluster.leaders():
            self.operators.remove(leader, managers[0].id)

    def _pairs_of(self, manager: Manager) -> list[Pair]:
        return [pair for pair in self.cluster.network.pairs() if manager.id in pair]
