"""The real docker CLI on files of containers and on their streams: cp, export, diff, attach, exec."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.clients import Cli
from tests.commands import PATIENCE
from tests.conftest import HostDaemon

pytestmark = pytest.mark.root
WAIT_S = 30 * PATIENCE


@pytest.fixture(scope="module")
def docker(host: HostDaemon) -> Cli:
    return Cli(host.socket)


@pytest.fixture(scope="module")
def box(docker: Cli, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A running container with a volume, a bind mount, a read-only one, and a tmpfs."""
    folder = tmp_path_factory.mktemp("bound")
    (folder / "bound.txt").write_text("bound")
    docker.ok(
        *("run", "-d", "--name", "box", "-v", "box-data:/data", "-v", f"{folder}:/bound"),
        *("-v", f"{folder}:/fixed:ro", "--tmpfs", "/scratch", "hello", "sleep", "100000"),
    )
    return "box"


def raw(docker: Cli, *words: str, data: bytes = b"") -> bytes:
    done = subprocess.run(
        [str(docker.client), *words], input=data, capture_output=True, env=docker.environment, timeout=WAIT_S
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def names(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getnames()


@pytest.mark.needs_client(23)
def test_copies_a_file_in_and_out(docker: Cli, box: str, tmp_path: Path) -> None:
    source = tmp_path / "file.txt"
    source.write_text("content\n" * 1000)
    source.chmod(0o640)
    done = docker.run("cp", "--quiet=false", str(source), f"{box}:/tmp/new.txt")
    assert done.code == 0, done.err
    assert "Successfully copied" in done.out + done.err
    assert docker.ok("exec", box, "stat", "-c", "%a %s", "/tmp/new.txt") == "640 8000\n"
    docker.ok("cp", f"{box}:/tmp/new.txt", str(tmp_path / "back.txt"))
    assert (tmp_path / "back.txt").read_text() == source.read_text()
    missing = docker.run("cp", f"{box}:/tmp/nosuch", str(tmp_path))
    assert missing.code == 1
    assert f"Could not find the file /tmp/nosuch in container {box}" in missing.err


def test_copies_folders_with_links(docker: Cli, box: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep/er").mkdir(parents=True)
    (tree / "deep/er/file").write_text("deep")
    (tree / "link").symlink_to("deep/er/file")
    os.link(tree / "deep/er/file", tree / "hard")
    docker.ok("cp", str(tree), f"{box}:/tmp")
    docker.ok("cp", f"{tree}/.", f"{box}:/tmp/other")
    assert docker.ok("exec", box, "cat", "/tmp/tree/link", "/tmp/other/hard") == "deepdeep"
    docker.ok("cp", f"{box}:/tmp/tree", str(tmp_path / "back"))
    assert (tmp_path / "back/link").readlink() == Path("deep/er/file")
    assert (tmp_path / "back/hard").stat().st_nlink == 2
    docker.ok("cp", f"{box}:/tmp/tree/.", str(tmp_path / "again"))
    assert (tmp_path / "again/deep/er/file").read_text() == "deep"
    docker.ok("cp", "-L", f"{box}:/tmp/tree/link", str(tmp_path / "followed"))
    assert (tmp_path / "followed").read_text() == "deep"
    listed = names(raw(docker, "cp", f"{box}:/tmp/tree", "-"))
    assert listed[0] == "tree" and "tree/deep/er/file" in listed


def test_a_link_leads_nowhere_but_into_the_container(docker: Cli, box: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("in")
    docker.ok("exec", box, "ln", "-sfn", "/tmp", "/rooms")
    docker.ok("exec", box, "ln", "-sfn", "../../../../../../etc/passwd", "/tmp/up")
    docker.ok("cp", str(tmp_path / "in"), f"{box}:/rooms/in")
    assert docker.ok("exec", box, "cat", "/tmp/in") == "in"
    docker.ok("cp", "-L", f"{box}:/tmp/up", str(tmp_path / "passwd"))
    assert (tmp_path / "passwd").read_text() == docker.ok("exec", box, "cat", "/etc/passwd")


def test_sees_what_is_mounted(docker: Cli, box: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("f")
    for place in ("/data", "/bound", "/scratch"):
        docker.ok("cp", str(tmp_path / "f"), f"{box}:{place}/f")
        assert docker.ok("exec", box, "cat", f"{place}/f") == "f"
    docker.ok("cp", f"{box}:/fixed/bound.txt", str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "bound"
    refused = docker.run("cp", str(tmp_path / "f"), f"{box}:/fixed/f")
    assert refused.code == 1 and "mounted volume is marked read-only" in refused.err
    docker.ok("cp", f"{box}:/etc/hosts", str(tmp_path / "hosts"))
    assert "localhost" in (tmp_path / "hosts").read_text()


def test_a_container_that_does_not_run(docker: Cli, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("early")
    docker.ok("create", "--name", "later", "-v", "later-data:/data", "hello", "cat", "/tmp/f", "/data/f")
    docker.ok("cp", str(tmp_path / "f"), "later:/tmp/f")
    docker.ok("cp", str(tmp_path / "f"), "later:/data/f")
    assert docker.ok("start", "-a", "later") == "earlyearly"
    docker.ok("cp", "later:/data/f", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "early"
    docker.ok("rm", "later")
    docker.ok("volume", "rm", "later-data")


def test_a_read_only_root_is_refused_in_dockers_words(docker: Cli, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("f")
    docker.ok("create", "--name", "fixed", "--read-only", "-v", "/open", "hello", "sleep", "1000")
    try:
        for _ in ("stopped", "running"):
            refused = docker.run("cp", str(tmp_path / "f"), "fixed:/tmp/f")
            assert refused.code == 1 and "container rootfs is marked read-only" in refused.err
            docker.ok("cp", str(tmp_path / "f"), "fixed:/open/f")
            docker.ok("start", "fixed")
    finally:
        docker.ok("rm", "-f", "-v", "fixed")


def test_folders_and_files_do_not_replace_each_other(docker: Cli, box: str, tmp_path: Path) -> None:
    (tmp_path / "kind").write_text("file")
    (tmp_path / "d/kind").mkdir(parents=True)
    docker.ok("exec", box, "mkdir", "-p", "/tmp/k/kind")
    refused = docker.run("cp", str(tmp_path / "kind"), f"{box}:/tmp/k")
    assert refused.code == 1 and "cannot overwrite directory" in refused.err
    docker.ok("exec", box, "sh", "-c", "rmdir /tmp/k/kind; touch /tmp/k/kind")
    refused = docker.run("cp", str(tmp_path / "d/kind"), f"{box}:/tmp/k")
    assert refused.code == 1 and "cannot overwrite non-directory" in refused.err
    refused = docker.run("cp", str(tmp_path / "d/kind"), f"{box}:/tmp/k/kind/below")
    assert refused.code == 1, refused.out


def test_archives_come_and_go_by_standard_streams(docker: Cli, box: str) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        info = tarfile.TarInfo("a/owned")
        info.size, info.uid, info.gid = 3, 1234, 4321
        tar.addfile(info, io.BytesIO(b"abc"))
    raw(docker, "cp", "-", f"{box}:/tmp", data=buffer.getvalue())
    assert docker.ok("exec", box, "stat", "-c", "%u:%g", "/tmp/a/owned") == "1234:4321\n"
    raw(docker, "cp", "-a", "-", f"{box}:/tmp", data=buffer.getvalue())
    assert docker.ok("exec", box, "stat", "-c", "%u:%g", "/tmp/a/owned") == "0:0\n"


def test_export_and_diff(docker: Cli, box: str, tmp_path: Path) -> None:
    docker.ok(
        "run",
        "--name",
        "changed",
        "-v",
        "/vol",
        "hello",
        "sh",
        "-c",
        "echo x >/tmp/x; rm /etc/group; touch /vol/y",
    )
    try:
        assert docker.ok("diff", "changed").splitlines() == [
            "C /etc",
            "D /etc/group",
            "C /tmp",
            "A /tmp/x",
            "A /vol",
        ]
        docker.ok("export", "-o", str(tmp_path / "root.tar"), "changed")
        with tarfile.open(tmp_path / "root.tar") as tar:
            listed = tar.getnames()
        assert "tmp/x" in listed and "etc/passwd" in listed and "vol" in listed
        assert "etc/group" not in listed and "vol/y" not in listed
        sizes = docker.ok("ps", "-as", "--filter", "name=changed", "--format", "{{.Size}}")
        assert sizes.startswith("2B (virtual ")
    finally:
        docker.ok("rm", "-v", "changed")


def test_exec_takes_every_option(docker: Cli, box: str) -> None:
    shown = docker.ok(
        *("exec", "-e", "A=b", "-u", "nobody", "-w", "/tmp", box, "sh", "-c", "echo $A; id -u; pwd")
    )
    assert shown == "b\n65534\n/tmp\n"
    assert docker.run("exec", box, "sh", "-c", "exit 7").code == 7
    assert docker.run("exec", box, "nosuch").code == 127
    assert docker.ok("exec", "-i", box, "wc", "-c", text="12345") == "5\n"
    full = docker.ok("exec", "--privileged", box, "grep", "CapEff", "/proc/self/status")
    assert int(full.split()[1], 16) > int(
        docker.ok("exec", box, "grep", "CapEff", "/proc/self/status").split()[1], 16
    )


def test_no_last_byte_of_an_exec_is_lost(docker: Cli, box: str) -> None:
    for code in range(10):
        done = docker.run("exec", box, "sh", "-c", f"echo first; echo last >&2; exit {code}")
        assert (done.code, done.out, done.err) == (code, "first\n", "last\n")


def test_attach_hears_the_end(docker: Cli) -> None:
    docker.ok("run", "-d", "-i", "--name", "talk", "hello", "sh", "-c", "read a; echo got $a; exit 5")
    try:
        done = docker.run("attach", "talk", text="word\n")
        assert (done.code, done.out) == (5, "got word\n")
    finally:
        docker.ok("rm", "-f", "talk")


def test_inspected_execs_tell_everything(docker: Cli, host: HostDaemon, box: str) -> None:
    import docker as sdk

    api = sdk.APIClient(base_url=f"unix://{host.socket}", version="auto")
    try:
        made = api.exec_create(box, ["sh", "-c", "exit 3"], user="nobody", tty=False, detach_keys="ctrl-x")
        assert api.exec_start(made["Id"]) == b""
        shown = api.exec_inspect(made["Id"])
        assert (shown["ExitCode"], shown["Running"], shown["DetachKeys"]) == (3, False, "GA==")
        assert shown["ProcessConfig"]["user"] == "nobody"
        assert json.dumps(shown)
    finally:
        api.close()
