"""Containers of a daemon on the drivers that are not overlay, driven by the docker command."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients import docker_client
from tests.commands import BIN, PATIENCE, run
from tests.conftest import HostDaemon, processes

pytestmark = pytest.mark.root

OPTIONS = {
    "fuse-overlayfs": ("--storage-driver", "fuse-overlayfs"),
    "btrfs": ("--storage-driver", "btrfs", "--storage-opt", "btrfs.min_space=4m"),
}


@pytest.fixture(params=OPTIONS)
def daemon(
    request: pytest.FixtureRequest, btrfs: Path, tmp_path: Path, hello_archive: Path
) -> Iterator[HostDaemon]:
    host = HostDaemon(tmp_path, *OPTIONS[request.param])
    host.root = btrfs / "daemon" if request.param == "btrfs" else tmp_path / "root"
    try:
        host.start()
        host.ok("load", "-i", str(hello_archive))
        yield host
    finally:
        host.close()


def docker(host: HostDaemon, *words: str) -> str:
    result = run([str(docker_client()), "-H", f"unix://{host.socket}", *words], "", os.environ)
    assert result.code == 0, result.err
    return result.out.strip()


def mounts(host: HostDaemon) -> int:
    return Path("/proc/self/mountinfo").read_text().count(f" {host.root}/")


def test_containers_live_on_it(daemon: HostDaemon, request: pytest.FixtureRequest) -> None:
    name = daemon.options[1]
    assert docker(daemon, "info", "--format", "{{.Driver}}") == name
    docker(daemon, "run", "-d", "--name", "c1", "hello", "sh", "-c", "echo mine > /own; sleep 1000")
    assert docker(daemon, "exec", "-u", "1234", "c1", "id", "-u") == "1234"
    assert docker(daemon, "exec", "c1", "cat", "/own") == "mine"
    assert docker(daemon, "diff", "c1").splitlines()[-1] == "A /own"
    assert mounts(daemon) == (1 if name == "fuse-overlayfs" else 0)
    daemon.stop(9)
    daemon.start()
    assert docker(daemon, "exec", "c1", "cat", "/own") == "mine"
    docker(daemon, "stop", "-t", "0", "c1")
    assert mounts(daemon) == 0
    docker(daemon, "rmi", "-f", docker(daemon, "images", "-q"))
    docker(daemon, "start", "c1")
    assert docker(daemon, "exec", "c1", "cat", "/own") == "mine"
    folders = [daemon.root / name / part for part in ("layers", "containers", "tmp")]
    assert any(folders[0].iterdir()), "the container stands on it"
    docker(daemon, "rm", "-f", "c1")
    assert [list(folder.iterdir()) for folder in folders] == [[], [], []]
    daemon.stop()


def test_a_size_is_served_or_refused_by_name(daemon: HostDaemon) -> None:
    words = [
        str(docker_client()),
        "-H",
        f"unix://{daemon.socket}",
        "run",
        "--rm",
        "--storage-opt",
        "size=8M",
        "hello",
    ]
    result = run([*words, "dd", "if=/dev/urandom", "of=/big", "bs=1M", "count=12"], "", os.environ)
    assert result.code != 0
    if daemon.options[1] == "btrfs":
        assert "uota exceeded" in result.err
    else:
        assert "--storage-opt size is not supported by fuse-overlayfs" in result.err


@pytest.mark.parametrize("name", ["aufs", "devicemapper", "btrfs"])
def test_a_driver_that_cannot_be_is_said_at_the_start(tmp_path: Path, name: str) -> None:
    words = ["--root", str(tmp_path / "root"), "--run-dir", str(tmp_path / "run"), "--storage-driver", name]
    result = run([str(BIN / "swarmd"), *words], "", os.environ)
    assert result.code == 1 and "overlay" in result.err and "Traceback" not in result.err
    deadline = time.monotonic() + 10 * PATIENCE
    while processes(f"engine.runtime.supervisor|{tmp_path}"):
        assert time.monotonic() < deadline, "its supervisor ends with it"
        time.sleep(0.02)
