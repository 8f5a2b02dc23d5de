"""podman with our runtime instead of its own: in namespaces of the test, with all its state in a temporary folder."""

from __future__ import annotations

import os
import subprocess
import tarfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import PATIENCE, Result, run
from tests.integration.oci_bundles import root_file_system, runtime_command

pytestmark = pytest.mark.root

SETTINGS = """
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
static_dir = "{folder}/static"
volume_path = "{folder}/volumes"
"""


class Podman:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.group = f"swarmctl-podman-{uuid.uuid4().hex[:8]}"
        (folder / "containers.conf").write_text(SETTINGS.format(folder=folder))
        command = runtime_command(folder)
        command.write_text(command.read_text().replace('"$@"', f'--root {folder}/state "$@"'))
        # podman keeps its locks in /dev/shm: it gets one of its own.
        words = "mount -t tmpfs tmpfs /dev/shm && ip link set lo up && touch $0/ready && exec sleep 100000"
        self._keeper = subprocess.Popen(["unshare", "--net", "--mount", "sh", "-c", words, str(folder)])
        deadline = time.monotonic() + 20 * PATIENCE
        while not (folder / "ready").exists():
            assert time.monotonic() < deadline, "the namespaces do not come up"
            time.sleep(0.01)
        self._words = [
            *(
                "nsenter",
                f"--net=/proc/{self._keeper.pid}/ns/net",
                f"--mount=/proc/{self._keeper.pid}/ns/mnt",
            ),
            *("podman", "--root", str(folder / "root"), "--runroot", str(folder / "runroot")),
            *("--tmpdir", str(folder / "tmp"), "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"),
            *("--runtime", str(command)),
        ]

    def run(self, *words: str) -> Result:
        settings = {"CONTAINERS_CONF": str(self.folder / "containers.conf")}
        return run([*self._words, *words], "", os.environ | settings)

    def ok(self, *words: str) -> str:
        result = self.run(*words)
        assert result.code == 0, f"podman {' '.join(words)}: {result.err}"
        return result.out.strip()

    def container(self, *words: str, network: str = "none") -> list[str]:
        return ["run", "--network", network, "--cgroup-parent", f"/{self.group}", *words]

    def close(self) -> None:
        self.run("rm", "--all", "--force", "--time", "0")
        self._keeper.kill()
        self._keeper.wait()
        deadline = time.monotonic() + 10 * PATIENCE
        for hierarchy in Path("/sys/fs/cgroup").iterdir():
            for folder, _, _ in os.walk(hierarchy / self.group, topdown=False):
                while (Path(folder) / "cgroup.procs").read_text() and time.monotonic() < deadline:
                    time.sleep(0.05)  # conmon cleans up after a container that has gone
                Path(folder).rmdir()


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    folder = tmp_path_factory.mktemp("podman")
    made = Podman(folder)
    try:
        root_file_system(folder / "rootfs")
        with tarfile.open(folder / "busybox.tar", "w") as tar:
            tar.add(folder / "rootfs", "/")
        made.ok("import", str(folder / "busybox.tar"), "bb")
        yield made
    finally:
        made.close()


def test_it_runs_containers_and_tells_how_they_end(podman: Podman) -> None:
    assert podman.ok(*podman.container("--rm", "bb", "echo", "from podman")) == "from podman"
    failed = podman.run(
        *podman.container("--rm", "-e", "CODE=3", "bb", "sh", "-c", "echo err >&2; exit $CODE")
    )
    assert (failed.code, failed.out, failed.err) == (3, "", "err\n")


@pytest.mark.parametrize(
    ("command", "code", "words"), [("nosuch", 127, "not found in $PATH"), ("/etc", 126, "permission denied")]
)
def test_commands_that_cannot_run_have_dockers_codes(
    podman: Podman, command: str, code: int, words: str
) -> None:
    failed = podman.run(*podman.container("--rm", "bb", command))
    assert failed.code == code and words in failed.err
    assert not list(podman.folder.glob("state/[a-z0-9]*")), "nothing of it is left"


def test_it_has_terminals(podman: Podman) -> None:
    assert "/dev/pts/0" in podman.ok(
        *podman.container("--rm", "-t", "bb", "sh", "-c", "ls -l /proc/self/fd/0")
    )


def test_one_that_stays(podman: Podman) -> None:
    words = "trap 'exit 4' TERM; echo up; while :; do sleep 0.05; done"
    podman.ok(
        *podman.container("-d", "--name", "c1", "--pids-limit", "50", "bb", "sh", "-c", words, network="host")
    )

    def status() -> str:
        return podman.ok("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "c1")

    assert status() == "running 0"
    executed = podman.run("exec", "-e", "A=b", "c1", "sh", "-c", "echo $A; exit 5")
    assert (executed.code, executed.out) == (5, "b\n")
    assert podman.ok("logs", "c1") == "up"
    podman.ok("pause", "c1")
    assert status() == "paused 0"
    podman.ok("unpause", "c1")
    podman.ok("stop", "c1")
    assert status() == "exited 4"
    podman.ok("start", "c1")
    assert status() == "running 0"
    podman.ok("kill", "c1")
    assert podman.ok("wait", "c1") == "137"
    podman.ok("rm", "c1")
    assert not list(podman.folder.glob("state/[a-z0-9]*"))
