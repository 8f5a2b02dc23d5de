"""Known ways out of containers, really tried against our runtime, with both interpreters of start programs.

Each test names the class of attack by the CVE of another runtime. What is attacked is a scratch file or folder made
for the test; where the attack succeeds the test sees it changed or read.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from runtime_bundle import SPAWNERS, WAIT_S, Node, mount, started_node_with

from engine.runtime.client import SpawnError
from tests.commands import PATIENCE

pytestmark = [pytest.mark.root, pytest.mark.timeout(60 * PATIENCE)]


@pytest.fixture(params=SPAWNERS)
async def node(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Node]:
    async for made in started_node_with(request.param, tmp_path, monkeypatch):
        yield made


async def background(node: Node, id: str, script: str, **changes: Any) -> None:
    await node.client.start(node.bundles.start(id, "sh", "-c", script, **changes))


async def end(node: Node, id: str) -> list[str]:
    await node.client.kill(id, 9)
    await node.exits.of(id)
    await node.client.forget(id)
    return log_lines(node, id)


def log_lines(node: Node, id: str) -> list[str]:
    return [json.loads(line)["log"].rstrip("\n") for line in node.bundles.log(id).splitlines()]


async def until_logged(node: Node, id: str, word: str) -> None:
    async with asyncio.timeout(WAIT_S):
        while word not in log_lines(node, id):
            await asyncio.sleep(0.01)


async def exec_in(node: Node, id: str, exec_id: str, *args: str, **process: Any) -> str:
    """Output of a further process; SpawnError when it cannot be made."""
    made = node.bundles.process(*args) | process
    started = await node.client.exec(id, exec_id, made, tty=False, stdin=False)
    chunks = []
    for descriptor in (started.stdout_fd, started.stderr_fd):
        assert descriptor is not None
        with open(descriptor, "rb") as stream:
            os.set_blocking(stream.fileno(), True)
            chunks.append(await asyncio.to_thread(stream.read))
    await node.exits.of(id, exec_id)
    return b"".join(chunks).decode()


# ---- CVE-2019-5736: the runtime's own program, reached through /proc/self/exe ----------------------------------


async def test_the_first_process_cannot_write_to_what_started_it(node: Node) -> None:
    """`#!/proc/self/exe` makes the kernel execute whatever the runtime is at that moment: here it is the image's."""
    script = node.bundles.layer / "entry"
    script.write_text("#!/proc/self/exe\n")
    script.chmod(0o755)
    with pytest.raises(SpawnError):
        # The supervisor's interpreter is not a file of the container: outside its root, so it cannot be executed.
        await node.client.start(node.bundles.start("exe", "/entry"))
    lines = await node.output("exe2", "readlink /proc/1/exe; readlink /proc/self/exe")
    assert set(lines) == {"/bin/busybox"}


async def test_a_further_process_shows_no_program_of_the_host(node: Node) -> None:
    """A process of the container that looks at every other one while execs come in sees only the image's programs,
    and can open none of the host's for writing."""
    watch = """
    while :; do for p in /proc/[0-9]*; do
      t=$(readlink $p/exe 2>/dev/null); case "$t" in ""|/bin/busybox|"/bin/busybox (deleted)") ;; *) echo "exe $t";; esac
      for f in $p/fd/*; do t=$(readlink $f 2>/dev/null); case "$t" in *python*|*.so|/tmp/*) echo "fd $t";; esac; done
    done; done
    """
    await background(node, "watch", watch)
    for number in range(15):
        assert await exec_in(node, "watch", f"e{number}", "echo", "in") == "in\n"
    assert await end(node, "watch") == []


