"""The processes of a node: found in /proc by marker, cgroup and namespace, never by name alone; ended by pid.

A pid is only signalled after its process was looked at in the same pass. Our own process and its parents are
never counted, so that `lab exec n1 swarmctl lab kill n1` does not kill its caller before the work is done.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from node.lab.model import MARKER, LabError, LabNode

_END_SECONDS = 15.0
_PROC = Path("/proc")
_SUPERVISOR = "swarmctl-supervisor"  # its last argument
_DAEMON = "node.main"  # among the first


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _is_alive(pid: int) -> bool:
    """Neither gone nor a zombie that nobody has waited for."""
    status = _read(_PROC / str(pid) / "stat")
    return bool(status) and status.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


def _all_pids() -> list[int]:
    ours = _own_line()
    return [pid for path in _PROC.iterdir() if path.name.isdigit() and (pid := int(path.name)) not in ours]


def _own_line() -> set[int]:
    """Our pid and those of all our parents."""
    line, pid = set(), os.getpid()
    while pid > 0 and pid not in line:
        line.add(pid)
        fields = _read(_PROC / str(pid) / "stat").rpartition(b")")[2].split()
        pid = int(fields[1]) if len(fields) > 1 else 0
    return line


def _arguments(pid: int) -> list[str]:
    return _read(_PROC / str(pid) / "cmdline").decode(errors="replace").rstrip("\0").split("\0")


def _carries_marker(pid: int, node: LabNode) -> bool:
    wanted = f"{MARKER}={node.marker}".encode()
    return wanted in _read(_PROC / str(pid) / "environ").split(b"\0")


def _names_run_dir(arguments: list[str], node: LabNode) -> bool:
    run_dir = str(node.run_dir)
    return any(word == run_dir or f"{run_dir}/" in word or word.endswith(f"={run_dir}") for word in arguments)


def is_supervisor(pid: int) -> bool:
    return _arguments(pid)[-1:] == [_SUPERVISOR]


def daemon_pids(node: LabNode) -> list[int]:
    """Supervisor first, then swarmd and whatever else the daemon keeps running; no containers."""
    contained = set(container_pids(node))
    found = [
        pid
        for pid in _all_pids()
        if pid not in contained
        and _is_alive(pid)
        and (_carries_marker(pid, node) or _is_daemon_program(pid, node))
    ]
    return sorted(found, key=lambda pid: (not is_supervisor(pid), pid))


def _is_daemon_program(pid: int, node: LabNode) -> bool:
    """For a process that cleared its environment: one of ours that was told this node's run folder."""
    arguments = _arguments(pid)
    is_ours = _DAEMON in arguments[:8] or is_supervisor(pid)
    return is_ours and _names_run_dir(arguments, node)


def swarmd_pids(node: LabNode) -> list[int]:
    return [pid for pid in daemon_pids(node) if not is_supervisor(pid)]


# --- cgroups ---


def cgroup_mounts() -> list[Path]:
    """Mount points of all cgroup hierarchies, version 1 and 2."""
    mounts = []
    for line in _read(_PROC / "self" / "mountinfo").decode().splitlines():
        fields = line.split()
        if fields[fields.index("-") + 1] in ("cgroup", "cgroup2"):
            mounts.append(Path(fields[4]))
    return mounts


def cgroup_folders(node: LabNode) -> list[Path]:
    return [folder for mount in cgroup_mounts() if (folder := mount / node.cgroup).is_dir()]


def _files_below(folder: Path, name: str) -> Iterator[Path]:
    """Control groups come and go while they are listed: what has gone is left out."""
    for path, _, files in os.walk(folder):
        if name in files:
            yield Path(path, name)


def container_pids(node: LabNode) -> list[int]:
    ours = _own_line()
    found: set[int] = set()
    for folder in cgroup_folders(node):
        for procs in _files_below(folder, "cgroup.procs"):
            with contextlib.suppress(ValueError):
                found.update(int(line) for line in _read(procs).split())
    return sorted(pid for pid in found - ours if pid > 0 and _is_alive(pid))


def _thaw(node: LabNode) -> None:
    """A frozen process does not die of SIGKILL in a version 1 hierarchy."""
    for folder in cgroup_folders(node):
        for name, value in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
            for file in _files_below(folder, name):
                with contextlib.suppress(OSError):
                    file.write_text(value)


def remove_cgroups(node: LabNode) -> None:
    """The folders of a node without processes, deepest first; emptying may take the kernel a moment."""
    deadline = time.monotonic() + _END_SECONDS
    while True:
        for folder in cgroup_folders(node):
            for path, _, _ in os.walk(folder, topdown=False):
                with contextlib.suppress(OSError):
                    Path(path).rmdir()
        left = cgroup_folders(node)
        if not left:
            break
        if time.monotonic() > deadline:
            raise LabError(
                f"cgroups of {node.marker} cannot be removed: {left[0]}", hint="is a process left in it?"
            )
        time.sleep(0.05)
    for mount in cgroup_mounts():
        # The common parent goes with its last node.
        with contextlib.suppress(OSError):
            (mount / "swarmctl").rmdir()


# --- ending ---


def namespace_pids(node: LabNode) -> list[int]:
    """Processes whose network namespace is the node's, such as shells of `lab exec`."""
    try:
        wanted = node.netns_path.stat().st_ino
    except OSError:
        return []
    found = []
    for pid in _all_pids():
        with contextlib.suppress(OSError):
            if (_PROC / str(pid) / "ns" / "net").stat().st_ino == wanted and _is_alive(pid):
                found.append(pid)
    return found


def kill_daemon(node: LabNode) -> list[int]:
    """kill -9 of swarmd; supervisor and containers run on."""
    pids = swarmd_pids(node)
    _kill(pids)
    _wait_gone(node, lambda: swarmd_pids(node))
    return pids


def kill_everything(node: LabNode) -> list[int]:
    """kill -9 of the supervisor, swarmd, containers and all in the node's namespace; returns the pids."""
    killed: list[int] = []

    def rest() -> list[int]:
        # The daemon first: nobody may record that containers ended, as nobody could in a power cut.
        return [*daemon_pids(node), *container_pids(node), *namespace_pids(node)]

    def strike() -> list[int]:
        pids = rest()
        killed.extend(pid for pid in pids if pid not in killed)
        _kill(pids)
        _thaw(node)
        return pids

    _wait_gone(node, strike)
    return killed


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _wait_gone(node: LabNode, rest: Callable[[], list[int]]) -> None:
    deadline = time.monotonic() + _END_SECONDS
    while left := rest():
        if time.monotonic() > deadline:
            raise LabError(f"processes of {node.marker} do not end: {left}")
        time.sleep(0.02)
