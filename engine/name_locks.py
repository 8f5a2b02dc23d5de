"""One lock for each name, for as long as somebody holds or wants it. For threads."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class NameLocks:
    """Work on one name is done one after the other, on different names at once."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[str, tuple[threading.RLock, int]] = {}

    @contextlib.contextmanager
    def held(self, name: str) -> Iterator[None]:
        with self._guard:
            lock, wanted = self._locks.get(name) or (threading.RLock(), 0)
            self._locks[name] = (lock, wanted + 1)
        try:
            with lock:
                yield
        finally:
            with self._guard:
                lock, wanted = self._locks[name]
                if wanted == 1:
                    del self._locks[name]
                else:
                    self._locks[name] = (lock, wanted - 1)