async def test_an_entry_that_is_swapped_for_proc_self_exe_by_a_running_container(node: Node) -> None:
    await background(node, "swap", "rm /bin/true; ln -s /proc/self/exe /bin/true; echo ready; sleep 1000")
    await until_logged(node, "swap", "ready")
    # The link leads to the program of whoever executes it: ours is outside of the container's root.
    interpreter = Path(os.path.realpath(f"/proc/{node.client.supervisor_pid}/exe"))
    before = interpreter.stat()
    try:
        await exec_in(node, "swap", "e", "/bin/true")
    except SpawnError as error:
        assert error.exit_code in (126, 127)
    after = interpreter.stat()
    assert (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)
    await end(node, "swap")


SPY = r"""
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Waits for every next process of the namespace, and opens its program and its memory as soon as it is there. */
int main(void)
{
    char path[64], target[256];
    puts("ready");
    fflush(stdout);
    for (int pid = 2;; pid++) {
        struct stat status;
        sprintf(path, "/proc/%d", pid);
        while (stat(path, &status) < 0)
            ;
        while (stat(path, &status) == 0) {
            sprintf(path, "/proc/%d/exe", pid);
            ssize_t length = readlink(path, target, sizeof(target) - 1);
            if (length > 0 && memcmp(target, "/bin/busybox", 12) != 0) {
                target[length] = 0;
                printf("program %s %s\n", target, open(path, O_RDONLY) < 0 ? "seen" : "opened");
                sprintf(path, "/proc/%d/mem", pid);
                int memory = open(path, O_RDWR);
                length = readlink("/proc/self/exe", target, 1);
                printf("memory %s\n", memory < 0 ? "closed" : "opened");
                fflush(stdout);
                break;
            }
            sprintf(path, "/proc/%d", pid);
        }
    }
}
"""


async def test_the_memory_of_what_starts_a_process_cannot_be_reached(node: Node, tmp_path: Path) -> None:
    """Until it executes, a new process shares the supervisor's memory: a process of the container that spins on
    its entry in /proc must not get hold of it, nor of its program."""
    (tmp_path / "spy.c").write_text(SPY)
    program = str(node.bundles.layer / "bin/spy")
    subprocess.run(["cc", "-static", "-O1", "-o", program, str(tmp_path / "spy.c")], check=True)
    await node.client.start(node.bundles.start("spied", "/bin/spy"))
    await until_logged(node, "spied", "ready")
    for number in range(60):
        await exec_in(node, "spied", f"e{number}", "true")
    assert await end(node, "spied") == ["ready"]


async def test_the_child_cannot_be_read_or_traced_before_it_executes(node: Node) -> None:
    """Between the joining of the namespaces and execve the child is ours: nothing in the container may open its
    memory or its descriptors."""
    watch = """
    while :; do for p in /proc/[0-9]*; do [ $p = /proc/1 ] || { n=$(cat $p/comm 2>/dev/null);
      case "$n" in ""|sh|cat|true|sleep|readlink) ;; *) ls -l $p/fd 2>/dev/null | grep -- '->' | grep -v -E \
      'pipe:|/dev/null|/proc' && echo "open $n";; esac; }; done; done
    """
    await background(node, "trace", watch)
    for number in range(10):
        await exec_in(node, "trace", f"e{number}", "true")
    assert await end(node, "trace") == []


# ---- CVE-2024-21626: descriptors of the host that leak ---------------------------------------------------------


async def test_no_descriptor_of_the_host_is_open(node: Node) -> None:
    lines = await node.output(
        "fds", "for f in /proc/self/fd/*; do readlink $f; done | grep -v -E 'pipe:|^/proc/'; true"
    )
    assert set(lines) <= {"/dev/null"}
    await background(node, "fds2", "sleep 1000")
    listed = await exec_in(node, "fds2", "e", "sh", "-c", "for f in /proc/self/fd/*; do readlink $f; done")
    assert {t for t in listed.split() if not t.startswith(("pipe:", "/proc/"))} <= {"/dev/null"}
    await end(node, "fds2")


