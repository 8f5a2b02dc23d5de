"""SIGUSR1: what every thread and every task is doing right now, into a file of the run folder.

The threads are written by the signal's handler in C, so also when the event loop is stuck; the tasks follow as
soon as the loop goes on.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import signal
import time
from pathlib import Path

logger = logging.getLogger(__name__)

FILE_NAME = "stacks.log"
FRAMES_MAX = 12


class StackDump:
    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / FILE_NAME
        self._file = self.path.open("w", encoding="utf-8")
        self.path.chmod(0o600)

    def register(self) -> None:
        """After the event loop's own handler, which is called in turn."""
        faulthandler.register(signal.SIGUSR1, file=self._file, all_threads=True, chain=True)

    def write_tasks(self) -> None:
        tasks = asyncio.all_tasks()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._file.write(f"\n{stamp}: the threads are above; {len(tasks)} tasks:\n")
        for task in sorted(tasks, key=lambda task: task.get_name()):
            task.print_stack(limit=FRAMES_MAX, file=self._file)
        self._file.flush()
        logger.info("stacks of all threads and tasks are in %s", self.path)

    def close(self) -> None:
        faulthandler.unregister(signal.SIGUSR1)
        self._file.close()
