"""Execs and the probes that use them, on a runtime that runs plain processes of this machine."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from engine import execs as execs_module
from engine.background import BackgroundTasks
from engine.config import ExecConfig
from engine.container import Container, Status
from engine.containers import Containers
from engine.errors import Conflict, InvalidParameter, NotFound, StartFailed
from engine.events import EventBus
from engine.execs import Execs
from engine.health import OUTPUT_BYTES_MAX, ExecProber
from engine.preparation import HostPreparation
from engine.runtime.client import ExecStarted, ExitEvent, RuntimeClient, SpawnError
from engine.runtime.users import ResolvedUser
from engine.state import StateStore
from tests.records import container_record, running


class Processes:
    """The part of the runtime that execs use."""

    def __init__(self) -> None:
        self.execs: Execs | None = None
        self.asked: list[dict[str, Any]] = []
        self.children: list[subprocess.Popen[bytes]] = []
        self.waiting: list[asyncio.Task[None]] = []

    async def exec(self, id: str, exec_id: str, process: dict[str, Any], **kw: Any) -> ExecStarted:
        self.asked.append(process)
        if process["args"][0] == "missing":
            raise SpawnError("execve", 2, 'exec: "missing": executable file not found in $PATH', 127)
        output, writing = os.pipe()
        child = subprocess.Popen(process["args"], stdout=writing, stderr=writing, stdin=subprocess.DEVNULL)
        os.close(writing)
        self.children.append(child)
        self.waiting.append(asyncio.ensure_future(self._wait(id, exec_id, child)))
        return ExecStarted(child.pid, None, output, None)

    async def _wait(self, id: str, exec_id: str, child: subprocess.Popen[bytes]) -> None:
        code = await asyncio.to_thread(child.wait)
        assert self.execs is not None
        self.execs.exited(
            ExitEvent(
                id=id,
                exec_id=exec_id,
                pid=child.pid,
                exit_code=code & 0xFF,
                oom_killed=False,
                finished_at=1.0,
            )
        )

    async def pids(self, id: str) -> list[int]:
        return [child.pid for child in self.children]


class FixedUser:
    def exec_user(self, container: Container, user: str) -> ResolvedUser:
        return ResolvedUser(uid=1000, gid=1000, home="/home/app")


class Setup:
    def __init__(self, folder: Path) -> None:
        self.store = StateStore(folder / "engine.db")
        self.container = container_record(state=running())
        self.store.add(self.container)
        self.processes = Processes()
        self.background = BackgroundTasks()
        self.execs = Execs(
            Containers(self.store),
            cast(RuntimeClient, self.processes),
            cast(HostPreparation, FixedUser()),
            EventBus(),
            self.background,
        )
        self.processes.execs = self.execs

    def create(self, *command: str, **fields: Any) -> str:
        return self.execs.create("web", ExecConfig(cmd=list(command), attach_stdout=True, **fields))

    async def start(self, exec_id: str) -> Any:
        return await self.execs.start(exec_id, detach=False, tty=False, console_size=None)

    async def probe(self, *command: str, timeout_s: float = 30.0) -> tuple[int, str]:
        return await ExecProber(self.execs).probe(self.container, list(command), timeout_s)


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[Setup]:
    made = Setup(tmp_path)
    yield made
    for child in made.processes.children:
        child.kill()
    await asyncio.gather(*made.processes.waiting)
    await made.background.close()
    made.store.close()


async def test_an_exec_runs_once_and_tells_its_code(setup: Setup) -> None:
    made = setup.create("sh", "-c", "echo said; exit 3", env=["A=1"], working_dir="/srv")
    session = await setup.start(made)
    assert await session.read() == (1, b"said\n")
    assert await setup.execs.wait(made) == 3
    await session.close()
    shown = setup.execs.inspect(made)
    assert (shown["Running"], shown["ExitCode"], shown["ContainerID"]) == (False, 3, setup.container.id)
    process = setup.processes.asked[0]
    assert (process["cwd"], process["user"]["uid"]) == ("/srv", 1000)
    assert {"A=1", "HOME=/home/app"} <= set(process["env"])
    with pytest.raises(Conflict, match="has already run"):
        await setup.start(made)


async def test_a_command_that_is_not_there(setup: Setup) -> None:
    made = setup.create("missing")
    with pytest.raises(StartFailed) as told:
        await setup.start(made)
    assert told.value.exit_code == 127
    assert setup.execs.inspect(made)["ExitCode"] == 127


def test_what_cannot_be_made(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    with pytest.raises(InvalidParameter, match="No exec command specified"):
        setup.create()
    setup.container.state.status = Status.PAUSED
    with pytest.raises(Conflict, match="is paused"):
        setup.create("true")
    setup.container.state.status = Status.EXITED
    with pytest.raises(Conflict, match="is not running"):
        setup.create("true")
    setup.store.close()


async def test_old_ones_are_forgotten_but_never_one_that_runs(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execs_module, "EXECS_KEPT_MAX", 3)
    runs = setup.create("sleep", "100")
    session = await setup.start(runs)
    others = [setup.create("true") for _ in range(4)]
    assert setup.execs.inspect(runs)["Running"] is True
    with pytest.raises(NotFound):
        setup.execs.inspect(others[0])
    assert setup.execs.inspect(others[-1])["ExitCode"] is None
    await session.close()


async def test_a_probe_tells_code_and_output_and_leaves_no_exec(setup: Setup) -> None:
    assert await setup.probe("sh", "-c", "echo fine") == (0, "fine\n")
    assert await setup.probe("sh", "-c", "echo bad >&2; exit 4") == (4, "bad\n")
    assert setup.execs._execs == {}


async def test_a_probe_may_write_as_much_as_it_likes(setup: Setup) -> None:
    code, output = await setup.probe("sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x")
    assert (code, output) == (0, "x" * OUTPUT_BYTES_MAX + "...")


async def test_a_probe_that_takes_too_long_is_killed(setup: Setup) -> None:
    code, output = await setup.probe("sh", "-c", "echo begun; exec sleep 100", timeout_s=0.3)
    assert code == -1
    assert output.startswith("Health check exceeded timeout (300ms): ")
    await asyncio.wait_for(asyncio.gather(*setup.processes.waiting), 10)
    assert setup.processes.children[0].returncode == -9
    assert setup.execs._execs == {}


async def test_a_probe_whose_command_is_not_there_fails(setup: Setup) -> None:
    with pytest.raises(StartFailed, match="executable file not found"):
        await setup.probe("missing")
    assert setup.execs._execs == {}
