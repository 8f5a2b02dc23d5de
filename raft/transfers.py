"""Snapshots on their way between managers: what the leader has sent to whom, and what a follower received.

Pure bookkeeping: no disk, no clock of its own. Invariants: at most a window of unacknowledged bytes is on
the way to one follower; a piece is only taken when it continues what is there; a snapshot counts as
received only when its size and checksum are right. A piece of the snapshot is one message.
"""

from __future__ import annotations

import zlib

from raft.messages import SnapshotChunk
from raft.snapshot import Snapshot, SnapshotMeta

WINDOW_BYTES = 4 * 1024 * 1024
SNAPSHOT_BYTES_MAX = 4 * 1024 * 1024 * 1024
STALLED_S = 5.0


class _Sending:
    def __init__(self, snapshot: Snapshot, now: float) -> None:
        self.snapshot = snapshot
        self.next_piece = 0
        self.sent = 0
        self.acked = 0
        self.progress_at = now


class Outgoing:
    """The leader's side, one transfer per follower."""

    def __init__(self) -> None:
        self._sending: dict[str, _Sending] = {}

    def __bool__(self) -> bool:
        return bool(self._sending)

    def lowest_index(self, default: int) -> int:
        """Of the snapshots that are on their way."""
        return min((s.snapshot.meta.index for s in self._sending.values()), default=default)

    def chunks(
        self, node_id: str, snapshot: Snapshot, term: int, round: int, now: float
    ) -> list[SnapshotChunk]:
        """What may be sent now. Starts the transfer, and again when nothing was acknowledged for 5 s."""
        sending = self._sending.get(node_id)
        if sending is None or now - sending.progress_at > STALLED_S:
            sending = self._sending[node_id] = _Sending(snapshot, now)
        meta, pieces = sending.snapshot.meta, sending.snapshot.pieces
        chunks = []
        while sending.sent < meta.size and sending.sent - sending.acked < WINDOW_BYTES:
            piece = pieces[sending.next_piece]
            chunks.append(_chunk(meta, sending.sent, piece, term, round))
            sending.next_piece += 1
            sending.sent += len(piece)
        return chunks

    def moves(self, node_id: str, now: float) -> bool:
        sending = self._sending.get(node_id)
        return sending is not None and now - sending.progress_at < STALLED_S

    def acknowledge(self, node_id: str, received: int, now: float) -> bool:
        """Returns whether this made room for more."""
        sending = self._sending.get(node_id)
        if sending is None or not sending.acked < received <= sending.sent:
            return False
        sending.acked = received
        sending.progress_at = now
        return sending.sent < sending.snapshot.meta.size

    def end(self, node_id: str) -> None:
        self._sending.pop(node_id, None)

    def clear(self) -> None:
        self._sending.clear()


class Incoming:
    """A follower's side: one snapshot at a time, from the current leader."""

    def __init__(self) -> None:
        self._key: tuple[str, int, SnapshotMeta] | None = None
        self._pieces: list[bytes] = []
        self._crc32 = 0
        self.received = 0

    def take(self, node_id: str, chunk: SnapshotChunk) -> Snapshot | None:
        """Returns the snapshot when this was its last piece and all of it is right."""
        meta = SnapshotMeta(chunk.index, chunk.snapshot_term, chunk.configuration, chunk.size, chunk.crc32)
        key = (node_id, chunk.term, meta)
        if chunk.offset == 0 and chunk.size <= SNAPSHOT_BYTES_MAX:
            self.clear()
            self._key = key
        if key != self._key or chunk.offset != self.received or not chunk.data:
            return None
        self._pieces.append(chunk.data)
        # Piece by piece: over all of it at the end, it would take the event loop's time at once.
        self._crc32 = zlib.crc32(chunk.data, self._crc32)
        self.received += len(chunk.data)
        if self.received < meta.size:
            return None
        is_whole = (self.received, self._crc32) == (meta.size, meta.crc32)
        snapshot = Snapshot(meta, tuple(self._pieces)) if is_whole else None
        self.clear()
        return snapshot

    def clear(self) -> None:
        self._key, self._pieces, self._crc32, self.received = None, [], 0, 0


def _chunk(meta: SnapshotMeta, offset: int, data: bytes, term: int, round: int) -> SnapshotChunk:
    return SnapshotChunk(
        term=term,
        round=round,
        index=meta.index,
        snapshot_term=meta.term,
        configuration=meta.configuration,
        size=meta.size,
        crc32=meta.crc32,
        offset=offset,
        data=data,
    )
