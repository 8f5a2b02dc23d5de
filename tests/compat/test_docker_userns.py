"""`swarmd --userns-remap` with the real docker client: who owns what, on both sides."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients import Cli
from tests.conftest import READY_S, HostDaemon

pytestmark = pytest.mark.root


class RemappingDaemon(HostDaemon):
    """A daemon whose /etc/subuid and /etc/subgid are files of the test, in a mount namespace of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "sub").write_text("dockremap:200000:65536\n")
        script = (
            f"for f in subuid subgid; do mount --bind {folder}/sub /etc/$f || exit 1; done; exec sleep 100000"
        )
        namespaces = [*self.namespaces, "unshare", "--mount", "sh", "-c", script]
        self._mounts = subprocess.Popen(namespaces)
        deadline = time.monotonic() + READY_S
        while b"sleep" not in Path(f"/proc/{self._mounts.pid}/cmdline").read_bytes()[:6]:
            assert self._mounts.poll() is None and time.monotonic() < deadline, "the namespace is not made"
            time.sleep(0.01)

    def start(self, *options: str, umask: int = -1) -> None:
        super().start("--userns-remap", "default", *options, umask=umask)

    @property
    def namespaces(self) -> list[str]:
        entered = super().namespaces
        mounts = getattr(self, "_mounts", None)
        return [*entered, f"--mount=/proc/{mounts.pid}/ns/mnt", f"--wd={Path.cwd()}"] if mounts else entered

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._mounts.kill()
            self._mounts.wait()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, hello_archive: Path) -> Iterator[RemappingDaemon]:
    made = RemappingDaemon(tmp_path_factory.mktemp("userns"))
    try:
        made.start()
        made.ok("load", "-i", str(hello_archive))
        yield made
    finally:
        made.close()


class Docker(Cli):
    def __init__(self, daemon: HostDaemon) -> None:
        super().__init__(daemon.socket)

    def ok(self, *words: str, text: str = "") -> str:
        return super().ok(*words, text=text).strip()


@pytest.fixture(scope="module")
def docker(daemon: RemappingDaemon) -> Docker:
    return Docker(daemon)


def test_root_of_a_container_is_nobody_on_the_host(docker: Docker, daemon: RemappingDaemon) -> None:
    assert "name=userns" in docker.ok("info", "-f", "{{json .SecurityOptions}}")
    container = docker.ok(
        "run", "-d", "--init", "--name", "remapped", "-v", "owned:/v", "hello", "sleep", "1000"
    )
    try:
        pid = docker.ok("inspect", "-f", "{{.State.Pid}}", container)
        assert Path(f"/proc/{pid}").stat().st_uid == 200_000
        assert docker.ok("exec", "remapped", "id", "-u") == "0"
        assert docker.ok("exec", "-t", "remapped", "sh", "-c", "tty; id -u").split() == ["/dev/pts/0", "0"]
        script = "echo x > /v/f; echo more >> /etc/hosts; ping -c 1 127.0.0.1 > /dev/null; stat -c %u:%g /v/f /etc/hosts"
        assert docker.ok("exec", "remapped", "sh", "-c", script).split() == ["0:0", "0:0"]
        assert docker.ok("exec", "-u", "1000", "remapped", "id", "-u") == "1000"
    finally:
        docker.ok("rm", "-f", container)
    written = next(daemon.root.rglob("volumes/owned/_data/f"))
    assert written.stat().st_uid == 0
    # The same volume with and without a mapping: nothing was changed on the disk.
    assert (
        docker.ok("run", "--rm", "--userns", "host", "-v", "owned:/v", "hello", "stat", "-c", "%u", "/v/f")
        == "0"
    )
    docker.ok("volume", "rm", "owned")


def test_the_host_is_out_of_reach(docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "secret").chmod(0o600)
    script = "cat /h/secret; id -u; exit 0"
    tried = docker.run("run", "--rm", "-v", f"{tmp_path}:/h", "hello", "sh", "-c", script)
    assert tried.out == "0\n" and "Permission denied" in tried.err
    assert (
        docker.ok("run", "--rm", "--userns", "host", "-v", f"{tmp_path}:/h", "hello", "cat", "/h/secret")
        == "secret"
    )


def test_what_does_not_go_together(docker: Docker) -> None:
    for option, words in (
        ("--privileged", "privileged mode is incompatible with user namespaces"),
        ("--network=host", "cannot share the host's network namespace when user namespaces are enabled"),
        ("--pid=host", "cannot share the host PID namespace when user namespaces are enabled"),
    ):
        assert words in docker.run("run", "--rm", option, "hello", "true").err
        assert docker.ok("run", "--rm", "--userns", "host", option, "hello", "id", "-u") == "0"


def test_containers_outlive_the_daemon(docker: Docker, daemon: RemappingDaemon) -> None:
    docker.ok("run", "-d", "--name", "stays", "hello", "sleep", "1000")
    daemon.stop(9)
    daemon.start()
    assert docker.ok("exec", "stays", "cat", "/proc/self/uid_map").split() == ["0", "200000", "65536"]
    docker.ok("rm", "-f", "stays")
