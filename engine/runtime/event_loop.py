"""The supervisor's event loop: one epoll, and a few threads whose results come back to it."""

from __future__ import annotations

import collections
import contextlib
import os
import queue
import select
import threading
from collections.abc import Callable

from engine.runtime.supervised import Poller

THREAD_STACK_BYTES = 256 * 1024

Job = Callable[[], Callable[[], None]]


class EpollPoller(Poller):
    """Descriptor -> callback on one epoll."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, tuple[int, Callable[[], None]]] = {}

    def watch(self, descriptor: int, on_readable: Callable[[], None]) -> None:
        self._set(descriptor, select.EPOLLIN, on_readable)

    def watch_writable(self, descriptor: int, on_writable: Callable[[], None]) -> None:
        self._set(descriptor, select.EPOLLOUT, on_writable)

    def watch_both(self, descriptor: int, callback: Callable[[], None]) -> None:
        self._set(descriptor, select.EPOLLIN | select.EPOLLOUT, callback)

    def forget(self, descriptor: int) -> None:
        if self._callbacks.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def run_once(self, timeout_s: float) -> None:
        for descriptor, _ in self._epoll.poll(timeout_s):
            known = self._callbacks.get(descriptor)
            if known is not None:
                known[1]()

    def _set(self, descriptor: int, mask: int, callback: Callable[[], None]) -> None:
        known = self._callbacks.get(descriptor)
        self._callbacks[descriptor] = (mask, callback)
        if known is None:
            self._epoll.register(descriptor, mask)
        elif known[0] != mask:
            self._epoll.modify(descriptor, mask)


class SpawnThreads:
    """Runs jobs in parallel; each returns what the main thread has to do next."""

    def __init__(self, poller: EpollPoller, count: int) -> None:
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._done: collections.deque[Callable[[], None]] = collections.deque()
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._inline = count == 0
        self._unfinished = 0
        poller.watch(self._wakeup, self._collect)
        self._count = count

    def start(self) -> None:
        """Containers inherit the signal mask of these threads: they start when it is what it has to be."""
        threading.stack_size(THREAD_STACK_BYTES)
        for number in range(self._count):
            threading.Thread(target=self._work, name=f"spawn{number}", daemon=True).start()

    @property
    def is_idle(self) -> bool:
        """Nothing runs in a thread, and no result waits."""
        return self._unfinished == 0

    def submit(self, job: Job) -> None:
        if self._inline:
            job()()
        else:
            self._unfinished += 1
            self._jobs.put(job)

    def wake(self) -> None:
        """Whoever waits in the poller looks up, also from a signal's handler: the wait itself goes on after one."""
        os.eventfd_write(self._wakeup, 1)

    def _work(self) -> None:
        while True:
            self._done.append(self._jobs.get()())
            self.wake()

    def _collect(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wakeup)
        while self._done:
            self._unfinished -= 1
            self._done.popleft()()
