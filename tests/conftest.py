"""Fixtures that start the real thing: one daemon in a network namespace of its own, or a lab of several.

Everything is made below a temporary folder and taken away afterwards, also when a test fails.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
# Bounds of waiting are for a common machine; emulated ones are about ten times slower.
PATIENCE = float(os.environ.get("SWARMCTL_TEST_PATIENCE", "1"))
READY_S = max(120.0, 40.0 * PATIENCE)  # only against waiting for ever


@pytest.fixture(scope="session")
def hello_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example image, as `image load` reads it."""
    path = tmp_path_factory.mktemp("images") / "hello.tar"
    subprocess.run([sys.executable, ROOT / "examples/hello/build.py", path], check=True)
    return path


@dataclasses.dataclass
class Result:
    code: int
    out: str
    err: str


class HostDaemon:
    """One swarmd in its own network namespace. `run` is our CLI."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
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
        return "LOWER_UP" in self._command([*self.namespaces, "ip", "link", "show", "lo"], None).out

    @property
    def namespaces(self) -> list[str]:
        return ["nsenter", f"--net=/proc/{self._keeper.pid}/ns/net"]

    def start(self) -> None:
        command = [
            *self.namespaces,
            *(str(BIN / "swarmd"), "--root", str(self.root), "--run-dir", str(self.run_dir)),
            *("--cgroup-parent", self.cgroup, "--hostname", "host1", "--advertise-addr", "127.0.0.1"),
        ]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
        deadline = time.monotonic() + READY_S
        while self.run("version").code:
            assert self._process.poll() is None, f"swarmd ended:\n{self.log.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"swarmd does not answer:\n{self.log.read_text()[-3000:]}"
            time.sleep(0.05)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal the daemon and wait for its end; containers run on."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(20 * PATIENCE)

    def run(self, *words: str, text: str | None = None) -> Result:
        return self._command([str(BIN / "swarmctl"), *words], text)

    def inside(self, *words: str) -> Result:
        """A command in the daemon's own network namespace."""
        return self._command([*self.namespaces, *words], None)

    def ok(self, *words: str, text: str | None = None) -> str:
        result = self.run(*words, text=text)
        assert result.code == 0, f"swarmctl {' '.join(words)}: {result.err}\n{self.log.read_text()[-2000:]}"
        return result.out.strip()

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            for container in self.run("ps", "-aq").out.split():
                self.run("rm", "-f", "-v", container)
            self.stop()
        for pid in processes(f"engine.runtime.supervisor|{self.run_dir}"):
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 10 * PATIENCE
        while processes(f"engine.runtime.supervisor|{self.run_dir}") and time.monotonic() < deadline:
            time.sleep(0.02)
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            if line.split()[4].startswith(f"{self.folder}/"):
                subprocess.run(["umount", "-l", line.split()[4]], check=True)
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            if line.split()[4].startswith(f"{self.folder}/"):
                subprocess.run(["umount", "-l", line.split()[4]], check=True)
        self._keeper.kill()
        self._keeper.wait()
        _remove_cgroups(self.cgroup)

    def _command(self, words: list[str], text: str | None) -> Result:
        environment = {
            **os.environ,
            "DOCKER_HOST": f"unix://{self.socket}",
            "SWARMCTL_HOST": f"unix://{self.socket}",
        }
        done = subprocess.run(
            words,
            input=text or "",
            capture_output=True,
            text=True,
            env=environment,
            timeout=60 * PATIENCE,
            cwd=ROOT,
        )
        return Result(done.returncode, done.stdout, done.stderr)


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


class Lab:
    """A lab of real nodes. `on` runs a swarmctl command against one of them."""

    def __init__(self, name: str) -> None:
        self.name = name

    def lab(self, *words: str) -> Result:
        verb, *rest = words
        return _swarmctl("lab", verb, "--name", self.name, *rest)

    def on(self, node: str, *words: str, text: str = "") -> Result:
        return _swarmctl("-H", f"unix://{self.nodes()[node]['socket']}", *words, text=text)

    def ok(self, node: str, *words: str) -> str:
        result = self.on(node, *words)
        assert result.code == 0, f"{node}: swarmctl {' '.join(words)}: {result.err or result.out}"
        return result.out.strip()

    def inside(self, node: str, *words: str) -> Result:
        return _run([str(BIN / "swarmctl"), "lab", "exec", "--name", self.name, node, *words])

    def nodes(self) -> dict[str, dict[str, object]]:
        status = self.lab("status", "--format", "json")
        assert status.code == 0, status.err
        rows = json.loads(status.out)
        return {row["name"]: row for row in rows}

    def wait(self, what: str, seconds: float, holds: object) -> float:
        """Seconds until `holds()` was true; fails the test after the bound."""
        assert callable(holds)
        start = time.monotonic()
        while not holds():
            assert time.monotonic() - start < seconds * PATIENCE, f"{what}: not within {seconds} s"
            time.sleep(0.1)
        return time.monotonic() - start

    def running(self, node: str, service: str) -> list[str]:
        """Host names of the nodes on which its tasks run, one for each task."""
        words = (
            "service",
            "ps",
            service,
            "--filter",
            "desired-state=running",
            "--format",
            "{{.Node}} {{.CurrentState}}",
        )
        lines = self.on(node, *words).out.splitlines()
        return [line.split()[0] for line in lines if " Running " in line]


def _swarmctl(*words: str, text: str = "") -> Result:
    return _run([str(BIN / "swarmctl"), *words], text)


def _run(words: list[str], text: str = "") -> Result:
    done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=90 * PATIENCE, cwd=ROOT)
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def swarm(hello_archive: Path) -> Iterator[Lab]:
    """Three managers in one swarm, the hello image on each."""
    lab = Lab(f"test{uuid.uuid4().hex[:6]}")
    try:
        up = lab.lab("up", "--nodes", "3", "--managers", "3", "--joined")
        assert up.code == 0, up.err
        for node in lab.nodes():
            lab.ok(node, "load", "-i", str(hello_archive))
        yield lab
    finally:
        lab.lab("down")


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
