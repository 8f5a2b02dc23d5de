from __future__ import annotations

import os
import signal
import threading

import pytest

from engine.runtime.event_loop import EpollPoller, SpawnThreads


@pytest.mark.timeout(20)
def test_a_signals_handler_ends_the_wait() -> None:
    """Python goes on waiting after a handler: a supervisor without work would see SIGTERM seconds later."""
    poller = EpollPoller()
    threads = SpawnThreads(poller, 0)
    before = signal.signal(signal.SIGUSR1, lambda *_: threads.wake())
    try:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        poller.run_once(60)
    finally:
        signal.signal(signal.SIGUSR1, before)
