"""Fixtures that start the real thing: one daemon in a network namespace of its own, or a lab of several.

Everything is made below a temporary folder and taken away afterwards, also when a test fails.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import BIN, PATIENCE, ROOT, SWARMCTL, Result, run
from tests.labs import Lab, lab_of

READY_S = max(120.0, 40.0 * PATIENCE)  # only against waiting for ever


@pytest.fixture(scope="session")
def hello_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example image, as `image load` reads it."""
    path = tmp_path_factory.mktemp("images") / "hello.tar"
    subprocess.run([sys.executable, ROOT / "examples/hello/build.py", path], check=True)
    return path


class HostDaemon:
    """One swarmd in its own network namespace. `run` is our CLI."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.options = options  # more of swarmd's
        self.root, self.run_dir = folder / "root", folder / "run"
        self.socket = self.run_dir / "swarmd.sock"
        self.cgroup = f"swarmctl-test/{uuid.uuid4().hex[:8]}"
        self.log = folder / "swarmd.log"
        self._keeper = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "ip link set lo up; exec sleep 100000"]
        )
        self._process: subprocess.Popen[bytes] | None = None
        own = Path("/proc/self/ns/net").readlink()
        deadline = time.monotonic() + READY_S
        # Until it has left our namespace, entering "its" namespace would be staying in ours.
        theirs = Path(f"/proc/{self._keeper.pid}/ns/net")
        while theirs.readlink() == own or not self._loopback_is_up():
            assert time.monotonic() < deadline, "unshare does not come up"
            time.sleep(0.01)

    def _loopback_is_up(self) -> bool:
        return "LOWER_UP" in self._command([*self.namespaces, "ip", "link", "show", "lo"], "").out

    @property
    def namespaces(self) -> list[str]:
        return ["nsenter", f"--net=/proc/{self._keeper.pid}/ns/net"]

    @property
    def pid(self) -> int:
        """Of the daemon, which runs."""
        assert self._process is not None
        return self._process.pid

    def start(self, *options: str, umask: int = -1) -> None:
        settings = () if "--config-file" in options else ("--config-file", os.devnull)  # not the machine's
        command = [
            *self.namespaces,
            *(str(BIN / "swarmd"), *settings, "--root", str(self.root), "--run-dir", str(self.run_dir)),
            *("--cgroup-parent", self.cgroup, "--hostname", "host1", "--advertise-addr", "127.0.0.1"),
            *self.options,
            *options,
        ]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, umask=umask)
        deadline = time.monotonic() + READY_S
        while not self._answers():
            assert self._process.poll() is None, f"swarmd ended:\n{self.log.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"swarmd does not answer:\n{self.log.read_text()[-3000:]}"
            time.sleep(0.02)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection, contextlib.suppress(OSError):
            connection.settimeout(5)
            connection.connect(str(self.socket))
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(100)
        return False

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal the daemon and wait for its end; containers run on."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(20 * PATIENCE)

    def run(self, *words: str, text: str = "") -> Result:
        return self._command([SWARMCTL, *words], text)

    def inside(self, *words: str) -> Result:
        """A command in the daemon's own network namespace."""
        return self._command([*self.namespaces, *words], "")

    def ok(self, *words: str, text: str = "") -> str:
        result = self.run(*words, text=text)
        assert result.code == 0, f"swarmctl {' '.join(words)}: {result.err}\n{self.log.read_text()[-2000:]}"
        return result.out.strip()

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            if containers := self.run("ps", "-aq").out.split():
                self.run("rm", "-f", "-v", *containers)
            self.stop()
        for pid in processes(f"engine.runtime.supervisor|{self.run_dir}"):
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 10 * PATIENCE
        while processes(f"engine.runtime.supervisor|{self.run_dir}") and time.monotonic() < deadline:
            time.sleep(0.02)
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            if line.split()[4].startswith(f"{self.folder}/"):
                subprocess.run(["umount", "-l", line.split()[4]], check=True)
        self._keeper.kill()
        self._keeper.wait()
        _remove_cgroups(self.cgroup)

    def _command(self, words: list[str], text: str) -> Result:
        hosts = dict.fromkeys(("DOCKER_HOST", "SWARMCTL_HOST"), f"unix://{self.socket}")
        return run(words, text, os.environ | hosts)


def processes(words: str) -> list[int]:
    """Pids whose command line has all the words (separated by |)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if all(word in line for word in words.split("|")):
                found.append(int(entry.name))
    return found


def cgroup_hierarchies() -> list[Path]:
    """The unified one (version 2), or one per controller (version 1)."""
    root = Path("/sys/fs/cgroup")
    return [root] if (root / "cgroup.controllers").exists() else list(root.iterdir())


def _remove_cgroups(parent: str) -> None:
    for hierarchy in cgroup_hierarchies():
        top = hierarchy / parent
        if top.is_dir():
            for folder, _, _ in os.walk(top, topdown=False):
                Path(folder).rmdir()
            if not any(entry.is_dir() for entry in top.parent.iterdir()):
                top.parent.rmdir()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, hello_archive: Path) -> Iterator[HostDaemon]:
    """A running daemon with the hello image loaded, shared by the tests of one module."""
    daemon = HostDaemon(tmp_path_factory.mktemp("host"))
    try:
        daemon.start()
        daemon.ok("load", "-i", str(hello_archive))
        yield daemon
    finally:
        daemon.close()


@pytest.fixture(scope="module")
def swarm(hello_archive: Path) -> Iterator[Lab]:
    """Three managers in one swarm, the hello image on each."""
    with lab_of(3, "--managers", "3", "--joined", image=hello_archive, kind=Lab) as lab:
        yield lab


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """The whole suite must leave the machine as it was: processes, mounts, namespaces, cgroups."""
    before = _leftovers()
    yield
    deadline = time.monotonic() + 10 * PATIENCE
    while (left := _leftovers() - before) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left, f"the tests left something behind: {sorted(left)}"


def _leftovers() -> set[str]:
    found = {f"mount {line.split()[4]}" for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    found.discard(
        "mount /run/netns"
    )  # iproute2's own, made by the first `ip netns add` of a machine and kept
    for words in ("swarmd", "engine.runtime.supervisor"):
        found |= {f"process {pid} {words}" for pid in processes(words) if pid != os.getpid()}
    for hierarchy in cgroup_hierarchies():
        found |= {f"cgroup {path}" for path in hierarchy.glob("swarmctl*")}
    for what, words in (("netns", "ip netns list"), ("link", "ip -br link"), ("table", "nft list tables")):
        listed = subprocess.run(words.split(), capture_output=True, text=True).stdout
        found |= {
            f"{what} {' '.join(line.split()[:3])}"
            for line in listed.splitlines()
            if "swarmctl" in line or "sw" in line[:2]
        }
    found.add(f"ip_forward {Path('/proc/sys/net/ipv4/ip_forward').read_text().strip()}")
    return found
