"""Containers of one host through the CLI: the whole way from command line to kernel and back."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from tests.commands import PATIENCE
from tests.conftest import HostDaemon, cgroup_hierarchies

pytestmark = pytest.mark.root


def test_run_prints_output_and_passes_the_exit_code(host: HostDaemon) -> None:
    result = host.run("run", "--rm", "hello", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (result.code, result.out, result.err.strip()) == (7, "out\n", "err")
    assert host.ok("ps", "-aq") == ""


@pytest.mark.parametrize(("command", "code"), [("no-such-command", 127), ("/etc/passwd", 126)])
def test_a_command_that_cannot_run(host: HostDaemon, command: str, code: int) -> None:
    result = host.run("run", "--rm", "hello", command)
    assert result.code == code
    assert command in result.err
    assert host.ok("ps", "-aq") == ""


def test_a_killed_container_ends_with_128_and_the_signal(host: HostDaemon) -> None:
    container = host.ok("run", "-d", "hello", "sleep", "1000")
    host.ok("kill", "--signal", "KILL", container)
    assert host.ok("wait", container) == "137"
    host.ok("rm", container)


def test_input_reaches_the_container(host: HostDaemon) -> None:
    assert host.ok("run", "-i", "--rm", "hello", "cat", text="a line\n") == "a line"


def test_exec_user_environment_and_directory(host: HostDaemon) -> None:
    container = host.ok("run", "-d", "hello", "sleep", "1000")
    words = (
        "exec",
        "-u",
        "nobody",
        "-e",
        "A=1",
        "-w",
        "/tmp",
        container,
        "sh",
        "-c",
        "id -u; echo $A; pwd; exit 3",
    )
    result = host.run(*words)
    assert (result.code, result.out.split()) == (3, ["65534", "1", "/tmp"])
    host.ok("rm", "-f", container)


def test_limits_are_in_the_cgroup(host: HostDaemon) -> None:
    container = host.ok(
        "run", "-d", "--memory", "64m", "--cpus", "0.5", "--pids-limit", "50", "hello", "sleep", "1000"
    )
    shown = json.loads(host.ok("inspect", container))[0]["HostConfig"]
    assert (shown["Memory"], shown["NanoCpus"], shown["PidsLimit"]) == (64 << 20, 500_000_000, 50)
    forks = host.run("exec", container, "sh", "-c", "for i in $(seq 100); do sleep 5 & done; wait")
    assert "fork" in forks.err
    host.ok("rm", "-f", container)


def test_default_confinement(host: HostDaemon) -> None:
    script = (
        "grep -E 'NoNewPrivs|Seccomp:|CapEff' /proc/self/status; mount -t tmpfs x /tmp; "
        "cat /proc/kcore | head -c1 | wc -c; hostname x"
    )
    result = host.run("run", "--rm", "hello", "sh", "-c", script)
    assert "CapEff:\t00000000a80425fb" in result.out
    assert "Seccomp:\t2" in result.out
    assert result.out.splitlines()[-1] == "0"
    assert "mount" in result.err and "hostname" in result.err


def test_mounts_and_volumes(host: HostDaemon, tmp_path: object) -> None:
    (host.folder / "shared").mkdir(exist_ok=True)
    (host.folder / "shared" / "file").write_text("from the host\n")
    words = (
        "run",
        "--rm",
        "-v",
        f"{host.folder}/shared:/mnt:ro",
        "--tmpfs",
        "/scratch",
        "-v",
        "data:/data",
        "hello",
    )
    result = host.run(
        *words,
        "sh",
        "-c",
        "cat /mnt/file; touch /mnt/x; echo kept > /data/f; df /scratch | tail -1 | cut -c1-5",
    )
    assert result.out.splitlines() == ["from the host", "tmpfs"]
    assert "Read-only" in result.err
    assert host.ok("run", "--rm", "-v", "data:/data", "hello", "cat", "/data/f") == "kept"
    host.ok("volume", "rm", "data")


def test_names_conflict_and_unknown_objects_are_named(host: HostDaemon) -> None:
    host.ok("create", "--name", "taken", "hello")
    conflict = host.run("create", "--name", "taken", "hello")
    assert conflict.code and 'name "/taken" is already in use' in conflict.err
    assert "No such container: nobody" in host.run("start", "nobody").err
    assert "nosuch" in host.run("run", "nosuch:image", "true").err
    host.ok("rm", "taken")


def test_bad_requests_name_what_is_wrong(host: HostDaemon) -> None:
    for words, named in (
        (("run", "--memory", "1m", "hello"), "6MB"),
        (("run", "-v", "rel/ative:/x", "hello"), "rel/ative"),
        (("run", "-p", "99999:80", "hello"), "99999"),
        (("run", "--name", "lost", "--network", "nowhere", "hello"), "nowhere"),
        (("create", "--name", "bad name", "hello"), "bad name"),
    ):
        result = host.run(*words)
        assert result.code, words
        assert named in result.err, (words, result.err)
    # As with docker, what could be created and not started stays for a look.
    assert host.ok("ps", "-a", "--format", "{{.Names}} {{.State}}") == "lost created"
    host.ok("rm", "lost")


def test_published_port_and_its_conflict(host: HostDaemon) -> None:
    web = host.ok("run", "-d", "-p", "8080:80", "hello")
    deadline = time.monotonic() + 5 * PATIENCE
    while (answer := host.inside("busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/")).code:
        assert time.monotonic() < deadline, answer.err
        time.sleep(0.05)
    assert answer.out.startswith("hello from")
    taken = host.run("run", "-d", "-p", "8080:80", "hello")
    assert taken.code and "port is already allocated" in taken.err
    host.ok("rm", "-f", web)
    for container in host.ok("ps", "-aq").split():
        host.ok("rm", "-f", container)


def test_user_defined_network_resolves_names(host: HostDaemon) -> None:
    host.ok("network", "create", "apps")
    db = host.ok(
        "run", "-d", "--name", "db", "--network", "apps", "--network-alias", "store", "hello", "sleep", "1000"
    )
    for name in ("db", "store", db[:12]):
        assert host.run("run", "--rm", "--network", "apps", "hello", "ping", "-c1", name).code == 0, name
    in_use = host.run("network", "rm", "apps")
    assert in_use.code and "active endpoints" in in_use.err
    host.ok("rm", "-f", "db")
    host.ok("network", "rm", "apps")


def test_logs_since_the_daemon_was_killed_are_complete(host: HostDaemon) -> None:
    """kill -9 of the daemon: the container runs on, no line is lost, the exit code is right."""
    script = "i=0; until [ -e /enough ]; do echo line $i; i=$((i+1)); sleep 0.05; done; exit 5"
    container = host.ok("run", "-d", "hello", "sh", "-c", script)
    pid = json.loads(host.ok("inspect", container))[0]["State"]["Pid"]
    assert host.stop(signal.SIGKILL) == -signal.SIGKILL
    time.sleep(0.3)
    host.start()
    shown = json.loads(host.ok("inspect", container))[0]["State"]
    assert (shown["Running"], shown["Pid"]) == (True, pid)
    host.run(
        "exec", container, "touch", "/enough"
    )  # may be ended with the container before it can end itself
    assert host.ok("wait", container) == "5"
    lines = host.ok("logs", container).splitlines()
    assert len(lines) > 5
    assert lines == [f"line {i}" for i in range(len(lines))]
    host.ok("rm", container)


def test_exit_while_no_daemon_runs_is_known_afterwards(host: HostDaemon) -> None:
    container = host.ok("run", "-d", "hello", "sh", "-c", "sleep 0.3; echo last words; exit 9")
    host.stop(signal.SIGKILL)
    time.sleep(0.6)
    host.start()
    assert host.ok("wait", container) == "9"
    assert host.ok("logs", container) == "last words"
    host.ok("rm", container)


def test_kill_in_the_middle_of_many_starts_leaves_nothing_half_made(host: HostDaemon) -> None:
    swarmctl = str(Path(sys.executable).parent / "swarmctl")
    environment = {"SWARMCTL_HOST": f"unix://{host.socket}", "PATH": "/usr/bin:/bin"}
    runs = [
        subprocess.Popen(
            [swarmctl, "run", "--rm", "hello", "true"], env=environment, stderr=subprocess.DEVNULL
        )
        for _ in range(6)
    ]
    time.sleep(0.25)
    host.stop(signal.SIGKILL)
    for run in runs:
        run.wait(30 * PATIENCE)
    host.start()
    deadline = time.monotonic() + 10 * PATIENCE
    while host.ok("ps", "-q") and time.monotonic() < deadline:
        time.sleep(0.1)
    for container in host.ok("ps", "-aq").split():
        host.ok("rm", "-f", container)
    assert list((host.root / "containers").iterdir()) == []
    assert [p for p in (host.run_dir / "netns").iterdir() if not p.name.startswith("ov-")] == []
    assert list((host.root / "overlay" / "containers").iterdir()) == []


def test_restart_policy_and_stop(host: HostDaemon) -> None:
    container = host.ok("run", "-d", "--restart", "on-failure:2", "hello", "false")
    deadline = time.monotonic() + 10 * PATIENCE
    while True:
        shown = json.loads(host.ok("inspect", container))[0]
        if shown["RestartCount"] == 2 and not shown["State"]["Running"] and not shown["State"]["Restarting"]:
            break
        assert time.monotonic() < deadline, shown["State"]
        time.sleep(0.05)
    host.ok("rm", container)


def test_pause_stops_time_for_the_container(host: HostDaemon) -> None:
    container = host.ok("run", "-d", "hello", "sh", "-c", "while :; do echo tick; sleep 0.02; done")
    host.ok("pause", container)
    before = len(host.ok("logs", container).splitlines())
    time.sleep(0.3)
    assert len(host.ok("logs", container).splitlines()) <= before + 1
    assert "paused" in host.run("exec", container, "true").err
    host.ok("unpause", container)
    host.ok("rm", "-f", container)


def test_images_save_load_import_tag_and_removal_rules(host: HostDaemon) -> None:
    archive, rootfs = host.folder / "saved.tar", host.folder / "rootfs.tar"
    host.ok("tag", "hello", "other:1")
    host.ok("save", "-o", str(archive), "other:1")
    host.ok("rmi", "other:1")
    assert "Loaded image: other:1" in host.ok("load", "-i", str(archive))
    container = host.ok("create", "other:1")
    host.ok("rmi", "hello")
    in_use = host.run("rmi", "other:1")
    assert in_use.code and "must force" in in_use.err
    host.ok("tag", "other:1", "hello:latest")
    host.ok("rm", container)
    host.ok("rmi", "other:1")
    with tarfile.open(rootfs, "w") as tar:
        info = tarfile.TarInfo("bin/busybox")
        data = Path("/bin/busybox").read_bytes()
        info.size, info.mode = len(data), 0o755
        tar.addfile(info, io.BytesIO(data))
    host.ok("import", "--change", 'CMD ["/bin/busybox", "echo", "imported"]', str(rootfs), "imported:1")
    assert host.ok("run", "--rm", "imported:1") == "imported"
    host.ok("rmi", "imported:1")


def test_a_damaged_archive_is_refused_and_leaves_nothing(host: HostDaemon) -> None:
    before = host.ok("images", "-q")
    bad = host.folder / "bad.tar"
    bad.write_bytes(b"no archive at all" * 100)
    result = host.run("load", "-i", str(bad))
    assert result.code and "archive" in result.err
    assert host.ok("images", "-q") == before


def test_removing_everything_leaves_no_cgroup_and_no_namespace(host: HostDaemon) -> None:
    for container in host.ok("ps", "-aq").split():
        host.ok("rm", "-f", container)
    deadline = time.monotonic() + 5 * PATIENCE
    while left := [p for top in cgroup_hierarchies() for p in top.glob(f"{host.cgroup}/*/")]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    assert [p for p in (host.run_dir / "netns").iterdir() if not p.name.startswith("ov-")] == []
