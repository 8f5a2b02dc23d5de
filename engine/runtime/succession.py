"""When a supervisor takes the place of one that died: which containers there were, adopting or ending them.

A successor cannot become their parent. What it needs to go on, descriptors above all, the daemon has kept
(`custody`) and hands over; a container that nobody can hand over is ended, because its output has no reader
and it would run on unknown to the engine. Lost is only what the dead one had read and not yet written: at
most one portion of output.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence

from engine.runtime import syscalls
from engine.runtime.birth import start_ticks
from engine.runtime.cgroup import Cgroups
from engine.runtime.records import Record, Records
from engine.runtime.supervised import Container, Poller
from engine.runtime.wire import ContainerState, Estate

EXIT_CODE_UNKNOWN = 255
STATUS_WAIT_S = 6.0  # for a busy daemon to tell, where the kernel does not: before Linux 6.15


class Succession:
    """The containers of a predecessor, until each is adopted or ended."""

    def __init__(
        self, records: Records, cgroups: Cgroups, orphans: Iterable[Record], strangers: Mapping[str, float]
    ) -> None:
        """`strangers`: see `await_status`; container -> until when."""
        self._records = records
        self._cgroups = cgroups
        self._orphans = {record.id: record for record in orphans}
        for record in self._orphans.values():
            cgroups.adopt(record.cgroup, record.cgroup_parents)
        self._strangers = dict(strangers)

    @property
    def orphans(self) -> list[str]:
        return sorted(self._orphans)

    def waiting(self) -> tuple[list[Record], dict[str, float]]:
        """The two arguments of a succession that goes on from here."""
        return list(self._orphans.values()), dict(self._strangers)

    def adopt(self, estate: Estate, descriptors: Sequence[int], poller: Poller) -> Container | None:
        """None, and the descriptors are closed, when there is no such orphan or it is another process by now.

        One that has ended in the meantime is adopted as well: its last output and its exit code are of interest.
        """
        record = self._orphans.get(estate.id)
        same = record is not None and (record.pid, record.start_ticks) == (estate.pid, estate.start_ticks)
        if not same or start_ticks(estate.pid) not in (0, estate.start_ticks):
            for descriptor in descriptors:
                os.close(descriptor)
            return None
        del self._orphans[estate.id]
        return Container.adopted(estate, descriptors, poller)

    def settle(self) -> list[ContainerState]:
        """End the orphans that are left."""
        ended = [self._records.end(record, self._cgroups) for record in self._orphans.values()]
        self._orphans.clear()
        return ended

    # ---- exit codes of processes that somebody else reaps --------------------------------------------------

    @property
    def is_waiting(self) -> bool:
        return bool(self._strangers)

    def await_status(self, container: Container) -> None:
        """It has ended and is not our child: its parent, or else the kernel, will tell how."""
        self._strangers[container.id] = time.monotonic() + STATUS_WAIT_S

    def told(self, container_id: str) -> None:
        self._strangers.pop(container_id, None)

    def statuses(self, containers: dict[str, Container], now: float) -> list[tuple[Container, int]]:
        """Those whose exit code is known by now, or will never be."""
        known = []
        for container_id, deadline in tuple(self._strangers.items()):
            container = containers[container_id]
            status = syscalls.pidfd_exit_status(container.pidfd)
            if status is not None:
                code = os.waitstatus_to_exitcode(status)
                known.append((container, code if code >= 0 else 128 - code))
            elif now > deadline:
                known.append((container, EXIT_CODE_UNKNOWN))
        for container, _ in known:
            self.told(container.id)
        return known
