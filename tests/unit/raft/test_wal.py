"""The write-ahead log against torn ends, flipped bits, failing disks and its own compaction."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from raft import wal as wal_module
from raft.framing import PREAMBLE_BYTES, WrongKey
from raft.wal import Entry, Recovered, Reset, Truncate, Vote, Wal, WalDamaged

KEY = b"k" * 32


def open_wal(folder: Path, key: bytes = KEY) -> tuple[Wal, Recovered]:
    return Wal.open(folder, key, "cluster/node")


def write(folder: Path, first: int, last: int, term: int = 1) -> None:
    """One frame per entry."""
    wal, _ = open_wal(folder)
    for index in range(first, last + 1):
        wal.append(Entry(index, term, b"command %d" % index))
        wal.sync()
    wal.close()


def recover(folder: Path) -> Recovered:
    wal, state = open_wal(folder)
    wal.close()
    return state


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("wal-*.log"))


def test_everything_comes_back_in_order(tmp_path: Path):
    wal, state = open_wal(tmp_path)
    assert (state.last, state.term, state.voted_for) == ((0, 0), 0, None)
    wal.append(Vote(3, "n1"))
    for index in range(1, 6):
        wal.append(Entry(index, 3, b"x%d" % index))
    wal.append(Truncate(3, 3))
    wal.append(Entry(4, 4, b"other"))
    wal.sync()
    wal.close()
    state = recover(tmp_path)
    assert [(e.index, e.term, e.command) for e in state.entries] == [
        (1, 3, b"x1"),
        (2, 3, b"x2"),
        (3, 3, b"x3"),
        (4, 4, b"other"),
    ]
    assert (state.term, state.voted_for) == (3, "n1")


def test_what_was_not_synced_is_not_there(tmp_path: Path):
    wal, _ = open_wal(tmp_path)
    wal.append(Entry(1, 1, b"a"))
    wal.sync()
    wal.append(Entry(2, 1, b"b"))
    wal.close()
    assert recover(tmp_path).last == (1, 1)


def test_cut_at_every_byte_keeps_exactly_the_whole_frames(tmp_path: Path):
    write(tmp_path / "wal", 1, 3)
    (path,) = segments(tmp_path / "wal")
    data = path.read_bytes()
    ends = frame_ends(data)
    for size in range(len(data) + 1):
        folder = tmp_path / f"cut{size}"
        folder.mkdir()
        (folder / path.name).write_bytes(data[:size])
        # ends[0] is the header's frame; every further one holds one entry.
        assert recover(folder).last[0] == max(0, sum(end <= size for end in ends) - 1), size
        assert recover(folder).last[0] == max(0, sum(end <= size for end in ends) - 1), "second recovery"


def test_flipped_bit_before_good_data_is_refused(tmp_path: Path):
    write(tmp_path / "wal", 1, 3)
    (path,) = segments(tmp_path / "wal")
    data = path.read_bytes()
    ends = frame_ends(data)
    for position in range(PREAMBLE_BYTES, ends[-2]):
        folder = tmp_path / f"flip{position}"
        folder.mkdir()
        (folder / path.name).write_bytes(flipped(data, position))
        with pytest.raises(WalDamaged):
            open_wal(folder)


def test_flipped_bit_in_the_last_frame_cuts_it(tmp_path: Path):
    write(tmp_path / "wal", 1, 3)
    (path,) = segments(tmp_path / "wal")
    data = path.read_bytes()
    for position in range(frame_ends(data)[-2], len(data)):
        folder = tmp_path / f"flip{position}"
        folder.mkdir()
        (folder / path.name).write_bytes(flipped(data, position))
        assert recover(folder).last[0] == 2


def test_damage_at_the_end_of_an_older_segment_is_refused(tmp_path: Path):
    write(tmp_path, 1, 2)
    write(tmp_path, 3, 3)
    first = segments(tmp_path)[0]
    first.write_bytes(first.read_bytes()[:-1])
    with pytest.raises(WalDamaged, match=first.name):
        open_wal(tmp_path)


def test_missing_segment_is_refused(tmp_path: Path):
    for index in (1, 2, 3):
        write(tmp_path, index, index)
    segments(tmp_path)[1].unlink()
    with pytest.raises(WalDamaged, match="missing"):
        open_wal(tmp_path)


def test_segment_of_another_life_is_refused(tmp_path: Path):
    write(tmp_path / "a", 1, 2)
    write(tmp_path / "a", 3, 3)
    write(tmp_path / "b", 1, 1)
    name = segments(tmp_path / "a")[0].name
    (tmp_path / "a" / name).write_bytes((tmp_path / "b" / name).read_bytes())
    with pytest.raises(WalDamaged, match="goes on after entry 2, the log ends at 1"):
        open_wal(tmp_path / "a")


def test_wrong_key_and_wrong_owner_are_told_apart_from_damage(tmp_path: Path):
    write(tmp_path, 1, 1)
    with pytest.raises(WrongKey):
        open_wal(tmp_path, key=b"x" * 32)
    with pytest.raises(WalDamaged, match="belongs to cluster/node, not to cluster/other"):
        Wal.open(tmp_path, KEY, "cluster/other")
    assert recover(tmp_path).last == (1, 1)


def test_nothing_is_readable_on_disk(tmp_path: Path):
    write(tmp_path, 1, 1)
    data = b"".join(path.read_bytes() for path in segments(tmp_path))
    assert b"command" not in data
    assert b"cluster/node" not in data


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_failed_sync_loses_nothing_and_heals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int):
    wal, _ = open_wal(tmp_path)
    wal.append(Entry(1, 1, b"a"))
    wal.sync()
    wal.append(Entry(2, 1, b"b"))
    real_write, real_sync = os.write, os.fdatasync

    def half_write(file: int, data: bytes) -> int:
        real_write(file, bytes(data)[:10])
        raise OSError(code, os.strerror(code))

    def no_sync(file: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "write", half_write)
    for _ in range(2):
        with pytest.raises(OSError):
            wal.sync()
    monkeypatch.setattr(os, "write", real_write)
    monkeypatch.setattr(os, "fdatasync", no_sync)
    with pytest.raises(OSError):
        wal.sync()
    monkeypatch.setattr(os, "fdatasync", real_sync)
    wal.append(Entry(3, 1, b"c"))
    wal.sync()
    wal.close()
    state = recover(tmp_path)
    assert [e.command for e in state.entries] == [b"a", b"b", b"c"]


def test_full_segments_are_followed_by_new_ones_and_dropped_when_covered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(wal_module, "SEGMENT_BYTES", 1000)
    wal, _ = open_wal(tmp_path)
    wal.append(Vote(7, "n2"))
    for index in range(1, 61):
        wal.append(Entry(index, 7, b"x" * 100))
        wal.sync()
    before = len(segments(tmp_path))
    assert before > 5
    wal.drop_until(40)
    assert len(segments(tmp_path)) == before  # a crash now would recover all of them
    wal.remove_dropped()
    assert 1 < len(segments(tmp_path)) < before
    wal.close()
    state = recover(tmp_path)
    assert state.base <= 40
    assert state.entries[0].index == state.base + 1
    assert (state.last, state.term, state.voted_for) == ((60, 7), 7, "n2")
    assert state.base_term == 7


def test_segment_that_cannot_be_deleted_is_tried_again_before_younger_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A gap between the segments would be damage."""
    monkeypatch.setattr(wal_module, "SEGMENT_BYTES", 1000)
    write(tmp_path, 1, 60)
    wal, _ = open_wal(tmp_path)
    wal.drop_until(40)
    before = segments(tmp_path)

    def fail(path: Path, missing_ok: bool = False) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", fail)
        with pytest.raises(OSError, match="Input/output"):
            wal.remove_dropped()
    assert segments(tmp_path) == before
    wal.remove_dropped()
    assert segments(tmp_path)[0] > before[0]
    wal.close()
    assert recover(tmp_path).last == (60, 1)


