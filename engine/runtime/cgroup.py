"""Control groups of containers: the interface, and the choice between version 1 and 2.

A container's folder is "<parent>/<container id>" below each hierarchy. Invariant: folders that were not made
here are never changed; a parent that was made here goes when its last container goes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

CGROUP_ROOT = Path("/sys/fs/cgroup")


class Membership(msgspec.Struct, frozen=True):
    """How a new process gets in: `tasks` files to write to (v1) or the folder to be cloned into (v2).

    The descriptors belong to this object until `close`.
    """

    join: tuple[int, ...] = ()
    into: int = -1

    def close(self) -> None:
        for descriptor in (*self.join, *((self.into,) if self.into >= 0 else ())):
            os.close(descriptor)


class Cgroups(Protocol):
    """All operations take the path below the hierarchies and raise OSError with the kernel's reason."""

    def create(self, path: str, resources: Mapping[str, Any]) -> Membership:
        """Make the folders, set the limits of an OCI `linux.resources`."""

    def membership(self, path: str) -> Membership:
        """For a further process in a group that exists."""

    def update(self, path: str, resources: Mapping[str, Any]) -> None: ...

    def freeze(self, path: str) -> None:
        """Returns when all processes are stopped."""

    def thaw(self, path: str) -> None: ...

    def pids(self, path: str) -> list[int]: ...

    def stats(self, path: str) -> dict[str, Any]:
        """Raw counters: cpu_usage_ns, cpu_user_ns, cpu_system_ns, cpu_throttled_ns, cpu_periods,
        cpu_throttled_periods, memory_usage, memory_limit, memory_stats, pids, pids_limit (0: none), blkio (list of
        {major, minor, op, value})."""

    def oom_kills(self, path: str) -> int: ...

    def kill(self, path: str) -> None:
        """SIGKILL to every process that is still in the group."""

    def made_parents(self, path: str) -> tuple[str, ...]:
        """The parents of `path` that were made here, for `adopt` by a successor."""

    def adopt(self, path: str, parents: Sequence[str]) -> None:
        """Folders that an earlier supervisor made: they go with their last container, as our own."""

    def remove(self, path: str) -> bool:
        """Remove the folders; False when a process is still leaving (try again). Missing ones are fine."""


def choose_cgroups(root: Path = CGROUP_ROOT) -> Cgroups:
    """Version 2 where the root is the unified hierarchy, else version 1 (also hybrid)."""
    from engine.runtime.cgroup_v1 import CgroupsV1
    from engine.runtime.cgroup_v2 import CgroupsV2

    if (root / "cgroup.controllers").exists():
        return CgroupsV2(root)
    return CgroupsV1(root)


class Users:
    """Which groups stand below which parents: a parent that was made here goes with its last user.

    Starts run in parallel. Parents are made and removed under `lock`, so that none goes between a start's finding
    it and using it.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._paths: set[str] = set()

    def enter(self, path: str) -> None:
        self._paths.add(path)

    def leave(self, path: str) -> list[str]:
        """The parents that nobody needs any more, innermost first."""
        self._paths.discard(path)
        return [
            parent
            for parent in parents_of(path)
            if not any(other.startswith(f"{parent}/") for other in self._paths)
        ]


def parents_of(path: str) -> Iterator[str]:
    """a/b/c -> a/b, a."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def write(path: str, value: str) -> None:
    """One write(2), as control files need it; OSError names the file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    except OSError as error:
        raise OSError(error.errno, f"{os.strerror(error.errno or 0)}: write {value!r}", path) from None
    finally:
        os.close(descriptor)


def read(path: str) -> str:
    """The content, or "" when the file does not exist (a controller that is not there)."""
    try:
        with open(path) as file:
            return file.read()
    except FileNotFoundError:
        return ""


def number(text: str) -> int:
    """Of a control file; 0 for `max`, and for a file that does not exist."""
    return int(text) if text.strip().isdigit() else 0


def flat_keyed(text: str) -> dict[str, int]:
    """`name number` lines."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
