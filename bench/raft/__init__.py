"""The managers' store, measured: writes beside PySyncObj and etcd, a killed leader, a large state."""

from __future__ import annotations

from bench.raft import failover, states, writes
from bench.raft.report import Result as Result
from bench.raft.report import number as number
from bench.raft.report import section as section


def measure() -> Result:
    return Result(writes.measure(), failover.measure(), states.measure())
