"""The supervisor goes on as another build under its containers: nothing ends, nothing is lost, nothing is doubled."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import struct
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
from runtime_bundle import WAIT_S, Node, cgroup_leftovers, started_node

from engine.config import LogOptions
from engine.errors import Unavailable
from engine.log_files import log_files
from engine.logs import read_logs
from engine.runtime import launch
from engine.runtime.client import Installation, RuntimeClient
from engine.runtime.renewal import Renewal
from engine.runtime.wire import LogStyle
from tests.commands import PATIENCE

pytestmark = [pytest.mark.root, pytest.mark.timeout(120 * PATIENCE)]

ROOT = Path(__file__).parents[2]
COUNTING = (
    "trap 'exit 7' TERM; i=0; while :; do echo line $i; i=$((i+1)); [ $((i % 20)) = 0 ] && sleep 0.01; done"
)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async for made in started_node(tmp_path):
        yield made


class Builds:
    """Installations of other builds: copies of the code with something changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self, name: str, **changes: tuple[str, str]) -> Installation:
        """`changes`: module of engine.runtime -> (text, what stands in its place)."""
        made = self.folder / name
        shutil.copytree(ROOT / "engine", made / "engine", ignore=shutil.ignore_patterns("__pycache__"))
        for module, (text, instead) in changes.items():
            path = made / f"engine/runtime/{module}.py"
            source = path.read_text()
            assert source.count(text) == 1, f"{module}: {text!r}"
            path.write_text(source.replace(text, instead))
        return Installation(sys.executable, (str(made), str(Path(msgspec.__file__).parents[1])), name)


@pytest.fixture
def builds(tmp_path: Path) -> Builds:
    return Builds(tmp_path / "builds")


async def upgrade(node: Node, to: Installation) -> None:
    """As a daemon of that build does when it connects."""
    node.client._renewal = Renewal(to)
    node.client._disconnect(node.client._channel)
    await node.client.list()


def release(node: Node) -> str:
    return node.client.supervisor.build.partition("+")[0]


def lines_of(node: Node, id: str) -> list[str]:
    return [json.loads(line)["log"] for line in node.bundles.log(id).splitlines()]


async def counted_on(node: Node, id: str) -> None:
    """Until its log has grown by some lines."""
    path = node.bundles.folder / id / "log"
    size = path.stat().st_size
    await until(lambda: path.stat().st_size > size + 5000)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not holds():
            await asyncio.sleep(0.005)


async def read_until(descriptor: int, wanted: bytes) -> bytes:
    got = b""
    async with asyncio.timeout(WAIT_S):
        while wanted not in got:
            read = await asyncio.to_thread(os.read, descriptor, 65536)
            assert read, f"the stream ended before {wanted!r}: {got!r}"
            got += read
    return got


async def read_all(descriptor: int) -> bytes:
    """Until its end, which the test has to bring about."""
    got = bytearray()
    while read := await asyncio.to_thread(os.read, descriptor, 65536):
        got += read
    return bytes(got)


def unframed(data: bytes) -> bytes:
    """The bytes of Docker's stdcopy frames."""
    plain, position = b"", 0
    while position < len(data):
        _, length = struct.unpack_from(">B3xI", data, position)
        plain += data[position + 8 : position + 8 + length]
        position += 8 + length
    return plain


