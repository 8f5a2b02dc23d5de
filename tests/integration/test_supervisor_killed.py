"""kill -9 of the supervisor under running containers, the daemon that started it being alive.

Their exit codes: the daemon becomes their parent. When the daemon is another one since, only kernels from 6.15 on tell
the exit code of somebody else's child (docs/limits.md).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import PATIENCE
from tests.conftest import HostDaemon, processes

pytestmark = pytest.mark.root


@pytest.fixture
def host(tmp_path: Path, hello_archive: Path) -> Iterator[HostDaemon]:
    daemon = HostDaemon(tmp_path)
    try:
        daemon.start()
        daemon.ok("load", "-i", str(hello_archive))
        yield daemon
    finally:
        daemon.close()


def test_kill_of_the_supervisor_ends_no_container(host: HostDaemon) -> None:
    script = "read word; echo got $word; exit 12"
    waiting = host.ok("run", "-d", "-i", "--name", "waiting", "hello", "sh", "-c", script)
    served = host.ok("run", "-d", "--name", "served", "-p", "8099:80", "hello")
    supervisors = processes(f"engine.runtime.supervisor|{host.run_dir}")
    assert len(supervisors) == 1
    os.kill(supervisors[0], signal.SIGKILL)
    deadline = time.monotonic() + 10 * PATIENCE
    while host.run("exec", served, "true").code:
        assert time.monotonic() < deadline, host.log.read_text()[-2000:]
        time.sleep(0.05)
    assert sorted(host.ok("ps", "--format", "{{.Names}}").split()) == ["served", "waiting"]
    page = host.inside("timeout", "60", "busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8099/")
    assert page.out.startswith("hello from"), (page, host.ok("ps", "-a"), host.ok("logs", "served"))
    assert "GET from" in host.ok("logs", "served")
    assert host.run("attach", "waiting", text="it\n").code == 12
    assert host.ok("wait", waiting) == "12"
    assert host.ok("logs", waiting) == "got it"
    host.ok("rm", "-f", "served", "waiting")
