"""Everything that is measured of the managers' store, in one go."""

from __future__ import annotations

import msgspec

from bench.raft import failover, states, writes


class Result(msgspec.Struct, frozen=True):
    writes: writes.Result
    failover: failover.Failover
    state: states.State


def measure() -> Result:
    return Result(writes.measure(), failover.measure(), states.measure())
