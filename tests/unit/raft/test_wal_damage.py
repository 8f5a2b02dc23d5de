"""Every byte of a log or snapshot cut off or changed: what is read is what was written, or it is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from raft import snapshot
from raft import wal as wal_module
from raft.framing import Damaged, WrongKey
from raft.membership import Configuration
from raft.wal import Entry, Recovered, Reset, Truncate, Vote, Wal, WalDamaged

KEY = b"k" * 32
State = tuple[tuple[tuple[int, int, bytes], ...], int, str | None]


def picture(state: Recovered) -> State:
    entries = tuple((e.index, e.term, e.command) for e in state.entries)
    return entries, state.term, state.voted_for


def recover(folder: Path) -> State:
    wal, state = Wal.open(folder, KEY, "n")
    wal.close()
    return picture(state)


class Life:
    """A log with all kinds of records, several to a frame, and what it was after each sync."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.states: list[State] = []
        self.wal, state = Wal.open(folder, KEY, "n")
        self.model = state
        self.note()

    def sync(self, *records: Entry | Truncate | Vote | Reset) -> None:
        for record in records:
            self.wal.append(record)
            self.model.replay(record)
        self.wal.sync()
        self.note()

    def note(self) -> None:
        self.states.append(picture(self.model))


def live(folder: Path) -> Life:
    life = Life(folder)
    life.sync(Vote(1, "n1"))
    life.sync(Entry(1, 1, b"one"), Entry(2, 1, b"two"))
    life.sync(Entry(3, 1, b"three"))
    life.sync(Vote(2, None), Truncate(2, 1), Entry(3, 2, b"another three"), Entry(4, 2, b"four"))
    life.sync(Truncate(3, 2))
    life.sync(Vote(3, "n3"))
    life.sync(Entry(4, 3, b"another four"))
    life.wal.close()
    return life


def variants(folder: Path, path: Path, contents: Iterator[bytes]) -> Iterator[tuple[int, Path]]:
    """The folder again and again, with other contents of one file."""
    others = {other.name: other.read_bytes() for other in folder.glob("*") if other != path}
    for number, data in enumerate(contents):
        made = folder.parent / f"{folder.name}-{path.stem}-{number}"
        made.mkdir()
        for name, unchanged in others.items():
            (made / name).write_bytes(unchanged)
        (made / path.name).write_bytes(data)
        yield number, made


def cuts(data: bytes) -> Iterator[bytes]:
    yield from (data[:size] for size in range(len(data)))


def flips(data: bytes) -> Iterator[bytes]:
    """One bit of every byte, another one from byte to byte."""
    for position, byte in enumerate(data):
        yield data[:position] + bytes([byte ^ (1 << position % 8)]) + data[position + 1 :]


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("wal-*.log"))


def test_log_cut_at_every_byte_is_what_it_was_after_a_sync(tmp_path: Path):
    """And never less than after a longer cut; and it can be written to again."""
    life = live(tmp_path / "wal")
    (path,) = segments(life.folder)
    reached = 0
    for size, folder in variants(life.folder, path, cuts(path.read_bytes())):
        wal, state = Wal.open(folder, KEY, "n")
        assert picture(state) in life.states, size
        position = life.states.index(picture(state))
        assert position >= reached
        reached = position
        wal.append(Entry(state.last[0] + 1, 9, b"next"))
        wal.sync()
        wal.close()
        assert recover(folder)[0][-1] == (state.last[0] + 1, 9, b"next")
    assert reached == len(life.states) - 2


def test_log_with_a_flipped_bit_anywhere_is_refused_or_ends_before_it(tmp_path: Path):
    life = live(tmp_path / "wal")
    (path,) = segments(life.folder)
    refused = shorter = 0
    for position, folder in variants(life.folder, path, flips(path.read_bytes())):
        try:
            assert recover(folder) == life.states[-2], position
            shorter += 1
        except (WalDamaged, WrongKey):
            refused += 1
    data = path.read_bytes()
    # Only the last frame may be taken for the torn end of a write that was never finished.
    assert shorter == len(data) - data.rindex(b"\xf5swF")
    assert refused == len(data) - shorter


@pytest.fixture
def several_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Life:
    monkeypatch.setattr(wal_module, "SEGMENT_BYTES", 220)
    life = Life(tmp_path / "wal")
    for index in range(1, 10):
        life.sync(Entry(index, 1, b"command %d" % index))
    life.wal.close()
    assert len(segments(life.folder)) > 2
    return life


@pytest.mark.parametrize("how", [cuts, flips])
def test_older_segment_that_is_not_whole_is_refused(several_segments: Life, how):
    """Whatever is missing there was promised: an empty file, a cut at a frame, a torn one, a flipped bit."""
    for path in segments(several_segments.folder)[:-1]:
        for position, folder in variants(several_segments.folder, path, how(path.read_bytes())):
            with pytest.raises((WalDamaged, WrongKey)):
                recover(folder)
                pytest.fail(f"{path.name} with a change at {position} was taken")


def test_last_of_several_segments_cut_at_every_byte_keeps_the_older_ones(several_segments: Life):
    *_, before, last = segments(several_segments.folder)
    held = len(several_segments.states) - 1
    lengths = set()
    for _, folder in variants(several_segments.folder, last, cuts(last.read_bytes())):
        state = recover(folder)
        assert state in several_segments.states
        lengths.add(len(state[0]))
    assert before.exists()
    assert min(lengths) > 5
    assert max(lengths) == held - 1


def test_snapshot_cut_or_changed_anywhere_is_refused(tmp_path: Path):
    saved = snapshot.make(5, 2, Configuration({"n1": "a:1"}, ("gone",)), b"state " * 20)
    path = snapshot.save(tmp_path, KEY, saved)
    data = path.read_bytes()
    for how in (cuts, flips):
        for changed in how(data):
            path.write_bytes(changed)
            with pytest.raises((Damaged, WrongKey)):
                snapshot.load_latest(tmp_path, KEY)


def test_damaged_snapshot_gives_way_to_an_older_one_but_a_wrong_key_does_not(tmp_path: Path):
    """The newest one is damaged while an older one is still there: the log decides whether that is enough."""
    older = snapshot.make(5, 2, Configuration({"n1": "a:1"}), b"old")
    newer = snapshot.make(9, 2, Configuration({"n1": "a:1"}), b"new")
    kept = snapshot.save(tmp_path, KEY, older).read_bytes()
    path = snapshot.save(tmp_path, KEY, newer)
    (tmp_path / "snapshot-00000000000000000005.snap").write_bytes(kept)
    path.write_bytes(path.read_bytes()[:-1])
    assert snapshot.load_latest(tmp_path, KEY) == older
    with pytest.raises(WrongKey):
        snapshot.load_latest(tmp_path, b"x" * 32)