def open_files(pid: int) -> list[str]:
    """What the descriptors of a process are, numbers of pipes and sockets left out."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists
            found.append(str(entry.readlink()).partition("[")[0])
    return sorted(found)


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def test_containers_logs_terminals_and_execs_go_on(node: Node, builds: Builds) -> None:
    supervisor = node.client.supervisor_pid
    counts = await node.client.start(node.bundles.start("counts", "sh", "-c", COUNTING, attachments=1))
    counted = await node.client.attach("counts", stdin=False)
    seen = asyncio.create_task(read_all(counted.output_fd))
    tty = await node.client.start(
        node.bundles.start("tty", "sh", "-c", "while read w; do echo got $w; done", tty=True)
    )
    typed = await node.client.attach("tty")
    await node.client.start(node.bundles.start("box", "sh", "-c", "cat; exit 3", stdin=True, stdin_once=True))
    box = await node.client.attach("box")
    process = node.bundles.process("sh", "-c", "read line; echo $line; exit 6")
    made = await node.client.exec("box", "e", process, tty=False, stdin=True)
    await counted_on(node, "counts")

    await upgrade(node, builds.make("2.0"))

    assert node.client.supervisor_pid == supervisor
    assert (release(node), node.client.supervisor.problem) == ("2.0", "")
    assert str(builds.folder).encode() in Path(f"/proc/{supervisor}/cmdline").read_bytes()
    running = {state.id: state.pid for state in await node.client.list() if state.running}
    assert (running["counts"], running["tty"]) == (counts.pid, tty.pid)
    assert typed.stdin_fd is not None and box.stdin_fd is not None and made.stdin_fd is not None
    os.write(typed.stdin_fd, b"it\n")
    assert b"got it" in await read_until(typed.output_fd, b"got it")
    await node.client.resize("tty", None, 30, 90)
    os.set_blocking(made.stdout_fd, True)
    os.write(made.stdin_fd, b"still here\n")
    assert await read_until(made.stdout_fd, b"\n") == b"still here\n"
    assert (await node.exits.of("box", "e")).exit_code == 6
    os.write(box.stdin_fd, b"to the box\n")
    os.close(box.stdin_fd)
    assert (await node.exits.of("box")).exit_code == 3
    assert unframed(await read_all(box.output_fd)) == b"to the box\n"
    assert lines_of(node, "box") == ["to the box\n"]
    await counted_on(node, "counts")
    await node.client.kill("counts", 15)
    assert (await node.exits.of("counts")).exit_code == 7
    lines = lines_of(node, "counts")
    assert lines == [f"line {n}\n" for n in range(len(lines))]
    assert unframed(await seen).decode() == "".join(lines)
    _, status = await node.run("next", "cat", "/proc/self/status")
    assert "SigBlk:\t0000000000000000" in status, "the supervisor's own mask has reached a container"
    await node.client.kill("tty", 9)
    assert (await node.exits.of("tty")).exit_code == 137
    assert made.stderr_fd is not None
    for descriptor in (
        *(counted.output_fd, typed.stdin_fd, typed.output_fd, box.output_fd),
        *(made.stdin_fd, made.stdout_fd, made.stderr_fd),
    ):
        os.close(descriptor)


STYLES = {
    "packed": LogStyle(compress=True, numbered=True),
    "dropping": LogStyle(buffer_bytes=16 << 20),
    "named": LogStyle(attributes={"tag": "x"}, buffer_bytes=16 << 20, numbered=True),
}


async def test_logs_of_every_style_go_on(node: Node, builds: Builds) -> None:
    for id, style in STYLES.items():
        wish = node.bundles.start(
            id, "sh", "-c", COUNTING, log_style=style, log_max_size=40_000, log_max_file=900
        )
        await node.client.start(wish)
    folder = node.bundles.folder
    await until(lambda: all(len(log_files(folder / id / "log")) > 3 for id in STYLES))

    await upgrade(node, builds.make("2.0"))

    assert release(node) == "2.0"
    before = {id: len(log_files(folder / id / "log")) for id in STYLES}
    await until(lambda: all(len(log_files(folder / id / "log")) > before[id] + 2 for id in STYLES))
    for id, style in STYLES.items():
        await node.client.kill(id, 15)
        assert (await node.exits.of(id)).exit_code == 7
        records = [r async for r in read_logs(folder / id / "log", LogOptions(), lambda: True)]
        assert [r.data for r in records] == [b"line %d\n" % n for n in range(len(records))], id
        assert {r.attributes and r.attributes["tag"] for r in records} == {style.attributes.get("tag")}
        if style.numbered:
            assert [r.number for r in records] == list(range(1, len(records) + 1)), id
    assert any((folder / "packed").glob("log.*.gz"))


async def test_what_ends_in_the_window_is_reaped_and_reported(node: Node, builds: Builds) -> None:
    """The new code is stopped before it takes over; meanwhile a container and an exec end."""
    window = (
        "        listener, lock = socket.socket(fileno=state.listener), state.lock\n",
        "        listener, lock = socket.socket(fileno=state.listener), state.lock\n"
        "        (run_dir / 'window').touch()\n"
        "        while not (run_dir / 'go').exists():\n"
        "            time.sleep(0.005)\n",
    )
    started = await node.client.start(
        node.bundles.start("short", "sh", "-c", "read x; echo last words; exit 5", stdin=True)
    )
    given = await node.client.attach("short")
    await node.client.start(node.bundles.start("box", "sleep", "100"))
    made = await node.client.exec(
        "box", "e", node.bundles.process("sh", "-c", "read x; exit 4"), tty=False, stdin=True
    )
    upgrading = asyncio.create_task(upgrade(node, builds.make("2.0", supervisor=window)))
    await until((node.run_dir / "window").exists)
    assert given.stdin_fd is not None and made.stdin_fd is not None
    os.write(given.stdin_fd, b"\n")
    os.write(made.stdin_fd, b"\n")
    await until(lambda: (state_of(started.pid), state_of(made.pid)) == ("Z", "Z"))
    (node.run_dir / "go").touch()
    await upgrading
    assert ((await node.exits.of("short")).exit_code, release(node)) == (5, "2.0")
    assert (await node.exits.of("box", "e")).exit_code == 4
    assert lines_of(node, "short") == ["last words\n"]
    assert unframed(await read_all(given.output_fd)) == b"last words\n"
    await node.client.forget("short")
    assert cgroup_leftovers(f"{node.bundles.cgroup_parent}/short") == []
    assert [pid for pid in (started.pid, made.pid) if Path(f"/proc/{pid}").exists()] == []
    assert made.stderr_fd is not None
    for descriptor in (given.stdin_fd, given.output_fd, made.stdin_fd, made.stdout_fd, made.stderr_fd):
        os.close(descriptor)


async def test_a_new_daemon_upgrades_and_learns_what_had_ended(node: Node, builds: Builds) -> None:
    started = await node.client.start(node.bundles.start("stays", "sleep", "100"))
    await node.client.start(node.bundles.start("ended", "sh", "-c", "exit 9"))
    await node.exits.of("ended")
    await node.client.close()
    node.client = await RuntimeClient.connect(node.run_dir, builds.make("2.0"))
    assert release(node) == "2.0"
    states = {state.id: state for state in await node.client.list()}
    assert (states["ended"].running, states["ended"].exit_code) == (False, 9)
    assert (states["stays"].running, states["stays"].pid) == (True, started.pid)
    await node.client.forget("ended")


async def test_twenty_upgrades_lose_no_line_and_leak_no_descriptor(node: Node, builds: Builds) -> None:
    supervisor = node.client.supervisor_pid
    await node.client.start(node.bundles.start("counts", "sh", "-c", COUNTING, attachments=1))
    counted = await node.client.attach("counts", stdin=False)
    seen = asyncio.create_task(read_all(counted.output_fd))
    await node.client.start(node.bundles.start("tty", "cat", tty=True))
    two = [builds.make("2.0"), builds.make("3.0", wire=("MARKER =", "# Another build.\nMARKER ="))]
    await upgrade(node, two[1])
    await counted_on(node, "counts")
    before, ours = open_files(supervisor), len(open_files(os.getpid()))
    for number in range(20):
        await upgrade(node, two[number % 2])
        await counted_on(node, "counts")
        assert release(node) == two[number % 2].version
    assert node.client.supervisor_pid == supervisor
    assert open_files(supervisor) == before
    assert len(open_files(os.getpid())) == ours
    await node.client.kill("counts", 15)
    assert (await node.exits.of("counts")).exit_code == 7
    lines = lines_of(node, "counts")
    assert lines == [f"line {n}\n" for n in range(len(lines))]
    assert unframed(await seen).decode() == "".join(lines)
    os.close(counted.output_fd)


async def test_output_that_nobody_takes_yet_is_handed_over(node: Node, builds: Builds) -> None:
    """An attacher that does not read, a line that has not ended, output that is held for an attachment."""
    script = (
        "i=0; while [ $i -lt 30000 ]; do echo line $i; i=$((i+1)); done; echo -n half; read x; echo ' a line'"
    )
    await node.client.start(node.bundles.start("slow", "sh", "-c", script, attachments=1, stdin=True))
    slow = await node.client.attach("slow")
    await until(lambda: len(lines_of(node, "slow")) == 30000)
    newer = builds.make("2.0")  # slow, and output is held for some seconds only
    await node.client.start(
        node.bundles.start("held", "sh", "-c", "echo early; read x", attachments=1, stdin=True)
    )
    await upgrade(node, newer)
    held = await node.client.attach("held")
    assert slow.stdin_fd is not None and held.stdin_fd is not None
    os.write(slow.stdin_fd, b"\n")
    os.write(held.stdin_fd, b"\n")
    expected = "".join(f"line {n}\n" for n in range(30000)) + "half a line\n"
    assert unframed(await read_all(slow.output_fd)).decode() == expected
    assert unframed(await read_all(held.output_fd)) == b"early\n"
    assert (await node.exits.of("slow")).exit_code == 0
    assert lines_of(node, "slow")[-1] == "half a line\n"
    for descriptor in (slow.stdin_fd, slow.output_fd, held.stdin_fd, held.output_fd):
        os.close(descriptor)


BROKEN = {
    "does not load": ({"supervisor": ("import collections\n", "import no_such_module\n")}, "no_such_module"),
    "cannot take over": (
        {"supervised": ("        container._held_until = state.held_until\n", "        return 1 / 0\n")},
        "ZeroDivisionError",
    ),
    "reads an older state only": (
        {"handover": ("STATE_VERSION, STATE_VERSION_MIN = 2, 1", "STATE_VERSION, STATE_VERSION_MIN = 0, 0")},
        "the state of build",
    ),
    "ends by itself": (
        {"supervisor": ("    code = 0\n", "    os.kill(os.getpid(), 9)\n    code = 0\n")},
        "signal 9",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
async def test_code_that_cannot_take_over_leaves_everything_as_it_is(
    node: Node, builds: Builds, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    changes, reason = BROKEN[how]
    build, supervisor = node.client.supervisor.build, node.client.supervisor_pid
    started = await node.client.start(node.bundles.start("counts", "sh", "-c", COUNTING))
    await counted_on(node, "counts")
    files = open_files(supervisor)
    await upgrade(node, builds.make("2.0", **changes))
    facts = node.client.supervisor
    assert (facts.pid, facts.build) == (supervisor, build)
    assert reason in facts.problem
    assert any(
        f"stays build {build}, not 2.0+" in r.getMessage() and reason in r.getMessage()
        for r in caplog.records
    )
    await until(lambda: open_files(supervisor) == files)
    assert [(s.pid, s.running) for s in await node.client.list()] == [(started.pid, True)]
    await node.client.kill("counts", 15)
    assert (await node.exits.of("counts")).exit_code == 7
    lines = lines_of(node, "counts")
    assert lines == [f"line {n}\n" for n in range(len(lines))]
    assert await node.run("next", "echo", "works") == (0, ["works"])
    await upgrade(node, builds.make("2.1"))
    assert (release(node), node.client.supervisor_pid) == ("2.1", supervisor)


async def test_an_interpreter_that_is_missing(node: Node, builds: Builds) -> None:
    build = node.client.supervisor.build
    made = builds.make("2.0")
    await upgrade(node, Installation("/no/such/python", made.folders, "2.0"))
    assert node.client.supervisor.build == build
    assert "/no/such/python cannot be executed: No such file" in node.client.supervisor.problem
    assert await node.run("next", "echo", "works") == (0, ["works"])


NEWER_STATE = {"handover": ("    return 2 if any(", "    return 9 if True or any(")}


async def test_a_downgrade_goes_on_with_the_newer_supervisor(node: Node, builds: Builds) -> None:
    newer = builds.make(
        "9.0", wire=("PROTOCOL, PROTOCOL_MIN = 2, 2", "PROTOCOL, PROTOCOL_MIN = 9, 2"), **NEWER_STATE
    )
    await node.client.shutdown()
    node.client = await RuntimeClient.connect(node.run_dir, newer)
    started = await node.client.start(node.bundles.start("stays", "sleep", "100"))
    await node.client.close()
    node.client = await RuntimeClient.connect(node.run_dir)
    facts = node.client.supervisor
    assert (release(node), facts.protocol) == ("9.0", 9)
    assert f"the state of build {facts.build} has version 9" in facts.problem
    assert [(s.pid, s.running) for s in await node.client.list()] == [(started.pid, True)]
    assert (await node.client.stats("stays"))["pids"] == 1


async def test_a_daemon_that_speaks_no_common_protocol_says_what_to_do(node: Node, builds: Builds) -> None:
    protocol = ("PROTOCOL, PROTOCOL_MIN = 2, 2", "PROTOCOL, PROTOCOL_MIN = 9, 9")
    await node.client.shutdown()
    newer = builds.make("9.0", wire=protocol, **NEWER_STATE)
    await launch.launch(node.run_dir, newer.release())
    with pytest.raises(Unavailable) as refusal:
        await RuntimeClient.connect(node.run_dir)
    for said in ("speaks protocol 9, this daemon 2", "has version 9", "install the version of swarmctl"):
        assert said in str(refusal.value)
    assert newer.release().build in str(refusal.value)
    (named,) = map(int, re.findall(r"\(kill (\d+)\)", str(refusal.value)))
    os.kill(named, signal.SIGTERM)
    os.waitpid(named, 0)
    node.client = await RuntimeClient.connect(node.run_dir)
    node.exits = type(node.exits)(node.client)
    assert await node.run("next", "echo", "works") == (0, ["works"])


async def test_a_supervisor_from_before_builds_were_told_goes_on(node: Node, builds: Builds) -> None:
    told = ("            build=self._build,\n            orphans", "            orphans")
    asked = ('            "reexec": self._reexec,\n', "")
    older = builds.make("0.0", supervisor=told)
    path = Path(older.folders[0], "engine/runtime/supervisor.py")
    assert asked[0] in path.read_text()
    path.write_text(path.read_text().replace(*asked))
    await node.client.shutdown()
    await launch.launch(node.run_dir, older.release())
    node.client = await RuntimeClient.connect(node.run_dir)
    node.exits = type(node.exits)(node.client)
    assert node.client.supervisor.build == ""
    assert "end its containers and restart the daemon" in node.client.supervisor.problem
    assert await node.run("next", "echo", "works") == (0, ["works"])
