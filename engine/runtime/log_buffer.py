"""A log that never holds its container up: lines wait in memory for a thread that writes them (mode=non-blocking).

When `limit` bytes wait, further output is dropped and counted, as Docker's ring buffer does; a single portion goes in
whatever its size. A hand-over stops the thread, however long it takes, until `let_go`: what it wrote meanwhile would be
written again by the code that takes over.
"""

from __future__ import annotations

import collections
import threading
import time

from engine.runtime.handover import LogState
from engine.runtime.json_log import JsonLog

HANDED_OVER_S_MAX = 3.0  # for what is being written just then
FINISH_S_MAX = 10.0  # against a disk that hangs: then the container's end is reported without the rest


_Item = tuple[int, int, bytes | None]  # stream, time in ns, data (None: the end)


class BufferedLog:
    """The same verbs as a JsonLog. The thread begins with the first line, or with `let_go`."""

    __slots__ = (
        "_closed",
        "_current",
        "_deadline",
        "_is_held",
        "_limit",
        "_log",
        "_lost",
        "_queue",
        "_ready",
        "_size",
        "_thread",
    )

    def __init__(self, log: JsonLog, limit: int, state: LogState | None = None) -> None:
        self._log = log
        self._limit = limit
        self._queue: collections.deque[_Item] = collections.deque()
        self._queue.extend(state.waiting if state is not None else ())
        self._size = sum(len(data or b"") for _, _, data in self._queue)
        self._ready = threading.Condition()
        self._thread: threading.Thread | None = None
        self._current: _Item | None = None  # what the thread writes just now
        self._closed = False
        self._lost = 0
        self._deadline = 0.0
        self._is_held = state is not None  # a trial writes nothing: it would come twice

    @property
    def lost_bytes(self) -> int:
        return self._lost + self._log.lost_bytes

    def mend(self) -> None:
        self._log.mend()

    def write(self, stream: int, data: bytes) -> None:
        with self._ready:
            if self._queue and self._size + len(data) > self._limit:
                self._lost += len(data)
            else:
                self._size += len(data)
                self._put(stream, data)

    def finish(self, stream: int) -> None:
        with self._ready:
            self._put(stream, None)

    def is_written(self, now: float) -> bool:
        """Asked after the last line: whether all is on its way to the disk, or has had its time."""
        with self._ready:
            if not self._queue and self._current is None:
                return True
            self._deadline = self._deadline or now + FINISH_S_MAX
            return now > self._deadline

    def hand_over(self) -> LogState:
        with self._ready:
            self._is_held = True
            self._ready.wait_for(lambda: self._current is None, HANDED_OVER_S_MAX)
            state = self._log.hand_over()
            # On a disk that hangs, what is being written may come twice: better than not at all.
            state.waiting = [*([] if self._current is None else [self._current]), *self._queue]
            state.lost_bytes += self._lost
            return state

    def let_go(self) -> None:
        """It is this process that goes on writing."""
        with self._ready:
            self._is_held = False
            if self._queue:
                self._wake()

    def close(self) -> None:
        """What was not written by now is lost, and counted."""
        with self._ready:
            self._lost += sum(len(data or b"") for _, _, data in self._queue)
            self._queue.clear()
            self._closed = True
            if self._current is None:
                self._log.close()
            self._ready.notify_all()

    def _put(self, stream: int, data: bytes | None) -> None:
        self._queue.append((stream, time.time_ns(), data))
        self._wake()

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="log writer", daemon=True)
            self._thread.start()
        self._ready.notify_all()

    def _work(self) -> None:
        while (item := self._next()) is not None:
            stream, now_ns, data = item
            if data is None:
                self._log.finish(stream, now_ns)
            else:
                self._log.write(stream, data, now_ns)
            with self._ready:
                self._current = None
                self._ready.notify_all()
                if self._closed:
                    self._log.close()

    def _next(self) -> _Item | None:
        with self._ready:
            while not self._closed:
                if self._queue and not self._is_held:
                    self._current = self._queue.popleft()
                    self._size -= len(self._current[2] or b"")
                    return self._current
                self._ready.wait()
        return None
