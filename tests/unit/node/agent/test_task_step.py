"""A task's states in order, one step per call, and where each failure leads."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from agent_world import FakeHost, task

from node.agent.task_step import ExecutorError, TaskFile, is_waiting, step
from raft.objects.service import Endpoint, PortConfig, PublishMode
from raft.objects.task import ContainerStatus, Task, TaskState, TaskStatus


class Ready:
    """Prerequisites that are there (or never come)."""

    def __init__(self, error: str = "") -> None:
        self.error = error

    async def wait(self, task: Task) -> None:
        if self.error:
            raise ExecutorError(self.error)

    def files(self, task: Task) -> Sequence[TaskFile]:
        return ()


async def walk(given: Task, host: FakeHost, until: TaskState, ready: Ready | None = None) -> list[TaskStatus]:
    """Step until the state is reached; the statuses on the way."""
    statuses = [given.status]
    while statuses[-1].state < until:
        following = await step(given, statuses[-1], host, ready or Ready())
        assert following is not None, f"stuck at {statuses[-1]}"
        statuses.append(following)
    return statuses


async def test_states_in_order_up_to_running():
    host = FakeHost()
    statuses = await walk(task("t"), host, TaskState.RUNNING)
    assert [(s.state.name, s.message) for s in statuses[1:]] == [
        ("ACCEPTED", "accepted"),
        ("PREPARING", "preparing"),
        ("READY", "prepared"),
        ("STARTING", "starting"),
        ("RUNNING", "started"),
    ]
    assert statuses[-1].container == ContainerStatus(container_id="c-t", pid=100)
    assert host.calls == ["create t", "start t"]


@pytest.mark.parametrize(
    ("exit_code", "state", "error"),
    [(0, TaskState.COMPLETE, ""), (1, TaskState.FAILED, "task: non-zero exit (1)")],
)
async def test_exit(exit_code, state, error):
    host = FakeHost()
    running = (await walk(task("t"), host, TaskState.RUNNING))[-1]
    host.containers["t"].end(exit_code)
    end = await step(task("t"), running, host, Ready())
    assert end is not None
    assert (end.state, end.error) == (state, error)
    assert end.container is not None
    assert end.container.exit_code == exit_code
    assert await step(task("t"), end, host, Ready()) is None


async def test_waits_at_ready_while_that_is_desired():
    host = FakeHost()
    waiting = task("t", desired_state=TaskState.READY)
    ready = (await walk(waiting, host, TaskState.READY))[-1]
    assert await step(waiting, ready, host, Ready()) is None
    going = msgspec.structs.replace(waiting, desired_state=TaskState.RUNNING)
    following = await step(going, ready, host, Ready())
    assert following is not None
    assert following.state is TaskState.STARTING


@pytest.mark.parametrize(
    ("operation", "state"), [("create", TaskState.REJECTED), ("start", TaskState.FAILED)]
)
async def test_failures_before_and_after_start(operation, state):
    host = FakeHost()
    host.refuse[operation] = "no such thing"
    end = (await walk(task("t"), host, TaskState.COMPLETE))[-1]
    assert (end.state, end.error) == (state, "no such thing")


async def test_missing_prerequisite_rejects():
    end = (await walk(task("t"), FakeHost(), TaskState.COMPLETE, Ready("secret a did not arrive")))[-1]
    assert (end.state, end.error) == (TaskState.REJECTED, "secret a did not arrive")


async def test_running_only_when_healthy():
    host = FakeHost()
    host.health = "starting"
    statuses = await walk(task("t"), host, TaskState.STARTING)
    started = await step(task("t"), statuses[-1], host, Ready())
    assert started is not None
    assert (started.state, started.message) == (TaskState.STARTING, "waiting for the health check")
    assert is_waiting(task("t"), started)
    host.containers["t"].healthy.set()
    running = await step(task("t"), started, host, Ready())
    assert running is not None
    assert running.state is TaskState.RUNNING
    assert host.containers["t"].starts == 1


@pytest.mark.parametrize("state", [TaskState.ASSIGNED, TaskState.READY, TaskState.RUNNING])
async def test_shutdown_from_any_state(state):
    host = FakeHost()
    status = (await walk(task("t"), host, state))[-1]
    ending = task("t", desired_state=TaskState.SHUTDOWN)
    end = await step(ending, status, host, Ready())
    assert end is not None
    assert (end.state, end.message) == (TaskState.SHUTDOWN, "shutdown")
    assert host.calls[-1] == "stop t"


async def test_container_that_ran_is_never_started_again():
    host = FakeHost()
    starting = (await walk(task("t"), host, TaskState.STARTING))[-1]
    await host.start(task("t"))  # the daemon died between the start and the note of it
    host.containers["t"].end(3)
    running = await step(task("t"), starting, host, Ready())
    assert running is not None
    end = await step(task("t"), running, host, Ready())
    assert end is not None
    assert (end.state, end.error) == (TaskState.FAILED, "task: non-zero exit (3)")
    assert host.containers["t"].starts == 1


async def test_lost_container_fails_the_task():
    running = TaskStatus(state=TaskState.STARTING)
    end = await step(task("t"), running, FakeHost(), Ready())
    assert end is not None
    assert (end.state, end.error) == (TaskState.FAILED, "the task's container is gone")


async def test_host_ports_are_reported():
    ports = (
        PortConfig(target=80, published=8080, mode=PublishMode.HOST),
        PortConfig(target=81, published=8081),
    )
    given = task("t", endpoint=Endpoint(ports=ports))
    running = (await walk(given, FakeHost(), TaskState.RUNNING))[-1]
    assert running.port_status is not None
    assert [p.published for p in running.port_status.ports] == [8080]