@pytest.mark.parametrize("number", [3, 5, 7, 8, 9, 20])
async def test_a_working_directory_through_a_descriptor(node: Node, number: int) -> None:
    """`/proc/self/fd/N` as the working directory must not lead to a folder of the host that the runtime has open."""
    for cwd in (f"/proc/self/fd/{number}", f"/proc/self/fd/{number}/../../.."):
        try:
            lines = await node.output(
                f"cwd{number}{len(cwd)}", "pwd -P; ls -a ../../../../..", process={"cwd": cwd}
            )
        except SpawnError:
            continue
        assert lines[0].startswith(("/", "(unreachable)")) and "busybox" not in lines
        assert "home" not in lines and "usr" not in lines, lines
    await background(node, "cwd", "sleep 1000")
    with pytest.raises(SpawnError):
        await exec_in(node, "cwd", "e", "ls", cwd=f"/proc/self/fd/{number}")
    await end(node, "cwd")


async def test_a_working_directory_that_is_a_link_made_by_the_image(node: Node) -> None:
    (node.bundles.layer / "work").symlink_to("/proc/self/fd/7")
    try:
        lines = await node.output("link", "ls -a / ; pwd", process={"cwd": "/work"})
        assert "usr" not in lines
    except SpawnError as error:
        assert "chdir" in str(error) or "cwd" in str(error)


# ---- CVE-2025-31133, CVE-2025-52881: masked and read-only paths ------------------------------------------------


async def test_masks_are_of_the_hosts_dev_null_whatever_the_containers_is(node: Node) -> None:
    """An image (or a mount of another container) that puts a link at /dev/null must not choose what masks a path."""
    secret = node.bundles.folder / "secret"
    secret.write_text("core_pattern of the host")
    dev = node.bundles.folder / "dev"
    dev.mkdir()
    (dev / "null").symlink_to("/proc/sys/kernel/core_pattern")
    lines = await node.output(
        "mask",
        "wc -c < /proc/interrupts; readlink /dev/null; mount | grep -c ' /proc/interrupts '",
        mounts=[mount("bind", str(dev), "/dev", "rbind", "rprivate")],
    )
    assert lines[0] == "0" and lines[-1] == "1"
    # What is mounted there is a device that swallows everything.
    lines = await node.output(
        "mask2", "ls -l /proc/interrupts | cut -c 1; echo x > /proc/interrupts; cat /proc/interrupts | wc -c"
    )
    assert lines == ["c", "0"]


async def test_a_mask_that_is_a_link_stays_inside(node: Node) -> None:
    outside = node.bundles.folder / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    (node.bundles.layer / "masked").symlink_to(f"/../../../../..{outside}")
    await node.output("m1", "true", linux={"maskedPaths": ["/masked", "/masked/kept"]})
    assert (outside / "kept").read_text() == "kept"
    assert not any(str(outside) in line for line in Path("/proc/self/mountinfo").read_text().splitlines())


async def test_read_only_paths_cannot_be_swapped_by_a_racing_container(node: Node) -> None:
    """A volume shared with a racing container: the paths that are made read-only lie in it, and become links."""
    volume = node.bundles.folder / "volume"
    (volume / "proc").mkdir(parents=True)
    race = "cd /v; while :; do mv proc real; ln -s /proc/sys proc; rm proc; mv real proc; done"
    await background(node, "racer", race, mounts=[mount("bind", str(volume), "/v", "rbind", "rprivate")])
    for number in range(10):
        try:
            lines = await node.output(
                f"victim{number}",
                "mount | grep -c ' /proc/sys .*ro'",
                mounts=[mount("bind", str(volume), "/v", "rbind", "rprivate")],
                linux={"maskedPaths": ["/v/proc"], "readonlyPaths": ["/proc/sys", "/v/proc"]},
            )
        except SpawnError:
            continue
        assert int(lines[0]) >= 1
    await end(node, "racer")


# ---- CVE-2025-52565: /dev/console ------------------------------------------------------------------------------


