"""The state machine around starts and exits, on a runtime and a host that only write down what was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from engine.background import BackgroundTasks
from engine.config import HostConfig, RestartPolicy
from engine.container import Container, State, Status
from engine.containers import Containers
from engine.errors import Conflict, EngineFailure, NotModified, StartFailed
from engine.events import EventBus
from engine.lifecycle import Lifecycle
from engine.runtime.client import ContainerStart, ExitEvent, RuntimeClient, SpawnError
from engine.state import StateStore
from tests.records import container_record, exited, running


class Host:
    """Stands for both seams: the runtime and the preparation."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.refuses: Exception | None = None
        self.pid = 100
        self.starting, self.may_start = asyncio.Event(), asyncio.Event()
        self.may_start.set()

    async def start(self, request: ContainerStart) -> SimpleNamespace:
        if self.refuses is not None:
            raise self.refuses
        self.starting.set()
        await self.may_start.wait()
        self.pid += 1
        self.did.append("start")
        return SimpleNamespace(pid=self.pid, start_ticks=1, started_at=2000.0)

    async def kill(self, id: str, number: int) -> None:
        self.did.append(f"signal {number}")

    async def forget(self, id: str) -> None:
        self.did.append("forget")

    async def prepare(self, container: Container) -> ContainerStart:
        return ContainerStart(id=container.id, spec={}, rootfs=cast(Any, None), cgroup="x")

    async def release(self, container: Container) -> None:
        self.did.append("release")

    async def destroy(self, container: Container, *, volumes: bool) -> None:
        self.did.append(f"destroy volumes={volumes}")


class Setup:
    def __init__(self, folder: Path) -> None:
        self.host = Host()
        self.store = StateStore(folder / "engine.db")
        self.background = BackgroundTasks()
        self.events = EventBus()
        self.lifecycle = Lifecycle(
            Containers(self.store),
            cast(RuntimeClient, self.host),
            self.host,
            self.events,
            self.background,
        )

    def add(self, state: State, policy: str = "", retries: int = 0) -> Container:
        wish = RestartPolicy(name=policy, maximum_retry_count=retries)
        made = container_record(host=HostConfig(restart_policy=wish), state=state)
        self.store.add(made)
        return made

    async def end(self, container: Container, code: int) -> None:
        """The first process ends; returns when a restart that follows at once has happened."""
        self.exited(container, code)
        await self.idle()

    def exited(self, container: Container, code: int) -> None:
        """The runtime says that the first process has ended."""
        event = ExitEvent(
            id=container.id,
            exec_id=None,
            pid=container.state.pid,
            exit_code=code,
            oom_killed=False,
            finished_at=2001.0,
        )
        self.lifecycle.exited(event)

    async def idle(self) -> None:
        while tasks := tuple(self.background._tasks):
            await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[Setup]:
    made = Setup(tmp_path)
    yield made
    await made.background.close()
    made.store.close()


async def test_a_start_by_hand_gives_all_retries_again(setup: Setup) -> None:
    container = setup.add(exited(1, restart_count=3, quick_exits=4), "on-failure", retries=3)
    await setup.lifecycle.start(container)
    assert (container.state.restart_count, container.state.quick_exits) == (0, 0)
    await setup.end(container, 1)
    assert container.state.status is Status.RUNNING
    assert container.state.restart_count == 1


async def test_a_start_whose_caller_has_gone_goes_to_its_end(setup: Setup) -> None:
    """Its process may be there already: it must be known, and found by whoever comes next."""
    container = setup.add(exited(0))
    setup.host.may_start.clear()
    start = asyncio.ensure_future(setup.lifecycle.start(container))
    await setup.host.starting.wait()
    start.cancel()
    setup.host.may_start.set()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert (container.state.status, container.state.pid) == (Status.RUNNING, setup.host.pid)
    assert setup.host.did == ["start"]
    assert setup.store.containers[container.id].state.pid == setup.host.pid
    with pytest.raises(NotModified):
        await setup.lifecycle.start(container)


async def test_a_stop_tells_of_its_signals_before_the_end(setup: Setup) -> None:
    container = setup.add(running())
    told: list[str] = []
    publish = setup.events.publish

    def noted(kind: str, action: str, actor_id: str, attributes: Any = None, **options: Any) -> Any:
        told.append(f"{action} {attributes.get('signal', '')}".strip())
        return publish(kind, action, actor_id, attributes, **options)

    setup.events.publish = noted  # type: ignore[method-assign]
    stopping = asyncio.ensure_future(setup.lifecycle.stop(container, 0))
    while "signal 9" not in setup.host.did:
        await asyncio.sleep(0)
    setup.exited(container, 137)
    await stopping
    assert told == ["kill 15", "kill 9", "die", "stop"]


