"""The Raft log as the engine sees it: a list of entries in memory, each also a record of the WAL.

It has the method names that PySyncObj calls on its journal. Entry 0 is the base: an entry whose command is
never looked at again, there for its index and term. Invariants: indexes have no gaps; nothing at or below
the base is ever removed; only `sync` makes changes durable.
"""

from __future__ import annotations

from typing import overload

from raft.wal import Entry, Recovered, Reset, Truncate, Vote, Wal

LogEntry = tuple[bytes, int, int]  # command, index, term


class Log:
    def __init__(self, wal: Wal, state: Recovered) -> None:
        self._wal = wal
        self._entries: list[LogEntry] = [(b"", state.base, state.base_term)]
        self._entries.extend((entry.command, entry.index, entry.term) for entry in state.entries)
        self._term = state.term
        self._voted_for = state.voted_for
        self._vote_dirty = False

    @property
    def base(self) -> int:
        return self._entries[0][1]

    @property
    def last(self) -> int:
        return self._entries[-1][1]

    def term_at(self, index: int) -> int | None:
        """None outside of base..last."""
        position = index - self.base
        return self._entries[position][2] if 0 <= position < len(self._entries) else None

    def first_of_term(self, index: int) -> int:
        """The lowest index in the log that has the same term as the entry at `index`, without a break."""
        position = index - self.base
        term = self._entries[position][2]
        while position > 0 and self._entries[position - 1][2] == term:
            position -= 1
        return self._entries[position][1]

    def keep_from(self, index: int, entries_max: int, bytes_max: int) -> int:
        """Where to compact to after a snapshot at `index`, for followers that are a little behind."""
        position = index - self.base
        lowest, kept = max(0, position - entries_max), 0
        while position > lowest and kept <= bytes_max:
            kept += len(self._entries[position][0])
            position -= 1
        return self._entries[position][1]

    def reset(self, index: int, term: int) -> None:
        """A snapshot up to `index` replaced the log; a suffix that matches it is kept."""
        if self.base <= index <= self.last and self.term_at(index) == term:
            self.compact(index)
            return
        self._entries = [(b"", index, term)]
        self._wal.append(Reset(index, term))

    def compact(self, index: int) -> None:
        """Forget entries below `index`, which becomes the base; a durable snapshot must cover it."""
        if index <= self.base:
            return
        assert index <= self.last
        del self._entries[: index - self.base]
        self._wal.drop_until(index)

    def remove_dropped(self) -> None:
        """Delete the files that compaction made obsolete; may run in a thread. Raises OSError."""
        self._wal.remove_dropped()

    @property
    def vote_dirty(self) -> bool:
        """The term or the vote changed since the last sync."""
        return self._vote_dirty

    def sync(self) -> None:
        """Raises OSError: nothing that depends on unsynced entries, term or vote may be promised."""
        self._wal.sync()
        self._vote_dirty = False

    def close(self) -> None:
        self._wal.close()

    # ---- PySyncObj's journal ----

    def add(self, command: bytes, idx: int, term: int) -> None:
        assert idx == self.last + 1
        self._entries.append((command, idx, term))
        self._wal.append(Entry(idx, term, command))

    def deleteEntriesFrom(self, position: int) -> None:
        assert position > 0
        del self._entries[position:]
        self._wal.append(Truncate(self._entries[-1][1], self._entries[-1][2]))

    @overload
    def __getitem__(self, item: int) -> LogEntry: ...
    @overload
    def __getitem__(self, item: slice) -> list[LogEntry]: ...
    def __getitem__(self, item: int | slice) -> LogEntry | list[LogEntry]:
        return self._entries[item]

    def __len__(self) -> int:
        return len(self._entries)

    def setCurrentTerm(self, term: int, voted_for: str | None) -> None:
        if (term, voted_for) != (self._term, self._voted_for):
            self._term, self._voted_for = term, voted_for
            self._wal.append(Vote(term, voted_for))
            self._vote_dirty = True

    def getCurrentTerm(self) -> int:
        return self._term

    def getVotedForNodeId(self) -> str | None:
        return self._voted_for

    def getRaftCommitIndex(self) -> int:
        """Not stored: a restarted manager learns it from the leader, or by becoming the leader."""
        return self.base

    def setRaftCommitIndex(self, index: int) -> None:
        assert index <= self.last

    def onOneSecondTimer(self) -> None:
        """PySyncObj flushes its journals here; this one is flushed by `sync`."""

    def _destroy(self) -> None:
        self.close()
