"""Reading what is left of a damaged manager: never a gap, never more than is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from raft import snapshot as snapshots
from raft import wal as wal_module
from raft.config import ConsensusConfig, log_owner, snapshot_dir, wal_dir
from raft.errors import FailedPrecondition
from raft.framing import WrongKey
from raft.membership import Configuration
from raft.replication import MEMBERSHIP, REGULAR
from raft.salvage import Salvage, salvage
from raft.wal import Entry, Truncate, Vote, Wal, segment_paths

THREE = Configuration({"a": "a:1", "b": "b:1", "c": "c:1"})


class Machine:
    def __init__(self) -> None:
        self.applied: list[tuple[int, bytes]] = []

    def apply(self, command: bytes, index: int) -> object:
        self.applied.append((index, command))
        return None

    def dump(self) -> object:
        return self.applied

    def encode(self, dump: object) -> bytes:
        return repr(dump).encode()

    def load(self, data: bytes) -> None:
        self.applied = [(int(data), b"state")]


@pytest.fixture
def config(tmp_path: Path) -> ConsensusConfig:
    return ConsensusConfig("a", "a:1", "c1", tmp_path, b"k" * 32)


def write(config: ConsensusConfig, first: int, last: int, term: int = 1) -> None:
    """Entries of one life of the manager, each synced by itself, in a segment of their own."""
    log, _ = Wal.open(wal_dir(config), config.key, log_owner(config))
    for index in range(first, last + 1):
        command = MEMBERSHIP + THREE.encode() if index == 1 else REGULAR + b"i" * 16 + b"%d" % index
        log.append(Entry(index, term, command))
        log.sync()
    log.close()


def snapshot_at(config: ConsensusConfig, index: int) -> Path:
    made = snapshots.make(index, 1, THREE, b"%d" % index)
    return snapshots.save(snapshot_dir(config), config.key, made, keep_older=5)


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def segments(config: ConsensusConfig) -> list[Path]:
    return segment_paths(wal_module.OS_FILES, wal_dir(config))


def indexes(found: Salvage) -> list[int]:
    return [entry.index for entry in found.entries]


def test_whole_log_is_read_with_everything_that_is_not_known_to_be_committed(config: ConsensusConfig):
    write(config, 1, 5)
    log, _ = Wal.open(wal_dir(config), config.key, log_owner(config))
    log.append(Truncate(4, 1))
    log.append(Vote(7, "b"))
    log.sync()
    log.close()
    before = [path.read_bytes() for path in segments(config)]
    found = salvage(config)
    assert (indexes(found), found.term, found.damage) == ([1, 2, 3, 4], 7, ())
    assert found.configuration == THREE
    machine = Machine()
    found.replay(machine)
    assert machine.applied == [(2, b"2"), (3, b"3"), (4, b"4")]
    assert [path.read_bytes() for path in segments(config)] == before


def test_torn_end_is_no_damage_and_stays(config: ConsensusConfig):
    write(config, 1, 3)
    path = segments(config)[-1]
    data = path.read_bytes()[:-1]
    path.write_bytes(data)
    found = salvage(config)
    assert (indexes(found), found.damage) == ([1, 2], ())
    assert path.read_bytes() == data


def test_damage_in_the_middle_ends_the_good_part(config: ConsensusConfig):
    write(config, 1, 5)
    write(config, 6, 8)
    flip(segments(config)[0], segments(config)[0].stat().st_size // 2)
    found = salvage(config)
    assert indexes(found) == list(range(1, found.last_index + 1))
    assert 1 <= found.last_index < 5
    assert len(found.damage) == 2
    assert f"goes on after entry 5, what is readable ends at {found.last_index}" in found.damage[1]


def test_snapshot_bridges_what_is_damaged_before_it(config: ConsensusConfig):
    write(config, 1, 5)
    write(config, 6, 8)
    snapshot_at(config, 6)
    flip(segments(config)[0], segments(config)[0].stat().st_size // 2)
    found = salvage(config)
    assert (found.snapshot_index, indexes(found), found.last_index) == (6, [7, 8], 8)
    machine = Machine()
    found.replay(machine)
    assert machine.applied == [(6, b"state"), (7, b"7"), (8, b"8")]


def test_damaged_snapshot_gives_way_to_an_older_one_and_the_log(config: ConsensusConfig):
    write(config, 1, 8)
    snapshot_at(config, 3)
    flip(snapshot_at(config, 6), 80)
    found = salvage(config)
    assert (found.snapshot_index, indexes(found)) == (3, [4, 5, 6, 7, 8])
    assert len(found.damage) == 1


def test_log_that_begins_behind_the_snapshot_is_not_used(config: ConsensusConfig):
    write(config, 1, 4)
    write(config, 5, 8)
    snapshot_at(config, 2)
    segments(config)[0].unlink()
    found = salvage(config)
    assert (indexes(found), found.last_index) == ([], 2)
    assert "goes on after entry 4, what is readable ends at 2" in found.damage[0]


def test_nothing_readable_is_said_and_a_wrong_key_is_no_damage(config: ConsensusConfig):
    with pytest.raises(FailedPrecondition, match="nothing is readable"):
        salvage(config)
    write(config, 1, 3)
    with pytest.raises(WrongKey):
        salvage(ConsensusConfig("a", "a:1", "c1", config.state_dir, b"x" * 32))
    flip(segments(config)[0], 3)
    with pytest.raises(FailedPrecondition, match="nothing is readable"):
        salvage(config)
