"""What can still be read of a manager's state on disk, whole or damaged: for going on without a quorum.

Reads only, and may be used while the manager runs. Starts from the newest readable snapshot and goes on with
the entries that join on to it without a gap, up to the first that cannot be read. Nobody knows which of the
entries behind the snapshot were committed: all of them are taken, because acknowledged writes may be among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raft import membership
from raft import snapshot as snapshots
from raft.config import ConsensusConfig, log_owner, snapshot_dir, wal_dir
from raft.errors import FailedPrecondition
from raft.files import Files
from raft.framing import Damaged, WrongKey
from raft.membership import Configuration
from raft.replication import MEMBERSHIP, REGULAR
from raft.snapshot import Snapshot
from raft.state_machine import StateMachine
from raft.syncobj import PROPOSAL_ID_BYTES
from raft.wal import Entry, Header, Recovered, WalDamaged, WalRecord, read_segment, segment_paths

ATTEMPTS_MAX = 5


@dataclass(frozen=True)
class Salvage:
    """`entries` follow the snapshot (or entry 0) without a gap. `damage`: what could not be read, in words."""

    snapshot: Snapshot | None
    entries: tuple[Entry, ...]
    term: int
    damage: tuple[str, ...]

    @property
    def snapshot_index(self) -> int:
        return 0 if self.snapshot is None else self.snapshot.meta.index

    @property
    def last_index(self) -> int:
        return self.entries[-1].index if self.entries else self.snapshot_index

    @property
    def configuration(self) -> Configuration:
        """The latest one, committed or not."""
        for entry in reversed(self.entries):
            if entry.command.startswith(MEMBERSHIP):
                return membership.decode(entry.command[1:])
        return Configuration() if self.snapshot is None else self.snapshot.meta.configuration

    @property
    def membership_indexes(self) -> tuple[int, ...]:
        """Of the entries that changed the members."""
        return tuple(entry.index for entry in self.entries if entry.command.startswith(MEMBERSHIP))

    def replay(self, machine: StateMachine) -> None:
        """Bring a new machine to the last index. Raises RaftError when the snapshot's state is unreadable."""
        if self.snapshot is not None:
            machine.adopt(machine.prepare(self.snapshot.pieces))
        for entry in self.entries:
            if entry.command.startswith(REGULAR):
                machine.apply(entry.command[len(REGULAR) + PROPOSAL_ID_BYTES :], entry.index)


def salvage(config: ConsensusConfig) -> Salvage:
    """Raises FailedPrecondition when nothing can be read, framing.WrongKey, OSError."""
    for _ in range(ATTEMPTS_MAX - 1):
        try:
            return _read(config)
        except FileNotFoundError:
            # A manager that runs has just replaced a file.
            continue
    return _read(config)


def check_key(config: ConsensusConfig) -> None:
    """Raises framing.WrongKey when a file refuses the data key and none opens with it.

    The random beginning of a file has no checksum of its own: damaged there, it looks like a wrong key.
    """
    files = config.files
    wrong: WrongKey | None = None
    for path in reversed(segment_paths(files, wal_dir(config))):
        try:
            if read_segment(files, path, config.key).records:
                return
        except WrongKey as error:
            wrong = error
    for path in files.paths(snapshot_dir(config), "snapshot-*.snap"):
        try:
            snapshots.load(path, config.key, files)
            return
        except Damaged:
            continue
        except WrongKey as error:
            wrong = error
    if wrong is not None:
        raise wrong


def _read(config: ConsensusConfig) -> Salvage:
    files = config.files
    check_key(config)
    damage: list[str] = []
    snapshot = _newest_snapshot(config, files, damage)
    base = 0 if snapshot is None else snapshot.meta.index
    state = _read_log(config, files, base, damage)
    entries = tuple(entry for entry in state.entries if entry.index > base)
    term = max(state.term, state.last[1], 0 if snapshot is None else snapshot.meta.term)
    if snapshot is None and not entries:
        raise FailedPrecondition(
            f"nothing is readable in {config.state_dir}: {'; '.join(damage) or 'it is empty'}; "
            "restore a backup: swarmctl cluster restore FILE"
        )
    return Salvage(snapshot, entries, term, tuple(damage))


def _newest_snapshot(config: ConsensusConfig, files: Files, damage: list[str]) -> Snapshot | None:
    for path in reversed(files.paths(snapshot_dir(config), "snapshot-*.snap")):
        try:
            return snapshots.load(path, config.key, files)
        except Damaged as error:
            damage.append(str(error))
        except WrongKey as error:
            damage.append(f"{path.name}: {error}")
    return None


def _read_log(config: ConsensusConfig, files: Files, base: int, damage: list[str]) -> Recovered:
    """The part of the log that joins on to the snapshot at `base`; empty when none does."""
    state: Recovered | None = None
    paths = segment_paths(files, wal_dir(config))
    for path in paths:
        try:
            segment = read_segment(files, path, config.key)
        except WrongKey as error:
            damage.append(f"{path.name}: {error}")
            continue
        # A torn end of the last one is what a crash leaves, or what is being written just now.
        if segment.damage and not (segment.is_torn and path == paths[-1]):
            damage.append(segment.damage)
        if not segment.records:
            continue
        header = segment.records[0]
        if not isinstance(header, Header) or header.owner != log_owner(config):
            damage.append(f"{path.name} is no part of this manager's log")
            continue
        joined = _join(state, header, base)
        if joined is None:
            last = base if state is None else max(base, state.last[0])
            damage.append(f"{path.name} goes on after entry {header.last}, what is readable ends at {last}")
            break
        state = joined
        _replay(state, path, segment.records[1:], damage)
    if state is not None and state.base > base:
        damage.append(f"entries up to {state.base} are missing: those behind them cannot be used")
        state.entries.clear()
    return state if state is not None else Recovered()


def _join(state: Recovered | None, header: Header, base: int) -> Recovered | None:
    """The log with which a segment goes on; None when entries are missing in between."""
    if state is None or (header.last, header.last_term) != state.last:
        if header.last > base:
            return None
        # Whatever was lost before is in the snapshot.
        state = Recovered()
        state.base, state.base_term = header.last, header.last_term
        state.begins_in_the_middle = header.last > 0
    state.term, state.voted_for = header.term, header.voted_for
    return state


def _replay(state: Recovered, path: Path, records: Sequence[WalRecord | Header], damage: list[str]) -> None:
    try:
        for record in records:
            if isinstance(record, Header):
                raise WalDamaged("a segment has a second header")
            state.replay(record)
    except WalDamaged as error:
        damage.append(f"{path.name}: {error}")
