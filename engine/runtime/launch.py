"""Finding the supervisor of a run folder, and starting one; which code that is (`Installation`)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import sys
from pathlib import Path

import msgspec

from engine.runtime import wire
from engine.runtime.wire import Release

START_TIMEOUT_S = 10.0


class Installation(msgspec.Struct, frozen=True):
    """Where a supervisor's code is: an interpreter, the folders that `engine` and msgspec are in, our version."""

    interpreter: str
    folders: tuple[str, ...]
    version: str

    def release(self) -> Release:
        code = self.import_statements() + "sys.exit(main(sys.argv[1:]))"
        return Release([self.interpreter, "-I", "-S", "-c", code], self._build())

    def import_statements(self) -> str:
        """What an isolated Python without site-packages runs first: it sees this installation and msgspec, no more.

        Without typing_extensions, which msgspec prefers to the typing module: it brings a megabyte with it.
        """
        return (
            f"import sys; sys.path[:0] = {list(self.folders)!r}; sys.modules['typing_extensions'] = None; "
            "from engine.runtime.supervisor import main; "
        )

    def _build(self) -> str:
        """Read anew each time: an upgrade replaces files while the daemon runs."""
        checksum = hashlib.sha256(f"{self.interpreter} {sys.version} {msgspec.__version__}".encode())
        for path in sorted(Path(self.folders[0], "engine/runtime").iterdir()):
            if path.suffix in (".py", ".so"):
                checksum.update(b"%s\0%s\0" % (path.name.encode(), path.read_bytes()))
        return f"{self.version}+{checksum.hexdigest()[:12]}"


def this_installation(version: str) -> Installation:
    """The one that this process runs."""
    origins = (_package_file("engine"), msgspec.__file__)
    folders = tuple(dict.fromkeys(str(Path(origin).parent.parent) for origin in origins))
    return Installation(sys.executable, folders, version)


async def launch(run_dir: Path, release: Release) -> None:
    """Start a supervisor; returns when its socket is there (or another one's is)."""
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(reading, ready.set)
    try:
        _launch_process(run_dir, release, writing)
        os.close(writing)
        writing = -1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_TIMEOUT_S):
                await ready.wait()
    finally:
        loop.remove_reader(reading)
        os.close(reading)
        if writing >= 0:
            os.close(writing)


def dial(run_dir: Path) -> socket.socket | None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.connect(str(run_dir / wire.SOCKET_NAME))
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    return sock


def _launch_process(run_dir: Path, release: Release, ready: int) -> None:
    arguments = release.arguments(str(run_dir))
    log_flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, ready, 1),
        (os.POSIX_SPAWN_OPEN, 2, str(run_dir / wire.LOG_NAME), log_flags, 0o600),
    ]
    os.posix_spawn(arguments[0], arguments, os.environ, file_actions=actions, setsid=True)


def _package_file(name: str) -> str:
    origin = sys.modules[name].__file__
    assert origin is not None
    return origin


def reap(pid: int) -> None:
    """The supervisor is our child when we started it: leave no zombie."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