async def test_on_failure_gives_up_after_its_retries_and_says_how_often_it_tried(setup: Setup) -> None:
    container = setup.add(running(restart_count=2), "on-failure", retries=2)
    await setup.end(container, 5)
    state = container.state
    assert (state.status, state.exit_code, state.restart_count) == (Status.EXITED, 5, 2)
    assert setup.host.did == ["release", "forget"]


async def test_an_exit_of_an_earlier_process_is_not_taken_for_the_present_one(setup: Setup) -> None:
    container = setup.add(running())
    late = ExitEvent(id=container.id, exec_id=None, pid=1, exit_code=9, oom_killed=False, finished_at=2001.0)
    setup.lifecycle.exited(late)
    await setup.idle()
    assert container.state.status is Status.RUNNING


@pytest.mark.parametrize(
    ("policy", "stopped_by_user", "runs"),
    [
        ("always", False, True),
        ("always", True, True),
        ("unless-stopped", False, True),
        ("unless-stopped", True, False),
        ("on-failure", False, False),
        ("", False, False),
    ],
)
async def test_what_the_daemon_starts_when_it_starts(
    setup: Setup, policy: str, stopped_by_user: bool, runs: bool
) -> None:
    container = setup.add(exited(1, stopped_by_user=stopped_by_user), policy)
    await setup.lifecycle.recover(container, None, running=False)
    await setup.idle()
    assert container.state.status is (Status.RUNNING if runs else Status.EXITED)


async def test_a_container_that_was_never_started_stays_so(setup: Setup) -> None:
    container = setup.add(State(), "always")
    await setup.lifecycle.recover(container, None, running=False)
    assert container.state.status is Status.CREATED


async def test_a_lost_container_is_an_exit_that_its_policy_answers(setup: Setup) -> None:
    container = setup.add(running(), "always")
    await setup.lifecycle.recover(container, None, running=False)
    await setup.idle()
    assert (container.state.status, container.state.restart_count) == (Status.RUNNING, 1)


async def test_a_removal_that_was_cut_off_is_finished(setup: Setup) -> None:
    container = setup.add(State(status=Status.REMOVING))
    await setup.lifecycle.recover(container, None, running=False)
    assert setup.store.containers == {}
    assert setup.host.did == ["release", "destroy volumes=False"]


@pytest.mark.parametrize(("before", "after"), [(State(), Status.CREATED), (exited(0), Status.EXITED)])
async def test_a_start_that_fails_is_told_and_undone(setup: Setup, before: State, after: Status) -> None:
    container = setup.add(before)
    setup.host.refuses = SpawnError("execve", 2, 'exec: "nope": not found', 127)
    with pytest.raises(StartFailed) as told:
        await setup.lifecycle.start(container)
    assert told.value.exit_code == 127
    assert (container.state.status, container.state.exit_code) == (after, 127)
    assert setup.host.did == ["release"]
    assert (await setup.lifecycle.wait(container, "")).exit_code == 127


async def test_a_removal_that_fails_half_way_leaves_a_dead_container(setup: Setup) -> None:
    async def destroy(container: Container, *, volumes: bool) -> None:
        raise OSError(16, "Device or resource busy")

    setup.host.destroy = destroy
    container = setup.add(exited(0))
    with pytest.raises(EngineFailure, match="cannot remove container web"):
        await setup.lifecycle.remove(container, force=False, volumes=False)
    assert container.state.status is Status.DEAD
    assert setup.store.containers == {container.id: container}


@pytest.mark.parametrize(("signal", "restarts"), [("TERM", False), ("HUP", True)])
async def test_who_sends_the_stop_signal_wants_it_to_stay_down(
    setup: Setup, signal: str, restarts: bool
) -> None:
    container = setup.add(running(), "always")
    await setup.lifecycle.kill(container, signal)
    await setup.end(container, 143)
    assert container.state.status is (Status.RUNNING if restarts else Status.EXITED)


@pytest.mark.parametrize("status", [Status.RUNNING, Status.PAUSED, Status.RESTARTING])
async def test_what_is_up_is_removed_by_force_only(setup: Setup, status: Status) -> None:
    container = setup.add(State(status=status, started_at=1.0, finished_at=2.0), "always")
    with pytest.raises(Conflict, match=f"container is {status}: stop the container"):
        await setup.lifecycle.remove(container, force=False, volumes=False)
    assert setup.host.did == []


