"""A container's first process made by another OCI runtime (runc, crun), and still a child of the supervisor.

`create` runs as our child with the container's streams; the process that it leaves behind comes to us, because orphans of
our children are ours while it runs (PR_SET_CHILD_SUBREAPER). From then on it is a container like any other: its pipes,
its exit code and its control group are the supervisor's, execs are made here. Blocking; called in spawn threads.
Invariant: a start that fails leaves nothing of the runtime's behind. Refused says why, in the runtime's words.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.runtime import syscalls, terminal
from engine.runtime.connections import Refused
from engine.runtime.wire import ForeignStart

CREATES_WITHIN_S, STARTS_WITHIN_S = 60.0, 30.0
_UNIFIED = "/sys/fs/cgroup/unified"
# crun refuses hosts that have both versions of control groups: it does not see the second one.
_WITHOUT_UNIFIED = (
    "unshare",
    "--mount",
    "--propagation",
    "slave",
    "sh",
    "-c",
    f'umount -l {_UNIFIED}; exec "$@"',
    "sh",
)


class Reaper:
    """Orphans come to this process while somebody in it waits for one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting = 0

    @contextlib.contextmanager
    def adopting(self) -> Iterator[None]:
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._lock:
            self._waiting += change
            syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, int(self._waiting > 0), 0, 0, 0)


_REAPER = Reaper()


def run(
    container_id: str,
    start: ForeignStart,
    streams: Sequence[int],
    console_size: tuple[int, int] | None,
    *,
    tty: bool,
) -> tuple[int, int, int | None]:
    """(pid, pidfd, master of the terminal or None). `streams`: the three that the process gets without a terminal."""
    bundle = Path(start.bundle)
    log, pid_file = bundle / "runtime.log", bundle / "pid"
    command = [*start.command, "--log", str(log), "--log-format", "json"]
    words = ["create", "--bundle", str(bundle), "--pid-file", str(pid_file)]
    master = None
    for leftover in (log, pid_file):
        leftover.unlink(missing_ok=True)
    _delete(start, container_id)
    try:
        with _REAPER.adopting():
            if tty:
                with _Console(bundle) as console:
                    options = ["--console-socket", str(console.path)]
                    _call([*command, *words, *options, container_id], log, streams, CREATES_WITHIN_S)
                    master = console.take()
            else:
                _call([*command, *words, container_id], log, streams, CREATES_WITHIN_S)
            pid = int(pid_file.read_text())
        pidfd = os.pidfd_open(pid)
        if master is not None and console_size is not None:
            terminal.set_size(master, *console_size)
    except BaseException:
        if master is not None:
            os.close(master)
        _delete(start, container_id)
        raise
    try:
        null = [streams[0]] * 3 if tty else list(streams)
        _call([*command, "start", container_id], log, null, STARTS_WITHIN_S)
    except BaseException:
        _delete(start, container_id)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)
        if master is not None:
            os.close(master)
        raise
    return pid, pidfd, master


def delete_command(start: ForeignStart, container_id: str) -> list[str]:
    return [*_seeing(start.command), "delete", "--force", container_id]


def _delete(start: ForeignStart, container_id: str) -> None:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        null = subprocess.DEVNULL
        command = delete_command(start, container_id)
        subprocess.run(command, stdin=null, stdout=null, stderr=null, timeout=STARTS_WITHIN_S)


def _call(command: Sequence[str], log: Path, streams: Sequence[int], within_s: float) -> None:
    stdin, stdout, stderr = streams
    try:
        done = subprocess.run(
            _seeing(command),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            timeout=within_s,
            start_new_session=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Refused(f"{command[0]}: {error}") from error
    if done.returncode:
        raise Refused(_said(log) or f"{command[0]} ended with {done.returncode} and said nothing")


def _seeing(command: Sequence[str]) -> list[str]:
    hides = Path(command[0]).name == "crun" and os.path.ismount(_UNIFIED)
    return [*(_WITHOUT_UNIFIED if hides else ()), *command]


def _said(log: Path) -> str:
    """The last error of the runtime's log."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        for line in reversed(log.read_text().splitlines()):
            entry = json.loads(line)
            if entry.get("level") == "error":
                return str(entry.get("msg", ""))
    return ""


class _Console:
    """The socket that the runtime sends a terminal to; its path goes through an open folder, because it must be short."""

    def __init__(self, folder: Path) -> None:
        self._folder = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.path = Path(f"/proc/{os.getpid()}/fd/{self._folder}/console")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)

    def __enter__(self) -> _Console:
        self.path.unlink(missing_ok=True)
        self._listener.bind(str(self.path))
        self._listener.listen(1)
        self._listener.settimeout(CREATES_WITHIN_S)
        return self

    def take(self) -> int:
        connection, _ = self._listener.accept()
        with connection:
            _, descriptors, _, _ = socket.recv_fds(connection, 4096, 1)
        if not descriptors:
            raise Refused("the runtime sent no terminal")
        os.set_blocking(descriptors[0], False)
        os.set_inheritable(descriptors[0], False)
        return descriptors[0]

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.path.unlink(missing_ok=True)
        os.close(self._folder)
