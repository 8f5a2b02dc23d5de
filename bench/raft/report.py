"""The part of docs/bench.md about the managers' store."""

from __future__ import annotations

from bench.raft.result import Result
from bench.raft.systems import FOLLOWER, LEADER
from bench.raft.writes import CLIENTS, ETCD, OURS, ROUNDS, SECONDS, Row
from bench.raft.writes import Result as Writes

WHAT_IS_COMPARED = f"""Writes of 200 bytes, each client with one on its way and a key of its own; three processes
per system on the loopback interface, their files on one disk; {ROUNDS} rounds of {SECONDS:g} s, in each of them
the systems one after the other.

- *On the leader*: ours and PySyncObj inside the leader's process, as the managers' own loops write. etcd's clients are
  always outside, in one process with little cost of its own (`bench/raft/grpc.py`): TLS, one connection for 64 clients.
- *Through a follower*: ours makes one call over mutual TLS from the follower's process to the leader, as the API forwards;
  PySyncObj forwards by its own means; etcd's client asks a follower, which is one way more than ours.
- Ours and etcd sync every write to the disk of a majority, and talk TLS between managers; PySyncObj does neither (its
  FileJournal is never synced). Ours writes objects through transactions of the store, etcd into its key space,
  PySyncObj into a dictionary. PySyncObj's defaults wait up to 0.1 s to make batches; "no batching" is
  `appendEntriesUseBatch=False`.
"""


def section(result: Result) -> str:
    """Markdown, from the first table on."""
    parts = [WHAT_IS_COMPARED, _writes(result.writes), _goals(result)]
    return "\n".join(parts)


def number(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _writes(writes: Writes) -> str:
    heads = "".join(f" {clients} at once: p50, p99 (ms), per s |" for clients in CLIENTS)
    lines = [f"| |{heads}", "|---|" + "---|" * len(CLIENTS)]
    for row in writes.rows:
        cells = "".join(
            f" {number(cell.p50_ms)}, {number(cell.p99_ms)}, {number(cell.per_second)} |"
            for cell in row.cells
        )
        lines.append(f"| {row.system}, {row.place} |{cells}")
    return "\n".join([*lines, *([f"\n{writes.note}." if writes.note else ""])]) + "\n"


def _goals(result: Result) -> str:
    failover, state = result.failover, result.state
    megabytes = f"{number(state.snapshot_mb)} MB"
    rows = [*_beside_etcd(result.writes)]
    rows += [
        (f"leader killed (-9) to next accepted write, median of {failover.kills} (s)", "<= 1", failover.median_s),
        ("the same, longest (s)", "", failover.longest_s),
        (f"longest gap of the loop, leader that makes a snapshot of {megabytes} (ms)", "<= 100", state.snapshot_gap_ms),
        ("the same on a follower, which makes its own (ms)", "<= 100", state.follower_snapshot_gap_ms),
        (f"follower away for too long: {megabytes} received and installed (s)", "", state.install_s),
        ("longest gap of its loop meanwhile (ms)", "<= 100", state.install_gap_ms),
        ("longest gap of the leader's loop, which sends (ms)", "<= 100", state.sender_gap_ms),
        (f"start from a snapshot of {megabytes}: read and decoded (s)", "", state.resume_s),
        (f"{state.services:,} services and {state.tasks:,} tasks applied on one manager (s)", "", state.applied_s),
        ("memory before and after (MB RSS)", "", f"{number(state.mb_before)}, {number(state.mb_after)}"),
        ("the same written through three managers (s)", "", state.written_s),
        ("memory of the leader, of a follower afterwards (MB RSS)", "",
         f"{number(state.leader_mb)}, {number(state.follower_mb)}"),
    ]  # fmt: skip
    lines = ["| | goal | measured |", "|---|---|---|"]
    for name, goal, value in rows:
        lines.append(f"| {name} | {goal} | {value if isinstance(value, str) else number(value)} |")
    return "\n".join(lines) + "\n"


def _beside_etcd(writes: Writes) -> list[tuple[str, str, float | str]]:
    ours, called, theirs = (
        _row(writes, OURS, LEADER),
        _row(writes, OURS, FOLLOWER),
        _row(writes, ETCD, LEADER),
    )
    if ours is None or called is None or theirs is None:
        return []
    alone, many = CLIENTS.index(1), CLIENTS.index(64)
    p50_ms, per_second = theirs.cells[alone].p50_ms, theirs.cells[many].per_second
    return [
        ("p50 of 1 client on the leader, by etcd's", "<= 2", ours.cells[alone].p50_ms / p50_ms),
        ("writes per second of 64 clients on the leader, by etcd's", ">= 1", ours.cells[many].per_second / per_second),
        ("p50 of 1 client with one call each: ours through a follower, by etcd's on the leader", "",
         called.cells[alone].p50_ms / p50_ms),
        ("writes per second of 64 clients with one call each", "", called.cells[many].per_second / per_second),
    ]  # fmt: skip


def _row(writes: Writes, system: str, place: str) -> Row | None:
    found = [row for row in writes.rows if row.system.startswith(system) and row.place == place]
    return found[0] if found else None
