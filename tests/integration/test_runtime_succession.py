"""The supervisor is killed: its successor adopts the containers, and nothing of them is lost."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from runtime_bundle import WAIT_S, Node, cgroup_leftovers, started_node

from engine.errors import Unavailable
from engine.runtime import syscalls
from engine.runtime.client import RuntimeClient
from tests.commands import PATIENCE

pytestmark = [pytest.mark.root, pytest.mark.timeout(60 * PATIENCE)]

COUNTING = "i=0; while [ $i -lt 150 ]; do echo line $i; i=$((i+1)); sleep 0.005; done; exit 7"


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async for made in started_node(tmp_path):
        yield made


async def replaced(node: Node, lost: int) -> None:
    """Until another supervisor serves, and the killed one is no zombie."""
    os.waitpid(lost, 0)
    async with asyncio.timeout(WAIT_S):
        while node.client.supervisor_pid == lost:
            await asyncio.sleep(0.01)
        while True:
            try:
                await node.client.list()
                return
            except Unavailable:
                await asyncio.sleep(0.01)


async def kill_supervisor(node: Node) -> None:
    lost = node.client.supervisor_pid
    os.kill(lost, 9)
    await replaced(node, lost)


def lines_of(node: Node, id: str) -> list[str]:
    return [json.loads(line)["log"] for line in node.bundles.log(id).splitlines()]


async def read_until(descriptor: int, wanted: bytes) -> bytes:
    got = b""
    async with asyncio.timeout(WAIT_S):
        while wanted not in got:
            got += await asyncio.to_thread(os.read, descriptor, 4096)
    return got


async def test_no_line_and_no_exit_code_is_lost_over_three_supervisors(node: Node) -> None:
    started = await node.client.start(node.bundles.start("counts", "sh", "-c", COUNTING))
    for _ in range(3):
        await asyncio.sleep(0.15)
        await node.client.pause("counts")  # what it had read and not yet written would be lost
        await asyncio.sleep(0.05)
        await kill_supervisor(node)
        await node.client.resume("counts")
        assert [(s.id, s.pid, s.running) for s in await node.client.list()] == [("counts", started.pid, True)]
    event = await node.exits.of("counts")
    assert (event.pid, event.exit_code) == (started.pid, 7)
    assert lines_of(node, "counts") == [f"line {n}\n" for n in range(150)]
    await node.client.forget("counts")
    assert cgroup_leftovers(f"{node.bundles.cgroup_parent}/counts") == []


async def test_an_end_between_two_supervisors_is_known(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    hand_over = RuntimeClient._hand_over

    async def late(self: RuntimeClient, orphans: list[str]) -> None:
        await asyncio.sleep(0.6)
        await hand_over(self, orphans)

    monkeypatch.setattr(RuntimeClient, "_hand_over", late)
    await node.client.start(node.bundles.start("short", "sh", "-c", "sleep 0.2; echo last words; exit 5"))
    await kill_supervisor(node)
    assert (await node.exits.of("short")).exit_code == 5
    assert lines_of(node, "short") == ["last words\n"]


async def test_an_adopted_container_is_like_any_other(node: Node) -> None:
    await node.client.start(node.bundles.start("box", "sh", "-c", "cat; sleep 100", stdin=True))
    await kill_supervisor(node)
    attached = await node.client.attach("box")
    assert attached.stdin_fd is not None
    os.write(attached.stdin_fd, b"hello\n")
    assert b"hello\n" in await read_until(attached.output_fd, b"hello\n")
    os.close(attached.stdin_fd)
    os.close(attached.output_fd)
    made = await node.client.exec(
        "box", "e", node.bundles.process("sh", "-c", "exit 3"), tty=False, stdin=False
    )
    assert (await node.exits.of("box", "e")).exit_code == 3
    for descriptor in (made.stdout_fd, made.stderr_fd):
        assert descriptor is not None
        os.close(descriptor)
    await node.client.pause("box")
    await node.client.resume("box")
    assert (await node.client.stats("box"))["pids"] >= 1
    await node.client.kill("box", 15)
    await node.client.kill("box", 9)
    assert (await node.exits.of("box")).exit_code == 137
    assert lines_of(node, "box") == ["hello\n"]


async def test_a_terminal_goes_on(node: Node) -> None:
    await node.client.start(
        node.bundles.start("tty", "sh", "-c", "read word; echo got $word; exit 4", tty=True)
    )
    await kill_supervisor(node)
    await node.client.resize("tty", None, 30, 90)
    attached = await node.client.attach("tty")
    assert attached.stdin_fd is not None
    os.write(attached.stdin_fd, b"it\n")
    assert b"got it" in await read_until(attached.output_fd, b"got it")
    assert (await node.exits.of("tty")).exit_code == 4
    os.close(attached.stdin_fd)
    os.close(attached.output_fd)


async def test_execs_of_the_former_supervisor_report_their_ends(node: Node) -> None:
    await node.client.start(node.bundles.start("host", "sleep", "100"))
    process = node.bundles.process("sh", "-c", "read line; echo $line; exit 6")
    made = await node.client.exec("host", "e", process, tty=False, stdin=True)
    await kill_supervisor(node)
    assert made.stdin_fd is not None and made.stderr_fd is not None
    os.write(made.stdin_fd, b"still here\n")
    assert await read_until(made.stdout_fd, b"\n") == b"still here\n"
    assert (await node.exits.of("host", "e")).exit_code == 6
    for descriptor in (made.stdin_fd, made.stdout_fd, made.stderr_fd):
        os.close(descriptor)


async def test_a_restarted_daemon_can_hand_over_what_it_did_not_start(node: Node) -> None:
    await node.client.start(node.bundles.start("counts", "sh", "-c", f"sleep 0.5; {COUNTING}"))
    await node.client.close()
    node.client = await RuntimeClient.connect(node.run_dir)
    node.exits = type(node.exits)(node.client)
    # Now this process is no reaper of orphans, as a restarted daemon is none: the kernel has to tell.
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 0)
    await kill_supervisor(node)
    kernel = tuple(map(int, platform.release().split("-")[0].split(".")[:2]))
    assert (await node.exits.of("counts")).exit_code == (7 if kernel >= (6, 15) else 255)
    assert lines_of(node, "counts") == [f"line {n}\n" for n in range(150)]


async def test_many_are_adopted_and_a_full_pipe_waits_for_its_reader(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand_over = RuntimeClient._hand_over

    async def late(self: RuntimeClient, orphans: list[str]) -> None:
        await asyncio.sleep(0.8)
        await hand_over(self, orphans)

    monkeypatch.setattr(RuntimeClient, "_hand_over", late)
    script = "sleep 0.4; i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done; exit 2"
    names = [f"c{n}" for n in range(8)]
    for name in names:
        await node.client.start(node.bundles.start(name, "sh", "-c", script))
    await kill_supervisor(node)
    for name in names:
        assert (await node.exits.of(name)).exit_code == 2
        assert lines_of(node, name) == [f"{n}\n" for n in range(20000)]


async def test_what_nobody_can_hand_over_is_ended(node: Node) -> None:
    started = await node.client.start(node.bundles.start("orphan", "sleep", "100"))
    node.client._custody.drop("orphan")
    await kill_supervisor(node)
    event = await node.exits.of("orphan")
    assert (event.pid, event.exit_code) == (started.pid, 137)
    assert cgroup_leftovers(f"{node.bundles.cgroup_parent}/orphan") == []
    assert [(state.id, state.running) for state in await node.client.list()] == [("orphan", False)]
    await node.client.forget("orphan")
    assert await node.run("next", "echo", "works") == (0, ["works"])


async def test_descriptors_of_the_daemon_are_those_of_what_runs(node: Node) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(5):
        assert await node.run(f"c{number}", "true") == (0, [])
    await node.client.start(node.bundles.start("stays", "sleep", "100"))
    made = await node.client.exec("stays", "e", node.bundles.process("true"), tty=False, stdin=False)
    await node.exits.of("stays", "e")
    for descriptor in (made.stdout_fd, made.stderr_fd):
        assert descriptor is not None
        os.close(descriptor)
    assert len(list(Path("/proc/self/fd").iterdir())) == before + 3
    await kill_supervisor(node)
    await node.client.kill("stays", 9)
    await node.exits.of("stays")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


DAEMON = """
import asyncio, sys
sys.path[:0] = {paths!r}
from pathlib import Path
from runtime_bundle import Bundles
from engine.runtime.client import RuntimeClient

async def main():
    client = await RuntimeClient.connect(Path({run_dir!r}))
    bundles = Bundles(Path({folder!r}), {parent!r})
    script = "i=0; while [ $i -lt 60 ]; do echo line $i; i=$((i+1)); sleep 0.01; done; exit 4"
    await client.start(bundles.start("abandoned", "sh", "-c", script))
    print("started", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_kill_of_the_daemon_loses_neither_logs_nor_exit_codes(node: Node) -> None:
    folder = node.bundles.folder / "daemon"
    folder.mkdir()
    code = DAEMON.format(
        paths=[str(Path(__file__).parents[2]), str(Path(__file__).parent)],
        run_dir=str(node.run_dir),
        folder=str(folder),
        parent=node.bundles.cgroup_parent,
    )
    daemon = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert daemon.stdout is not None
    assert await daemon.stdout.readline() == b"started\n"
    daemon.kill()
    await daemon.wait()
    event = await node.exits.of("abandoned")
    assert event.exit_code == 4
    logged = [json.loads(line)["log"] for line in (folder / "abandoned/log").read_text().splitlines()]
    assert logged == [f"line {n}\n" for n in range(60)]
