"""What the daemon keeps so that containers survive their supervisor: descriptors, and the ends of processes.

A pipe whose last reader dies ends its writer (EPIPE), and a terminal hangs up. So the daemon holds a duplicate
of each container's descriptors, and a successor of the supervisor gets them. It is also the reaper of what a
supervisor leaves behind: it is a child subreaper, an orphan's parent if the supervisor was its child.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from engine.runtime import syscalls
from engine.runtime.birth import exit_code_of
from engine.runtime.wire import Estate

logger = logging.getLogger(__name__)

SWEEP_S = 30.0
_STATUS_WAIT_S = 2.0
_STATUS_POLL_S = 0.02


class Held(msgspec.Struct):
    estate: Estate
    descriptors: list[int]

    @property
    def pidfd(self) -> int:
        return self.descriptors[0]


class RunningExec(msgspec.Struct):
    container_id: str
    pid: int
    pidfd: int


class Custody:
    """Owns its descriptors. Not thread-safe: of the event loop."""

    def __init__(self) -> None:
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
        self._held: dict[str, Held] = {}
        self._execs: dict[str, RunningExec] = {}
        self._filters: dict[bytes, bytes] = {}
        self._watched: set[int] = set()
        self._tasks: set[asyncio.Future[None]] = set()

    # ---- containers ---------------------------------------------------------------------------------------

    def keep(self, estate: Estate, descriptors: list[int]) -> None:
        self.drop(estate.id)
        shared = self._filters.setdefault(estate.seccomp, estate.seccomp)  # most have the same one
        self._held[estate.id] = Held(msgspec.structs.replace(estate, seccomp=shared), descriptors)

    def has(self, container_id: str) -> bool:
        return container_id in self._held

    def duplicate(self, container_id: str) -> tuple[Estate, tuple[int, ...]] | None:
        """For a successor: the descriptors belong to the caller."""
        held = self._held.get(container_id)
        if held is None:
            return None
        return held.estate, tuple(os.dup(descriptor) for descriptor in held.descriptors)

    def drop(self, container_id: str) -> None:
        held = self._held.pop(container_id, None)
        if held is not None:
            self._close(held.descriptors)

    def watch(self, container_id: str, ended: Callable[[int], None]) -> None:
        """After an adoption: `ended` is called with the exit code if this process turns out to be its parent."""
        held = self._held[container_id]

        def readable() -> None:
            self._unwatch(held.pidfd)
            code = _reap(held.pidfd)
            if code is not None:
                ended(code)

        self._watch(held.pidfd, readable)

    # ---- execs --------------------------------------------------------------------------------------------

    def keep_exec(self, exec_id: str, running: RunningExec) -> None:
        self.drop_exec(exec_id)
        self._execs[exec_id] = running

    def has_exec(self, exec_id: str) -> bool:
        return exec_id in self._execs

    def drop_exec(self, exec_id: str) -> None:
        running = self._execs.pop(exec_id, None)
        if running is not None:
            self._close([running.pidfd])

    def watch_execs(self, ended: Callable[[str, RunningExec, int], None]) -> None:
        """Their supervisor is gone and no other can know of their ends: `ended` is called for each."""

        async def wait(exec_id: str, running: RunningExec) -> None:
            code = _reap(running.pidfd)
            if code is None:
                code = await _foreign_exit_code(running.pidfd)
            if self._execs.get(exec_id) is running:
                ended(exec_id, running, code)

        def readable(exec_id: str, running: RunningExec) -> None:
            self._unwatch(running.pidfd)
            task = asyncio.ensure_future(wait(exec_id, running))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        for exec_id, running in self._execs.items():
            self._watch(running.pidfd, lambda e=exec_id, r=running: readable(e, r))  # type: ignore[misc]

    # ---- inside -------------------------------------------------------------------------------------------

    def close(self) -> None:
        for container_id in tuple(self._held):
            self.drop(container_id)
        for exec_id in tuple(self._execs):
            self.drop_exec(exec_id)

    def _close(self, descriptors: list[int]) -> None:
        for descriptor in descriptors:
            self._unwatch(descriptor)
            os.close(descriptor)

    def _watch(self, descriptor: int, callback: Callable[[], None]) -> None:
        asyncio.get_running_loop().add_reader(descriptor, callback)
        self._watched.add(descriptor)

    def _unwatch(self, descriptor: int) -> None:
        if descriptor in self._watched:
            self._watched.discard(descriptor)
            asyncio.get_running_loop().remove_reader(descriptor)


def _reap(pidfd: int) -> int | None:
    """The exit code; None when the process is not a child of this one."""
    try:
        info = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return None
    return None if info is None else exit_code_of(info)


async def _foreign_exit_code(pidfd: int) -> int:
    """Of a process that somebody else reaps; 255 when the kernel does not tell."""
    for _ in range(int(_STATUS_WAIT_S / _STATUS_POLL_S)):
        status = syscalls.pidfd_exit_status(pidfd)
        if status is not None:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        await asyncio.sleep(_STATUS_POLL_S)
    return 255


async def reap_forgotten() -> None:
    """For ever: zombies that nobody waits for, seen in two sweeps in a row, so that no waiter is robbed."""
    seen: set[int] = set()
    while True:
        await asyncio.sleep(SWEEP_S)
        zombies = set(_zombie_children())
        for pid in zombies & seen:
            _forget(pid)
        seen = zombies - seen


def _forget(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _zombie_children() -> Iterator[int]:
    for thread in os.listdir("/proc/self/task"):  # noqa: PTH208 - names, of which some may be gone by now
        with contextlib.suppress(OSError):
            for pid in map(int, Path(f"/proc/self/task/{thread}/children").read_text().split()):
                with contextlib.suppress(OSError):
                    if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                        yield pid
