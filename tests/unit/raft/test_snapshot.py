"""Snapshot files, and snapshots on their way to a follower."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from raft import snapshot
from raft.framing import Damaged, WrongKey
from raft.membership import Configuration
from raft.snapshot import Snapshot
from raft.transfers import CHUNK_BYTES, STALLED_S, WINDOW_BYTES, Incoming, Outgoing

KEY = b"k" * 32
CONFIGURATION = Configuration({"n1": "a:1"}, ("gone",))


def make(index: int, size: int = 3_000_000) -> Snapshot:
    return snapshot.make(index, 2, CONFIGURATION, (b"%08d" % index) * (size // 8))


def test_saved_snapshot_comes_back_and_replaces_the_older(tmp_path: Path):
    snapshot.save(tmp_path, KEY, make(5))
    snapshot.save(tmp_path, KEY, make(9))
    assert [p.name for p in tmp_path.iterdir()] == ["snapshot-00000000000000000009.snap"]
    assert snapshot.load_latest(tmp_path, KEY) == make(9)


def test_late_older_snapshot_does_not_delete_the_newer(tmp_path: Path):
    snapshot.save(tmp_path, KEY, make(9))
    snapshot.save(tmp_path, KEY, make(5))
    assert snapshot.load_latest(tmp_path, KEY) == make(9)


def test_no_snapshot_is_none_and_garbage_is_damage(tmp_path: Path):
    assert snapshot.load_latest(tmp_path, KEY) is None
    path = snapshot.save(tmp_path, KEY, make(5))
    data = path.read_bytes()
    for bad in (b"", data[:-1], data[:2000], data[:-100] + b"x" * 100):
        path.write_bytes(bad)
        with pytest.raises(Damaged, match=r"snapshot-0+5\.snap"):
            snapshot.load_latest(tmp_path, KEY)


def test_frames_left_out_are_noticed(tmp_path: Path):
    path = snapshot.save(tmp_path, KEY, make(5, size=4_000_000))
    data = path.read_bytes()
    last = data.rindex(b"\xf5swF")
    path.write_bytes(data[:last])  # a whole frame less: every remaining checksum is right
    with pytest.raises(Damaged, match="of 4000000 bytes"):
        snapshot.load(path, KEY)


def test_wrong_key_and_no_plaintext(tmp_path: Path):
    path = snapshot.save(tmp_path, KEY, make(5))
    assert b"00000005" not in path.read_bytes()
    with pytest.raises(WrongKey):
        snapshot.load_latest(tmp_path, b"x" * 32)


def test_failed_write_leaves_the_previous_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    snapshot.save(tmp_path, KEY, make(5))

    def fail(file: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space"):
            snapshot.save(tmp_path, KEY, make(9))
    assert [p.suffix for p in tmp_path.iterdir()] == [".snap"]
    assert snapshot.load_latest(tmp_path, KEY) == make(5)


def test_transfer_is_windowed_and_arrives_whole():
    outgoing, incoming = Outgoing(), Incoming()
    wanted = make(7, size=3 * WINDOW_BYTES)
    received, rounds = None, 0
    while received is None:
        chunks = outgoing.chunks("n2", wanted, 1, 1, now=0.0)
        assert sum(len(c.data) for c in chunks) <= WINDOW_BYTES
        assert chunks
        rounds += 1
        for chunk in chunks:
            received = incoming.take("n1", chunk) or received
        outgoing.acknowledge("n2", incoming.received, now=0.0)
    assert received == wanted
    assert rounds == 3


def test_lost_repeated_and_foreign_pieces_are_not_taken():
    outgoing, incoming = Outgoing(), Incoming()
    wanted = make(7, size=3 * CHUNK_BYTES)
    first, second, third = outgoing.chunks("n2", wanted, 1, 1, now=0.0)
    assert incoming.take("n1", second) is None
    assert incoming.received == 0
    assert incoming.take("n1", first) is None
    assert incoming.take("n1", third) is None
    assert incoming.received == CHUNK_BYTES
    assert incoming.take("n3", second) is None
    assert incoming.take("n1", second) is None
    assert incoming.take("n1", second) is None
    assert incoming.received == 2 * CHUNK_BYTES
    assert incoming.take("n1", third) == wanted


def test_damaged_transfer_is_not_a_snapshot():
    outgoing, incoming = Outgoing(), Incoming()
    (chunk,) = outgoing.chunks("n2", make(7, size=1000), 1, 1, now=0.0)
    bad = msgspec.structs.replace(chunk, data=b"y" + chunk.data[1:])
    assert incoming.take("n1", bad) is None
    assert incoming.take("n1", chunk) == make(7, size=1000)


def test_stalled_transfer_starts_again():
    outgoing = Outgoing()
    wanted = make(7, size=CHUNK_BYTES)
    assert [c.offset for c in outgoing.chunks("n2", wanted, 1, 1, now=0.0)] == [0]
    assert outgoing.chunks("n2", wanted, 1, 1, now=STALLED_S) == []
    assert [c.offset for c in outgoing.chunks("n2", wanted, 1, 1, now=STALLED_S + 0.1)] == [0]


def test_as_many_older_ones_are_kept_as_wanted(tmp_path: Path):
    for index in range(1, 6):
        snapshot.save(tmp_path, KEY, make(index, 8), keep_older=2)
    assert [path.stem[-1] for path in sorted(tmp_path.iterdir())] == ["3", "4", "5"]
    snapshot.save(tmp_path, KEY, make(6, 8))
    assert len(list(tmp_path.iterdir())) == 1
