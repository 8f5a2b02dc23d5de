"""Chooses the interpreter of start programs: the compiled one, or ctypes where nothing was compiled."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import msgspec

from engine.runtime import interpreter

try:
    from engine.runtime import _spawn
except ImportError:
    _compiled = None
else:
    _compiled = _spawn.spawn

Interpreter = Callable[[bytes, Sequence[int], int, Sequence[int], int, int, int], tuple[int, int, int, int]]
COMPILED: Interpreter | None = _compiled
PORTABLE: Interpreter = interpreter.spawn
JOIN_FAILED = interpreter.JOIN_FAILED


class ProgramFailed(Exception):
    """Operation `index` of the program failed with `errno`; JOIN_FAILED: the cgroup could not be entered."""

    def __init__(self, index: int, errno: int) -> None:
        super().__init__(f"operation {index}: {os.strerror(errno)}")
        self.index = index
        self.errno = errno


class Born(msgspec.Struct, frozen=True):
    """A process that has reached execve. The pidfd belongs to the caller."""

    pid: int
    pidfd: int


def is_parallel() -> bool:
    """Whether several threads may spawn at once; the ctypes interpreter needs a process with one thread."""
    return COMPILED is not None and not os.environ.get("SWARMCTL_PORTABLE_SPAWN")


def spawn(
    packed: bytes,
    registers: Sequence[int],
    *,
    clone_flags: int = 0,
    join: Sequence[int] = (),
    cgroup: int = -1,
    pid_namespace: int = -1,
    own_pid_namespace: int = -1,
) -> Born:
    """Clone, run the program, execute. ProgramFailed when an operation fails, OSError when clone3 does.

    `join`: open `tasks` files (cgroup v1); `cgroup`: a folder's descriptor (v2); the namespaces are
    descriptors of pid namespaces: the one for the child, and this process's own to come back to.
    """
    run = COMPILED if COMPILED is not None and is_parallel() else PORTABLE
    pid, pidfd, index, code = run(
        packed, registers, clone_flags, join, cgroup, pid_namespace, own_pid_namespace
    )
    if code:
        raise ProgramFailed(index, code)
    return Born(pid, pidfd)
