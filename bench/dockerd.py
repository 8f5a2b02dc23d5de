"""A dockerd of its own beside ours, where one is installed: its files in a folder, no rules, no network of the host."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.api import Api
from bench.measure import wait_until

CGROUP = "swarmctl-bench-docker"
START_S, STOP_S = 60.0, 30.0


@contextlib.contextmanager
def running(folder: Path, inside: Sequence[str] = ("unshare", "--net", "--")) -> Iterator[str]:
    """The path of its socket; "" when dockerd is not installed. `inside`: the prefix that gives it a network."""
    program = shutil.which("dockerd")
    if program is None:
        yield ""
        return
    socket = folder / "docker.sock"
    paths = ("--data-root", "docker", "--exec-root", "docker-run", "--pidfile", "docker.pid")
    places = [word if word.startswith("--") else str(folder / word) for word in paths]
    network = ("--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false")
    options = (*places, *network, "--storage-driver", "overlay2", "--cgroup-parent", f"/{CGROUP}")
    with (folder / "dockerd.log").open("wb") as log:
        process = subprocess.Popen(
            [*inside, "unshare", "--mount", "--", program, "-H", f"unix://{socket}", *options],
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: _answers(str(socket)), START_S, 0.1)
        yield str(socket)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_S)
        _remove_cgroups()


def _answers(socket: str) -> bool:
    try:
        Api(socket).call("GET", "/_ping")
    except OSError:
        return False
    return True


def _remove_cgroups() -> None:
    for hierarchy in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()):
        for folder, _, _ in os.walk(hierarchy / CGROUP, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