async def test_the_console_is_not_mounted_through_a_link(node: Node) -> None:
    """A link at /dev/console of a /dev that comes from outside must not lead the terminal over a file of the host,
    nor a file of /proc to be unmasked."""
    target = node.bundles.folder / "target"
    target.write_text("untouched")
    dev = node.bundles.folder / "dev"
    dev.mkdir()
    (dev / "console").symlink_to(f"../../../../..{target}")
    code, _ = await node.run(
        "console", "true", tty=True, mounts=[mount("bind", str(dev), "/dev", "rbind", "rprivate")]
    )
    assert code == 0
    assert target.read_text() == "untouched" and stat.S_ISREG(target.lstat().st_mode)
    (node.bundles.layer / "dev").mkdir(exist_ok=True)
    (node.bundles.layer / "dev/console").symlink_to("/proc/interrupts")
    code, lines = await node.run(
        "console2", "sh", "-c", "mount | grep -c ' /proc/interrupts '; ls -l /dev/console", tty=True
    )
    assert lines[0].strip() == "1" and lines[1].startswith("c")


# ---- CVE-2021-30465: mount targets that are links, or become links ---------------------------------------------


@pytest.mark.parametrize("link", ["/", "/etc", "../../../../../../etc", "/proc/1/root", "/proc/self/cwd"])
async def test_a_mount_at_a_link_stays_in_the_container(node: Node, link: str) -> None:
    source = node.bundles.folder / "data"
    source.mkdir()
    (source / "mine").write_text("mine")
    (node.bundles.layer / "target").symlink_to(link)
    host_before = sorted(Path("/etc").iterdir())
    with contextlib.suppress(SpawnError):  # refused is as good
        await node.output(
            "link", "true", mounts=[mount("bind", str(source), "/target/below", "rbind", "rprivate")]
        )
    assert sorted(Path("/etc").iterdir()) == host_before
    assert not Path("/below").exists() and not Path("/etc/below").exists()


async def test_targets_that_a_racing_container_swaps(node: Node) -> None:
    """Two containers share a volume: one swaps a folder in it for a link to /, the other mounts below that folder."""
    volume, source = node.bundles.folder / "volume", node.bundles.folder / "data"
    (volume / "sub").mkdir(parents=True)
    source.mkdir()
    marker = f"marker-{os.getpid()}"
    (source / marker).write_text("x")
    race = f"cd /v; while :; do mv sub real; ln -s {'../' * 12} sub; rm sub; mv real sub; done"
    await background(node, "racer", race, mounts=[mount("bind", str(volume), "/v", "rbind", "rprivate")])
    for number in range(15):
        try:
            lines = await node.output(
                f"victim{number}",
                f"ls / /etc | grep -c {marker}; true",
                mounts=[
                    mount("bind", str(volume), "/v", "rbind", "rprivate"),
                    mount("bind", str(source), "/v/sub/swarmctl-attack", "rbind", "rprivate"),
                ],
            )
            assert lines
        except SpawnError:
            continue
    await end(node, "racer")
    # Made missing folders only in the volume or in the container's own root, never in the host's.
    assert not Path("/swarmctl-attack").exists()
    assert not Path("/", marker).exists()


async def test_settings_of_the_kernel_are_not_written_through_a_volume(node: Node) -> None:
    """A volume over /proc/sys with a link in place of a setting: the value must not land where the link leads
    (CVE-2025-52881)."""
    fake = node.bundles.folder / "fake"
    fake.mkdir()
    (fake / "msgmax").symlink_to("/victim")
    (node.bundles.layer / "victim").write_text("untouched")
    lines = await node.output(
        "sysctl",
        "cat /victim; echo; cat /p/sys/kernel/msgmax",
        mounts=[
            mount("bind", str(fake), "/proc/sys/kernel", "rbind", "rprivate"),
            mount("proc", "proc", "/p", "nosuid"),
        ],
        linux={"sysctl": {"kernel.msgmax": "9000"}, "readonlyPaths": [], "maskedPaths": []},
    )
    assert lines == ["untouched", "9000"]
