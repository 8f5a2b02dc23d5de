"""Snapshots on disk: the state machine's bytes at one log index, encrypted, checked and renamed into place.

Owns the file format and which files are kept; knows nothing of what the bytes mean. They stay in the pieces
in which they were made, one frame of the file each, and are never joined: to copy 100 MB at once would hold
the interpreter, and with it the event loop. Invariants: a file under its final name is complete and durable;
the previous snapshot is deleted only after that. All functions block and are meant for a thread.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from raft.files import OS_FILES, Files
from raft.framing import Damaged, FrameWriter, read_frames
from raft.membership import Configuration

PIECE_BYTES = 512 * 1024

_PURPOSE = b"snapshot"
_GLOB = "snapshot-*.snap"
# So much may wait for the disk at a time: a sync of the log, which the event loop waits for, also waits for it.
_UNSYNCED_BYTES_MAX = 1024 * 1024


class SnapshotMeta(msgspec.Struct, frozen=True):
    """`index` and `term` of the last entry that the state contains; the configuration at that index."""

    index: int
    term: int
    configuration: Configuration
    size: int
    crc32: int


class Snapshot(msgspec.Struct, frozen=True):
    meta: SnapshotMeta
    pieces: tuple[bytes, ...]

    @property
    def data(self) -> bytes:
        """All of it in one, a copy: for small states."""
        return b"".join(self.pieces)


def make(index: int, term: int, configuration: Configuration, data: bytes) -> Snapshot:
    pieces = (data[start : start + PIECE_BYTES] for start in range(0, len(data), PIECE_BYTES))
    return make_of_pieces(index, term, configuration, pieces)


def make_of_pieces(index: int, term: int, configuration: Configuration, pieces: Iterable[bytes]) -> Snapshot:
    kept, size, crc32 = [], 0, 0
    for piece in pieces:
        kept.append(piece)
        size += len(piece)
        crc32 = zlib.crc32(piece, crc32)
    return Snapshot(SnapshotMeta(index, term, configuration, size, crc32), tuple(kept))


def save(folder: Path, key: bytes, snapshot: Snapshot, files: Files = OS_FILES, keep_older: int = 0) -> Path:
    """Write, fsync, rename, fsync the folder, delete the older ones but `keep_older`.

    Raises OSError, having lost none.
    """
    files.make_folder(folder)
    path = folder / f"snapshot-{snapshot.meta.index:020d}.snap"
    temporary = path.with_suffix(".tmp")
    files.remove(temporary)
    try:
        file = files.create(temporary)
        try:
            unsynced = 0
            for frame in _frames(key, snapshot):
                file.write(frame)
                unsynced += len(frame)
                if unsynced >= _UNSYNCED_BYTES_MAX:
                    file.sync_data()
                    unsynced = 0
            file.sync()
        finally:
            file.close()
        files.rename(temporary, path)
    except OSError:
        files.remove(temporary)
        raise
    files.sync_folder(folder)
    _delete_older(files, folder, path, keep_older)
    return path


def load_latest(folder: Path, key: bytes, files: Files = OS_FILES) -> Snapshot | None:
    """The newest readable snapshot, None when there is no file at all.

    Raises Damaged when there are files and none is whole, WrongKey when the key does not fit.
    """
    paths = reversed(files.paths(folder, _GLOB))
    problems = []
    for path in paths:
        try:
            return load(path, key, files)
        except Damaged as err:
            problems.append(str(err))
    if problems:
        raise Damaged(f"no snapshot is readable: {'; '.join(problems)}")
    return None


def load(path: Path, key: bytes, files: Files = OS_FILES) -> Snapshot:
    """Raises Damaged naming the file, WrongKey."""
    try:
        payloads = (payload for _, payload in read_frames(files.read(path), key, _PURPOSE))
        meta = msgspec.msgpack.decode(next(payloads, b""), type=SnapshotMeta)
        found = make_of_pieces(meta.index, meta.term, meta.configuration, payloads)
    except (Damaged, msgspec.MsgspecError) as err:
        raise Damaged(f"{path.name}: {err}") from err
    if found.meta != meta:
        raise Damaged(f"{path.name}: {found.meta.size} of {meta.size} bytes, or a wrong checksum")
    return found


def _frames(key: bytes, snapshot: Snapshot) -> Iterator[bytes]:
    writer = FrameWriter(key, _PURPOSE)
    yield writer.preamble
    yield writer.frame(msgspec.msgpack.encode(snapshot.meta))
    for piece in snapshot.pieces:
        yield writer.frame(piece)


def _delete_older(files: Files, folder: Path, newest: Path, keep: int) -> None:
    # Only older ones: the leader's snapshot may have been stored while this one was being written.
    older = [path for path in files.paths(folder, _GLOB) if path.stem < newest.stem]
    torn = [path for path in files.paths(folder, "snapshot-*.tmp") if path.stem < newest.stem]
    for path in [*older[: max(0, len(older) - keep)], *torn]:
        files.remove(path)