async def test_a_container_that_waits_for_its_restart_can_be_stopped_and_removed(setup: Setup) -> None:
    container = setup.add(State(status=Status.RESTARTING, started_at=1.0, finished_at=2.0), "always")
    await setup.lifecycle.stop(container)
    assert (container.state.status, container.state.stopped_by_user) == (Status.EXITED, True)
    container.state.status = Status.RESTARTING
    await setup.lifecycle.remove(container, force=True, volumes=True)
    assert setup.store.containers == {}
    assert setup.host.did == ["release", "destroy volumes=True"]


async def shut_down(setup: Setup, *containers: Container, codes: tuple[int, ...] = (143,)) -> None:
    """The machine stops; each container's process ends with its code on the stop signal."""
    stopping = asyncio.create_task(setup.lifecycle.shut_down(5.0))
    while setup.host.did.count("signal 15") < len(containers):
        await asyncio.sleep(0)
    for container, code in zip(containers, codes, strict=True):
        setup.exited(container, code)
    await stopping
    await setup.idle()


@pytest.mark.parametrize(
    ("policy", "code", "runs"),
    [
        ("always", 0, True),
        ("unless-stopped", 143, True),
        ("on-failure", 143, True),
        ("on-failure", 0, False),
        ("", 143, False),
    ],
)
async def test_what_comes_back_after_the_machine_was_stopped_in_order(
    setup: Setup, policy: str, code: int, runs: bool
) -> None:
    container = setup.add(running(), policy)
    await shut_down(setup, container, codes=(code,))
    assert "start" not in setup.host.did, "nothing starts while the machine stops"
    assert (container.state.exit_code, container.state.stopped_by_user) == (code, False)
    recorded = msgspec.json.decode(msgspec.json.encode(container), type=Container)  # what the next boot reads
    container.state = recorded.state
    setup.lifecycle._is_shutting_down = False
    await setup.lifecycle.recover(container, None, running=False)
    await setup.idle()
    assert container.state.status is (Status.RUNNING if runs else Status.EXITED)


async def test_what_the_user_stopped_before_the_machine_stays_so(setup: Setup) -> None:
    container = setup.add(exited(0, stopped_by_user=True), "unless-stopped")
    await shut_down(setup, codes=())
    assert (container.state.status, container.state.stopped_by_user) == (Status.EXITED, True)


async def test_a_container_that_ignores_the_stop_signal_is_killed_in_time(setup: Setup) -> None:
    container = setup.add(running(), "always")
    container.config.stop_timeout = 1000
    stopping = asyncio.create_task(setup.lifecycle.shut_down(0.01))
    while "signal 9" not in setup.host.did:
        await asyncio.sleep(0.001)
    await setup.end(container, 137)
    await stopping
    assert (container.state.status, container.state.exit_code) == (Status.RESTARTING, 137)


async def test_a_container_to_be_removed_goes_with_the_machine(setup: Setup) -> None:
    container = setup.add(running())
    container.host_config.auto_remove = True
    await shut_down(setup, container)
    assert setup.store.containers == {}


async def test_a_restart_that_waits_is_left_to_the_next_boot(setup: Setup) -> None:
    container = setup.add(running(quick_exits=3), "always")
    event = ExitEvent(
        id=container.id, exec_id=None, pid=4711, exit_code=1, oom_killed=False, finished_at=1_700_000_001.0
    )
    setup.lifecycle.exited(event)
    while container.state.status is not Status.RESTARTING:
        await asyncio.sleep(0)
    await shut_down(setup, codes=())
    assert container.state.status is Status.RESTARTING
    assert "start" not in setup.host.did


async def test_a_restart_is_not_the_end_of_what_is_removed_at_its_end(setup: Setup) -> None:
    container = setup.add(running())
    container.host_config.auto_remove = True
    restarting = asyncio.ensure_future(setup.lifecycle.restart(container, 10))
    while "signal 15" not in setup.host.did:
        await asyncio.sleep(0)
    setup.exited(container, 143)
    await restarting
    await setup.idle()
    assert container.state.status is Status.RUNNING
    assert not any(step.startswith("destroy") for step in setup.host.did)
    await setup.end(container, 0)
    assert "destroy volumes=True" in setup.host.did