def test_reset_starts_the_log_over_and_lets_old_segments_go(tmp_path: Path):
    write(tmp_path, 1, 50)
    wal, _ = open_wal(tmp_path)
    wal.append(Reset(20, 5))
    wal.append(Entry(21, 6, b"new"))
    wal.sync()
    wal.drop_until(20)
    wal.remove_dropped()
    wal.close()
    state = recover(tmp_path)
    assert (state.base, state.base_term) == (20, 5)
    assert [(e.index, e.command) for e in state.entries] == [(21, b"new")]
    assert len(segments(tmp_path)) == 2  # the one with the reset, and the one that recovery began


def test_truncation_into_a_dropped_segment_is_no_damage(tmp_path: Path):
    """A restart, a conflict, and then a snapshot whose compaction drops the segment with the cut entries."""
    write(tmp_path, 1, 5)
    wal, _ = open_wal(tmp_path)
    wal.append(Entry(6, 1, b"lost"))
    wal.append(Truncate(3, 1))
    for index in range(4, 8):
        wal.append(Entry(index, 2, b"other"))
    wal.sync()
    wal.drop_until(5)
    wal.remove_dropped()
    wal.close()
    state = recover(tmp_path)
    assert (state.base, state.base_term) == (3, 1)
    assert [(entry.index, entry.term) for entry in state.entries] == [(4, 2), (5, 2), (6, 2), (7, 2)]


def frame_ends(data: bytes) -> list[int]:
    ends, position = [], PREAMBLE_BYTES
    while position < len(data):
        position += 12 + int.from_bytes(data[position + 4 : position + 8], "big")
        ends.append(position)
    return ends


def flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :]
