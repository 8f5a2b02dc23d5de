"""The write-ahead log: segments of encrypted, checksummed frames that only ever grow at the end.

Entries, truncations, resets, the term and the vote are records of one log, so one `sync` makes all of them
durable in order. Everything between two syncs becomes one frame. Invariants: after `sync` returns, every
record survives a crash; a torn end is cut, damage anywhere else is refused; compaction only deletes whole
old segments; a segment is never written to by a second process life.

A failed sync keeps its records: the next one cuts the half-written frame off and writes them into a new
segment, because after a failed fsync the kernel no longer vouches for the old file.
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from raft.files import OS_FILES, File, Files
from raft.framing import Damaged, FrameWriter, has_frame_after, read_frames

logger = logging.getLogger(__name__)

SEGMENT_BYTES = 16 * 1024 * 1024
_PURPOSE = b"wal"
_GLOB = "wal-*.log"


class WalDamaged(Exception):
    """The log cannot be trusted: this manager must not vote as the member that it was."""


class Entry(msgspec.Struct, frozen=True, array_like=True, tag="e"):
    index: int
    term: int
    command: bytes


class Truncate(msgspec.Struct, frozen=True, array_like=True, tag="t"):
    """Entries after `last` are gone; `term` is the term of the entry at `last`."""

    last: int
    term: int


class Vote(msgspec.Struct, frozen=True, array_like=True, tag="v"):
    term: int
    voted_for: str | None


class Reset(msgspec.Struct, frozen=True, array_like=True, tag="r"):
    """A snapshot replaced everything: the log is empty and goes on after this index."""

    index: int
    term: int


class Header(msgspec.Struct, frozen=True, array_like=True, tag="h"):
    """First record of a segment: what the log was when it was begun."""

    last: int
    last_term: int
    term: int
    voted_for: str | None
    owner: str


WalRecord = Entry | Truncate | Vote | Reset

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Entry | Truncate | Vote | Reset | Header])


class Recovered:
    """What the log holds: entries base+1..., the term and the vote."""

    def __init__(self) -> None:
        self.base = 0
        self.base_term = 0
        self.entries: list[Entry] = []
        self.term = 0
        self.voted_for: str | None = None
        self.begins_in_the_middle = (
            False  # older segments were dropped: the base is only where the log goes on
        )

    @property
    def last(self) -> tuple[int, int]:
        if self.entries:
            return self.entries[-1].index, self.entries[-1].term
        return self.base, self.base_term

    def replay(self, record: WalRecord) -> None:
        """Raises WalDamaged when the record does not follow from what came before."""
        if isinstance(record, Entry):
            if record.index != self.last[0] + 1:
                raise WalDamaged(f"entry {record.index} follows entry {self.last[0]}")
            self.entries.append(record)
        elif isinstance(record, Truncate):
            if record.last < self.base and self.begins_in_the_middle:
                # The entries that are cut off here went with an older segment, which a snapshot covers.
                self.base, self.base_term, self.entries = record.last, record.term, []
                return
            if not self.base <= record.last <= self.last[0]:
                raise WalDamaged(f"truncation to {record.last} is outside {self.base}..{self.last[0]}")
            del self.entries[record.last - self.base :]
        elif isinstance(record, Vote):
            self.term, self.voted_for = record.term, record.voted_for
        else:
            self.base, self.base_term, self.entries = record.index, record.term, []
            self.begins_in_the_middle = False


class Segment(msgspec.Struct):
    """The readable records of one file; `damage`: where reading ended, in words, and `size` up to there."""

    records: list[WalRecord | Header]
    damage: str = ""
    size: int = 0
    is_torn: bool = False  # nothing good follows: as a crash leaves the end of the last segment


def segment_paths(files: Files, folder: Path) -> list[Path]:
    return sorted(files.paths(folder, _GLOB), key=_number)


def read_segment(files: Files, path: Path, key: bytes) -> Segment:
    """Changes nothing. Raises framing.WrongKey, OSError."""
    data = files.read(path)
    segment = Segment([])
    try:
        for _, payload in read_frames(data, key, _PURPOSE):
            segment.records.extend(_decoder.decode(payload))
    except Damaged as damage:
        segment.size = damage.offset
        segment.is_torn = not has_frame_after(data, damage.offset)
        segment.damage = f"{path.name}: {damage}"
    except msgspec.MsgspecError as error:
        segment.damage = f"{path.name}: unknown record: {error}"
    return segment


class Wal:
    """An open log. `append` is cheap and in memory; `sync` writes one frame and waits for the disk."""

    def __init__(
        self,
        folder: Path,
        key: bytes,
        owner: str,
        state: Recovered,
        segments: dict[int, int],
        files: Files,
    ) -> None:
        self._files = files
        self._folder = folder
        self._key = key
        self._owner = owner
        self._segments = segments  # number -> highest entry index in it; the last one is being written
        last, last_term = state.last
        self._durable = Header(last, last_term, state.term, state.voted_for, owner)
        self._next = self._durable  # what `_durable` becomes with the pending records
        self._pending: list[WalRecord] = []
        self._file: File | None = None
        self._size = 0
        self._broken = False
        self._begin_segment()

    @classmethod
    def open(cls, folder: Path, key: bytes, owner: str, files: Files = OS_FILES) -> tuple[Wal, Recovered]:
        """Open or create. `owner` names the node and cluster; another owner's log is refused.

        Raises WalDamaged (never repair that silently), framing.WrongKey, OSError.
        """
        files.make_folder(folder)
        numbers = [_number(path) for path in segment_paths(files, folder)]
        state, segments = _recover(files, folder, key, owner, numbers)
        return cls(folder, key, owner, state, segments, files), state

    @property
    def dirty(self) -> bool:
        return bool(self._pending)

    def append(self, record: WalRecord) -> None:
        """Takes effect in order, durable after the next sync."""
        now = self._next
        if isinstance(record, Entry):
            assert record.index == now.last + 1
            now = msgspec.structs.replace(now, last=record.index, last_term=record.term)
        elif isinstance(record, Truncate):
            now = msgspec.structs.replace(now, last=record.last, last_term=record.term)
        elif isinstance(record, Vote):
            now = msgspec.structs.replace(now, term=record.term, voted_for=record.voted_for)
        else:
            now = msgspec.structs.replace(now, last=record.index, last_term=record.term)
        self._next = now
        self._pending.append(record)

    def sync(self) -> None:
        """Make everything appended durable. Raises OSError, then nothing may be promised; try again later."""
        if not self._pending:
            return
        try:
            if self._broken:
                self._abandon_segment()
            elif self._size > SEGMENT_BYTES:
                self._begin_segment()
            frame = self._writer.frame(_encoder.encode(self._pending))
            self._open_file().write(frame)
            self._open_file().sync_data()
        except OSError:
            self._broken = True
            raise
        self._size += len(frame)
        self._note_written()

    def drop_until(self, index: int) -> None:
        """Delete the oldest segments that hold no entry above `index`; a durable snapshot must cover it.

        One that cannot be deleted costs space only: it and what follows stay until the next time.
        """
        current = max(self._segments)
        for number in sorted(self._segments):
            if number == current or self._segments[number] > index:
                break
            try:
                self._files.remove(_path(self._folder, number))
            except OSError as err:
                logger.warning("an old segment of the raft log stays until the next compaction: %s", err)
                break
            del self._segments[number]

    def close(self) -> None:
        """Does not sync: what was not synced was not promised."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open_file(self) -> File:
        assert self._file is not None, "the log is closed"
        return self._file

    def _note_written(self) -> None:
        current = max(self._segments)
        for record in self._pending:
            if isinstance(record, Entry):
                self._segments[current] = max(self._segments[current], record.index)
            elif isinstance(record, Reset):
                # What came before is obsolete, whatever its indexes.
                self._segments = dict.fromkeys(self._segments, 0)
        self._pending = []
        self._durable = self._next

    def _begin_segment(self) -> None:
        number = max(self._segments, default=0) + 1
        writer = FrameWriter(self._key, _PURPOSE)
        start = writer.preamble + writer.frame(_encoder.encode([self._durable]))
        path = _path(self._folder, number)
        file = _create_anew(self._files, path)
        try:
            file.write(start)
            file.sync()
            self._files.sync_folder(self._folder)
        except OSError:
            file.close()
            self._files.remove(path)
            raise
        self.close()
        self._file, self._size, self._writer = file, len(start), writer
        self._segments[number] = 0

    def _abandon_segment(self) -> None:
        file = self._open_file()
        file.truncate(self._size)
        file.sync()
        self._begin_segment()
        self._broken = False


