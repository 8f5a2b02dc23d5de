"""Snapshots on disk: the state machine's bytes at one log index, encrypted, checked and renamed into place.

Owns the file format and which files are kept; knows nothing of what the bytes mean. Invariants: a file
under its final name is complete and durable; the previous snapshot is deleted only after that. All
functions block and are meant for a thread.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from raft.files import OS_FILES, Files
from raft.framing import Damaged, FrameWriter, read_frames
from raft.membership import Configuration

_PURPOSE = b"snapshot"
_CHUNK_BYTES = 1024 * 1024
_GLOB = "snapshot-*.snap"


class SnapshotMeta(msgspec.Struct, frozen=True):
    """`index` and `term` of the last entry that the state contains; the configuration at that index."""

    index: int
    term: int
    configuration: Configuration
    size: int
    crc32: int


class Snapshot(msgspec.Struct, frozen=True):
    meta: SnapshotMeta
    data: bytes


def make(index: int, term: int, configuration: Configuration, data: bytes) -> Snapshot:
    return Snapshot(SnapshotMeta(index, term, configuration, len(data), zlib.crc32(data)), data)


def is_whole(snapshot: Snapshot) -> bool:
    return (len(snapshot.data), zlib.crc32(snapshot.data)) == (snapshot.meta.size, snapshot.meta.crc32)


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
            for piece in _pieces(key, snapshot):
                file.write(piece)
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
        payloads = [payload for _, payload in read_frames(files.read(path), key, _PURPOSE)]
        meta = msgspec.msgpack.decode(payloads[0], type=SnapshotMeta)
    except (Damaged, IndexError, msgspec.MsgspecError) as err:
        raise Damaged(f"{path.name}: {err}") from err
    snapshot = Snapshot(meta, b"".join(payloads[1:]))
    if not is_whole(snapshot):
        raise Damaged(f"{path.name}: {len(snapshot.data)} of {meta.size} bytes, or a wrong checksum")
    return snapshot


def _pieces(key: bytes, snapshot: Snapshot) -> Iterator[bytes]:
    writer = FrameWriter(key, _PURPOSE)
    yield writer.preamble
    yield writer.frame(msgspec.msgpack.encode(snapshot.meta))
    for start in range(0, len(snapshot.data), _CHUNK_BYTES):
        yield writer.frame(snapshot.data[start : start + _CHUNK_BYTES])


def _delete_older(files: Files, folder: Path, newest: Path, keep: int) -> None:
    # Only older ones: the leader's snapshot may have been stored while this one was being written.
    older = [path for path in files.paths(folder, _GLOB) if path.stem < newest.stem]
    torn = [path for path in files.paths(folder, "snapshot-*.tmp") if path.stem < newest.stem]
    for path in [*older[: max(0, len(older) - keep)], *torn]:
        files.remove(path)
