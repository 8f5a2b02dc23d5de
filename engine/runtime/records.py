"""What a supervisor leaves for its successor in the run folder: which processes were its containers.

Written at each start, removed at each end; what a successor does with them is in succession.py.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from pathlib import Path

import msgspec

from engine.runtime.birth import start_ticks
from engine.runtime.cgroup import Cgroups
from engine.runtime.wire import ContainerState

FOLDER_NAME = "containers"
END_TIMEOUT_S = 10.0
EXIT_CODE_LOST = 137


class Record(msgspec.Struct, frozen=True):
    """Enough to find a process again, and to be sure that it is the same one."""

    id: str
    pid: int
    start_ticks: int
    started_at: float
    cgroup: str
    cgroup_parents: tuple[str, ...]  # the ones that were made for it


class Records:
    """The folder of records; one small file per running container."""

    def __init__(self, run_dir: Path) -> None:
        self._folder = run_dir / FOLDER_NAME
        self._folder.mkdir(mode=0o700, exist_ok=True)

    def add(self, record: Record) -> None:
        """Atomic; a crash in between leaves a file that is ignored."""
        half = self._folder / f".{record.id}"
        half.write_bytes(msgspec.msgpack.encode(record))
        half.replace(self._folder / record.id)

    def remove(self, container_id: str) -> None:
        (self._folder / container_id).unlink(missing_ok=True)

    def read(self) -> list[Record]:
        """What an earlier supervisor left; files that it left half-written are removed."""
        found = []
        for path in sorted(self._folder.iterdir()):
            try:
                found.append(msgspec.msgpack.decode(path.read_bytes(), type=Record))
            except msgspec.DecodeError:
                path.unlink()
        return found

    def end(self, record: Record, cgroups: Cgroups) -> ContainerState:
        """Kill it with all its processes; the state of a container that was killed."""
        _end(record, cgroups)
        self.remove(record.id)
        return ContainerState(
            id=record.id,
            pid=record.pid,
            start_ticks=record.start_ticks,
            started_at=record.started_at,
            running=False,
            exit_code=EXIT_CODE_LOST,
            finished_at=time.time(),
        )


def _end(record: Record, cgroups: Cgroups) -> None:
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(record.pid)
        try:
            if start_ticks(record.pid) == record.start_ticks:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                select.select([pidfd], [], [], END_TIMEOUT_S)
        finally:
            os.close(pidfd)
    deadline = time.monotonic() + END_TIMEOUT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            cgroups.thaw(record.cgroup)
            cgroups.kill(record.cgroup)
        if cgroups.remove(record.cgroup):
            return
        time.sleep(0.005)