def _create_anew(files: Files, path: Path) -> File:
    """Also where a failing disk has kept a half-made segment: nothing in it was promised."""
    try:
        return files.create(path)
    except FileExistsError:
        files.remove(path)
        return files.create(path)


def _recover(
    files: Files, folder: Path, key: bytes, owner: str, numbers: list[int]
) -> tuple[Recovered, dict[int, int]]:
    state = Recovered()
    segments: dict[int, int] = {}
    if numbers and numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise WalDamaged(f"a segment is missing in {folder}: found {numbers}")
    for number in numbers:
        records = _read_segment(files, folder, key, number, is_last=number == numbers[-1])
        if not records:
            continue
        _enter_segment(state, records[0], owner, first=not segments)
        segments[number] = 0
        for record in records[1:]:
            if isinstance(record, Header):
                raise WalDamaged(f"segment {number} has a second header")
            state.replay(record)
            if isinstance(record, Entry):
                segments[number] = max(segments[number], record.index)
            elif isinstance(record, Reset):
                segments = dict.fromkeys(segments, 0)
    return state, segments


def _enter_segment(state: Recovered, header: WalRecord | Header, owner: str, first: bool) -> None:
    if not isinstance(header, Header):
        raise WalDamaged("a segment does not begin with its header")
    if header.owner != owner:
        raise WalDamaged(f"the log belongs to {header.owner}, not to {owner}")
    if first:
        state.base, state.base_term = header.last, header.last_term
        state.begins_in_the_middle = header.last > 0
    elif (header.last, header.last_term) != state.last:
        raise WalDamaged(f"a segment goes on after entry {header.last}, the log ends at {state.last[0]}")
    state.term, state.voted_for = header.term, header.voted_for


def _read_segment(
    files: Files, folder: Path, key: bytes, number: int, is_last: bool
) -> list[WalRecord | Header]:
    """All records; a torn end of the last segment is cut off. An empty list: the segment was never begun."""
    path = _path(folder, number)
    segment = read_segment(files, path, key)
    if segment.damage:
        if not segment.is_torn:
            raise WalDamaged(segment.damage)
        if not is_last:
            raise WalDamaged(f"{segment.damage}; a later segment follows, so entries are lost")
        _cut(files, path, segment.size)
    if not segment.records:
        if not is_last:
            raise WalDamaged(f"{path.name} is empty")
        files.remove(path)
    return segment.records


def _cut(files: Files, path: Path, size: int) -> None:
    file = files.open(path)
    try:
        file.truncate(size)
        file.sync()
    finally:
        file.close()


def _path(folder: Path, number: int) -> Path:
    return folder / f"wal-{number:016d}.log"


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("wal-"))
