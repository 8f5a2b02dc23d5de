"""Volumes as `docker volume` and `docker run` use them: options, subpaths, drivers that nobody here wrote."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients import Cli
from tests.commands import PATIENCE, ROOT, SWARMCTL, Result, run
from tests.conftest import HostDaemon

pytestmark = pytest.mark.root


class Docker(Cli):
    """The docker that is installed, against one daemon."""

    def __init__(self, host: HostDaemon) -> None:
        super().__init__(host.socket)

    def ok(self, *words: str, text: str = "") -> str:
        return super().ok(*words, text=text).strip()


@pytest.fixture
def docker(host: HostDaemon) -> Iterator[Docker]:
    """What a test leaves, also a failed one, is not the next one's business."""
    made = Docker(host)
    yield made
    if containers := made.ok("ps", "-aq").split():
        made.ok("rm", "-f", "-v", *containers)
    if volumes := made.ok("volume", "ls", "-q").split():
        made.ok("volume", "rm", "-f", *volumes)


@contextlib.contextmanager
def plugin_process(words: list[str], socket: Path) -> Iterator[None]:
    """A plugin of its own, from when it listens until the end of the context."""
    with (socket.parent / f"{socket.stem}.log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20 * PATIENCE
        while not socket.exists():
            assert process.poll() is None and time.monotonic() < deadline, f"{words[0]} does not listen"
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait(20 * PATIENCE)


def mounted(path: object) -> bool:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(line.split()[4] == str(path) for line in lines)


def restart_hard(host: HostDaemon) -> None:
    host.stop(signal.SIGKILL)
    host.start()


def test_a_tmpfs_is_there_while_somebody_uses_it(host: HostDaemon, docker: Docker) -> None:
    options = ("-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,uid=1000,nosuid")
    docker.ok("volume", "create", *options, "scratch")
    data = host.root / "volumes/scratch/_data"
    assert not mounted(data)
    seen = docker.ok("run", "--rm", "-v", "scratch:/s", "hello", "sh", "-c", "mount | grep ' /s '")
    assert seen.startswith("tmpfs on /s type tmpfs (rw,nosuid,") and "size=1024k,uid=1000" in seen
    assert not mounted(data)
    for name in ("one", "two"):
        docker.ok("run", "-d", "--name", name, "-v", "scratch:/s", "hello", "sleep", "1000")
    docker.ok("exec", "one", "touch", "/s/shared")
    docker.ok("rm", "-f", "one")
    assert mounted(data)
    assert docker.ok("exec", "two", "ls", "/s") == "shared"
    docker.ok("rm", "-f", "two")
    assert not mounted(data)
    docker.ok("volume", "rm", "scratch")


def test_a_crash_of_the_daemon_loses_no_mount_and_leaves_none(host: HostDaemon, docker: Docker) -> None:
    docker.ok("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "kept")
    docker.ok("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "left")
    docker.ok("run", "-d", "--name", "user", "-v", "kept:/k", "hello", "sleep", "1000")
    docker.ok("exec", "user", "touch", "/k/file")
    kept, left = (host.root / "volumes" / name / "_data" for name in ("kept", "left"))
    host.stop(signal.SIGKILL)
    subprocess.run(
        ["mount", "-t", "tmpfs", "tmpfs", str(left)], check=True
    )  # as a crash in a start leaves it
    host.start()
    assert (mounted(kept), mounted(left)) == (True, False)
    assert docker.ok("run", "--rm", "-v", "kept:/k", "hello", "ls", "/k") == "file"
    assert mounted(kept)
    docker.ok("rm", "-f", "user")
    assert not mounted(kept)
    docker.ok("volume", "rm", "kept", "left")


def test_a_bind_volume_keeps_to_its_options(docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    where = ("-o", "type=none", "-o", f"device={tmp_path}")
    docker.ok("volume", "create", *where, "-o", "o=bind,ro", "view")
    assert docker.ok("run", "--rm", "-v", "view:/v", "hello", "cat", "/v/file") == "content"
    assert "Read-only" in docker.run("run", "--rm", "-v", "view:/v", "hello", "touch", "/v/new").err
    docker.ok("volume", "rm", "view")
    assert (tmp_path / "file").read_text() == "content"
    docker.ok("volume", "create", "-o", "type=none", "-o", "device=/nosuch", "-o", "o=bind", "nowhere")
    failed = docker.run("run", "--rm", "-v", "nowhere:/v", "hello", "true")
    assert "failed to mount local volume: mount /nosuch:" in failed.err
    assert "no such file or directory" in failed.err
    docker.ok("volume", "rm", "nowhere")
    for options, words in (
        (("-o", "colour=red"), 'invalid option: "colour"'),
        (("-o", "type=nfs"), 'missing required option: "device"'),
    ):
        assert words in docker.run("volume", "create", *options).err


@pytest.mark.needs_client(26)
def test_subpaths_stay_inside_of_their_volume(host: HostDaemon, docker: Docker) -> None:
    docker.ok("volume", "create", "tree")
    data = host.root / "volumes/tree/_data"
    (data / "a/b").mkdir(parents=True)
    (data / "a/b/file").write_text("deep")
    for link, target in (
        ("inner", "a/b"),
        ("etc", "/etc"),
        ("up", "../../.."),
        ("a/side", "../../.."),
        ("loop", "loop"),
    ):
        (data / link).symlink_to(target)

    def cat(subpath: str, path: str, *options: str) -> Result:
        mount = f"type=volume,src=tree,dst=/t,volume-subpath={subpath}"
        return docker.run("run", "--rm", "--mount", ",".join([mount, *options]), "hello", "cat", path)

    assert [cat(s, p).out for s, p in (("a/b", "/t/file"), ("inner", "/t/file"), ("a/b/file", "/t"))] == [
        "deep"
    ] * 3
    for subpath in ("etc", "up", "a/side", "etc/passwd", "loop", "nosuch", "a/b/file/x"):
        refused = cat(subpath, "/t/passwd")
        assert refused.code != 0 and "root:" not in refused.out, subpath
    for subpath in ("../tree", "/etc", "a/../../x"):
        assert "must be a relative path within the volume" in cat(subpath, "/t").err
    assert (
        "Read-only"
        in docker.run(
            *("run", "--rm", "--mount", "type=volume,src=tree,dst=/t,volume-subpath=a,readonly"),
            *("hello", "touch", "/t/new"),
        ).err
    )
    docker.ok("volume", "rm", "tree")


def test_image_content_fills_an_empty_volume_unless_told_not_to(docker: Docker) -> None:
    listed = docker.ok("run", "--rm", "-v", "filled:/etc", "hello", "ls", "/etc")
    assert "passwd" in listed
    bare = docker.ok(
        *("run", "--rm", "--mount", "type=volume,src=bare,dst=/etc,volume-nocopy", "hello"),
        *("ls", "/etc"),
    )
    assert "passwd" not in bare
    docker.ok("volume", "rm", "filled", "bare")


def test_anonymous_volumes_go_with_their_container(docker: Docker) -> None:
    docker.ok("run", "--name", "anon", "-v", "/data", "hello", "true")
    (name,) = docker.ok("volume", "ls", "-q").split()
    docker.ok("rm", "anon")
    assert docker.ok("volume", "ls", "-q", "-f", "dangling=true") == name
    assert name in docker.ok("volume", "prune", "-f")
    docker.ok("run", "--name", "anon", "-v", "/data", "hello", "true")
    docker.ok("rm", "-v", "anon")
    docker.ok("run", "--rm", "-v", "/data", "hello", "true")
    assert docker.ok("volume", "ls", "-q") == ""


@pytest.mark.needs_client(23)
def test_lists_usage_and_what_only_clusters_have(host: HostDaemon, docker: Docker) -> None:
    docker.ok("volume", "create", "--label", "tier=db", "first")
    docker.ok("volume", "create", "second")
    docker.ok(
        "run",
        "-d",
        "--name",
        "user",
        "-v",
        "first:/f",
        "hello",
        "sh",
        "-c",
        "head -c 5000 /dev/zero > /f/x; sleep 1000",
    )
    assert docker.ok("volume", "ls", "-q", "-f", "label=tier=db") == "first"
    assert docker.ok("volume", "ls", "-q", "-f", "name=^sec", "-f", "driver=local") == "second"
    assert docker.ok("volume", "ls", "-q", "-f", "dangling=0") == "first"
    shown = docker.ok("system", "df", "-v", "--format", "{{json .Volumes}}")
    links = {volume["Name"]: volume["Links"] for volume in json.loads(shown)}
    assert links == {"first": "1", "second": "0"}
    assert "can only update cluster volumes" in docker.run("volume", "update", "first").err
    assert (
        "can only update cluster volumes"
        in run([SWARMCTL, "-H", f"unix://{host.socket}", "volume", "update", "first"]).err
    )
    taken = docker.run("volume", "create", "-d", "nosuch", "third")
    assert 'error looking up volume plugin nosuch: plugin "nosuch" not found' in taken.err
    docker.ok("rm", "-f", "user")
    docker.ok("volume", "rm", "first", "second")


def test_rclone_is_a_driver_of_volumes(host: HostDaemon, docker: Docker, tmp_path: Path) -> None:
    """A volume plugin that nobody here wrote: FUSE mounts of any storage, here of a folder."""
    rclone = shutil.which("rclone")
    assert rclone is not None, "rclone is missing: apt-get install rclone fuse3"
    remote, places = tmp_path / "remote", tmp_path / "places"
    remote.mkdir()
    places.mkdir()
    (tmp_path / "rclone.conf").touch()
    socket = host.run_dir / "plugins/rclone.sock"
    words = [rclone, "serve", "docker", "--config", str(tmp_path / "rclone.conf"), "--base-dir", str(places)]
    words += ["--cache-dir", str(tmp_path / "cache"), "--socket-addr", str(socket)]
    with plugin_process(words, socket):
        docker.ok("volume", "create", "-d", "rclone", "-o", "type=local", "-o", f"path={remote}", "cloud")
        shown = json.loads(docker.ok("volume", "inspect", "cloud"))[0]
        assert (shown["Driver"], shown["Mountpoint"]) == ("rclone", str(places / "cloud"))
        docker.ok("run", "--rm", "-v", "cloud:/c", "hello", "sh", "-c", "echo written > /c/file")
        assert (remote / "file").read_text() == "written\n"
        assert not mounted(places / "cloud")
        docker.ok("run", "-d", "--name", "user", "-v", "cloud:/c", "hello", "sleep", "1000")
        restart_hard(host)
        assert docker.ok("exec", "user", "cat", "/c/file") == "written"
        assert "volume is in use" in docker.run("volume", "rm", "cloud").err
        assert "rclone" in docker.ok("volume", "ls", "-f", "driver=rclone")
        docker.ok("rm", "-f", "user")
        assert not mounted(places / "cloud")
        docker.ok("volume", "rm", "cloud")
    assert docker.ok("volume", "ls", "-q") == ""


def test_a_driver_that_fails_is_named_and_holds_up_nobody(
    host: HostDaemon, docker: Docker, tmp_path: Path
) -> None:
    socket = host.run_dir / "plugins/own.sock"
    program = [sys.executable, str(ROOT / "tests/plugin_program.py"), str(socket), str(tmp_path / "own")]
    with plugin_process(program, socket):
        refused = docker.run("volume", "create", "-d", "own", "-o", "fail=loudly", "bad")
        assert "VolumeDriver.Create: told to fail: loudly" in refused.err
        docker.ok("run", "--rm", "--volume-driver", "own", "-v", "made:/m", "hello", "touch", "/m/file")
        assert (tmp_path / "own/made/file").exists()
        assert docker.ok("volume", "inspect", "made", "--format", "{{.Driver}} {{.Scope}}") == "own global"
        conflict = docker.run("volume", "create", "-d", "local", "made")
        assert "driver 'own' already has volume 'made'" in conflict.err
    socket.unlink(missing_ok=True)
    missing = docker.run("volume", "rm", "made").err
    assert 'plugin "own" not found' in missing or "No such volume: made" in missing  # clients before 23
    docker.ok("volume", "create", "other")
    docker.ok("volume", "rm", "-f", "made", "other")
    assert docker.ok("volume", "ls", "-q") == ""
