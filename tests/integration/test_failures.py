"""What is left when the daemon is killed in the middle of something, and when the disk is full."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.commands import SWARMCTL
from tests.conftest import HostDaemon, cgroup_hierarchies

pytestmark = pytest.mark.root


def until(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not in time"
        time.sleep(0.05)


def in_background(host: HostDaemon, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [SWARMCTL, *words],
        env=os.environ | {"DOCKER_HOST": f"unix://{host.socket}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def big_archive(path: Path, megabytes: int) -> None:
    """An image with one large layer, as `docker save` writes it."""
    layer, tree = path.with_suffix(".layer"), path.with_suffix(".data")
    tree.write_bytes(os.urandom(1 << 20) * megabytes)
    with tarfile.open(layer, "w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
        tar.add(tree, "data")
    digest = hashlib.sha256(layer.read_bytes()).hexdigest()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/bin/busybox", "echo", "whole"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    (path.parent / "config.json").write_text(json.dumps(config))
    manifest = [{"Config": "config.json", "RepoTags": ["big:1"], "Layers": ["layer.tar"]}]
    (path.parent / "manifest.json").write_text(json.dumps(manifest))
    with tarfile.open(path, "w") as tar:
        tar.add(layer, "layer.tar")
        for name in ("config.json", "manifest.json"):
            tar.add(path.parent / name, name)
    layer.unlink()
    tree.unlink()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "big.tar"
    big_archive(path, 200)
    return path


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


@pytest.mark.parametrize("after_s", [0.02, 0.1, 0.2])
def test_killed_in_the_middle_of_rm(host: HostDaemon, after_s: float) -> None:
    volumes = set(host.ok("volume", "ls", "-q").split())
    made = [
        host.ok("run", "-d", "-v", "/anonymous", "-v", f"kept{n}:/kept", "hello", "sleep", "1000")
        for n in range(8)
    ]
    removals = [in_background(host, "rm", "-f", "-v", container) for container in made]
    time.sleep(after_s)
    host.stop(signal.SIGKILL)
    for removal in removals:
        removal.wait(30)
    host.start()
    left = host.ok("ps", "-aq", "--no-trunc").split()
    on_disk = {path.name for path in (host.root / "containers").iterdir()}
    assert on_disk == set(left) <= set(made)
    for container in left:
        shown = json.loads(host.ok("inspect", container))[0]
        assert shown["State"]["Status"] in ("running", "exited", "dead")
        host.ok("rm", "-f", "-v", container)
    assert list((host.root / "overlay" / "containers").iterdir()) == []
    assert [p for p in (host.run_dir / "netns").iterdir() if not p.name.startswith("ov-")] == []
    assert set(host.ok("volume", "ls", "-q").split()) == volumes | {f"kept{n}" for n in range(8)}
    host.ok("volume", "rm", *(f"kept{n}" for n in range(8)))
    left = [path for hierarchy in cgroup_hierarchies() for path in hierarchy.glob(f"{host.cgroup}/*/")]
    assert not left, "a cgroup is left"


@pytest.mark.parametrize("after_s", [0.1, 0.3, 0.6])
def test_killed_in_the_middle_of_load(host: HostDaemon, archive: Path, after_s: float) -> None:
    folders = (host.root / "images", host.root / "overlay")
    before = [files_below(folder) for folder in folders]
    load = in_background(host, "load", "-i", str(archive))
    time.sleep(after_s)
    host.stop(signal.SIGKILL)
    load.wait(30)
    host.start()
    if "big" in host.ok("images", "--format", "{{.Repository}}").split():
        assert host.ok("run", "--rm", "big:1") == "whole"
        host.ok("rmi", "big:1")
    assert [files_below(folder) for folder in folders] == before, "half an image is left"
    host.ok("load", "-i", str(archive))
    assert host.ok("run", "--rm", "big:1") == "whole"
    host.ok("rmi", "big:1")
    assert [files_below(folder) for folder in folders] == before


@pytest.fixture
def small(tmp_path: Path, hello_archive: Path) -> Iterator[HostDaemon]:
    """A daemon whose state is on a file system of 64 MB."""
    daemon = HostDaemon(tmp_path)
    daemon.root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "small", str(daemon.root)], check=True)
    try:
        daemon.start()
        daemon.ok("load", "-i", str(hello_archive))
        yield daemon
    finally:
        daemon.close()


def test_a_full_disk_is_said_and_nothing_is_lost(small: HostDaemon, tmp_path: Path) -> None:
    script = "n=0; while :; do n=$((n+1)); echo line $n; sleep 0.02; done"
    speaker = small.ok("run", "-d", "--name", "speaker", "hello", "sh", "-c", script)
    stopped = small.ok("create", "--name", "kept", "hello", "true")
    big = tmp_path / "big.tar"
    big_archive(big, 12)

    filler = small.root / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(b"x" * 4096)
    images = small.ok("images", "-q")

    refused = small.run("load", "-i", str(big))
    assert refused.code == 1 and "no space left on device" in refused.err.lower(), refused
    assert "internal error" not in refused.err
    for words in (
        ("create", "--name", "another", "hello"),
        ("volume", "create", "vol"),
        ("tag", "hello", "second"),
    ):
        refused = small.run(*words)
        assert refused.code and "no space left on device" in refused.err.lower(), (words, refused)
    assert small.ok("images", "-q") == images
    assert sorted(small.ok("ps", "-a", "--format", "{{.Names}}").split()) == ["kept", "speaker"]
    assert small.ok("exec", speaker, "echo", "alive") == "alive"

    small.stop(signal.SIGKILL)
    small.start()
    assert small.ok("ps", "--format", "{{.Names}}") == "speaker"
    assert small.ok("exec", speaker, "echo", "alive") == "alive"

    filler.unlink()
    for _ in range(2):  # the first new line may be one that waited for space
        line = small.ok("logs", "--tail", "1", "speaker")
        until("the log goes on", lambda line=line: small.ok("logs", "--tail", "1", "speaker") != line)
    small.ok("volume", "create", "vol")
    small.ok("load", "-i", str(big))
    assert small.ok("run", "--rm", "big:1") == "whole"
    small.ok("start", stopped)
    small.ok("rm", "-f", "speaker")
    small.ok("rm", "kept")
    assert list((small.root / "containers").iterdir()) == []


def test_a_container_can_be_stopped_and_removed_on_a_full_disk(small: HostDaemon) -> None:
    container = small.ok("run", "-d", "hello", "sleep", "1000")
    filler = small.root / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(b"x" * 4096)
    small.ok("kill", container)
    until("its end is known", lambda: not small.ok("ps", "-q"))
    small.run("rm", container)
    filler.unlink()
    small.run("rm", container)
    assert small.ok("ps", "-aq") == ""
    assert list((small.root / "containers").iterdir()) == []
