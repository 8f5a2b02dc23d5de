"""Assignments applied to a host in memory: start, stop, removal, adoption, prerequisites."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from agent_world import FakeHost, task

from node.agent.worker import AssignmentGap, Worker
from node.loop import ManualClock
from raft.objects.assignment import Assignments, MapNetwork, NetworkMap
from raft.objects.base import Annotations
from raft.objects.cluster import Config, ConfigSpec, Secret, SecretSpec
from raft.objects.service import ContainerSpec, FileReference, TaskSpec
from raft.objects.task import NetworkAttachment, Task, TaskState, TaskStatus


class Node:
    """One life of the daemon on a host; a second one with the same host and folder is a restart."""

    def __init__(self, folder: Path, host: FakeHost) -> None:
        self.host = host
        self.clock = ManualClock()
        self.history: dict[str, list[TaskState]] = {}
        self.statuses: dict[str, TaskStatus] = {}
        self.acknowledged: list[int] = []
        self.worker = Worker(
            folder,
            host,
            host,
            report=self._report,
            acknowledged=self.acknowledged.append,
            clock=self.clock,
        )
        self._sequence = 0

    def _report(self, task_id: str, status: TaskStatus) -> None:
        self.history.setdefault(task_id, []).append(status.state)
        self.statuses[task_id] = status

    async def give(self, *tasks: Task, **fields: object) -> None:
        self._sequence += 1
        await self.worker.apply(
            msgspec.structs.replace(Assignments(sequence=self._sequence, tasks=tasks), **fields)
        )
        await self.clock.settle()

    async def give_all(self, *tasks: Task, **fields: object) -> None:
        self._sequence = 0
        await self.give(*tasks, complete=True, **fields)


@contextlib.asynccontextmanager
async def daemon(folder: Path, host: FakeHost | None = None) -> AsyncIterator[Node]:
    node = Node(folder, host or FakeHost())

    async def live() -> None:
        async with asyncio.TaskGroup() as group:
            node.worker.start(group)

    living = asyncio.create_task(live())
    await node.clock.settle()
    try:
        yield node
    finally:
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)


async def test_task_runs_and_every_state_is_reported(tmp_path):
    async with daemon(tmp_path) as node:
        await node.give_all(task("t1"))
        assert [s.name for s in node.history["t1"]] == [
            "ACCEPTED",
            "PREPARING",
            "READY",
            "STARTING",
            "RUNNING",
        ]
        assert node.statuses["t1"].timestamp == node.clock.now()


async def test_shutdown_keeps_the_container_until_the_task_is_removed(tmp_path):
    async with daemon(tmp_path) as node:
        await node.give_all(task("t1"))
        await node.give(task("t1", desired_state=TaskState.SHUTDOWN))
        assert node.statuses["t1"].state is TaskState.SHUTDOWN
        assert "t1" in node.host.containers
        await node.give(removed_tasks=("t1",))
        assert node.host.containers == {}
        assert list(tmp_path.iterdir()) == []
        assert node.worker.statuses() == {}


async def test_desired_remove_stops_and_removes(tmp_path):
    async with daemon(tmp_path) as node:
        await node.give_all(task("t1"))
        await node.give(task("t1", desired_state=TaskState.REMOVE))
        assert node.host.calls[-2:] == ["stop t1", "remove t1"]
        assert node.statuses["t1"].state is TaskState.SHUTDOWN


async def test_complete_assignments_remove_what_is_not_in_them(tmp_path):
    async with daemon(tmp_path) as node:
        await node.give_all(task("t1"), task("t2"))
        node.worker.session_ended()
        await node.give_all(task("t2"))
        assert list(node.host.containers) == ["t2"]
        assert node.host.calls.count("start t2") == 1


async def test_gap_is_refused(tmp_path):
    async with daemon(tmp_path) as node:
        await node.give_all(task("t1"))
        with pytest.raises(AssignmentGap):
            await node.worker.apply(Assignments(sequence=3))


async def test_restarted_daemon_adopts_running_containers_without_a_manager(tmp_path):
    host = FakeHost()
    async with daemon(tmp_path, host) as node:
        await node.give_all(task("t1"))
    calls = list(host.calls)
    async with daemon(tmp_path, host) as node:
        assert node.worker.statuses()["t1"].state is TaskState.RUNNING
        assert host.calls == calls
        host.containers["t1"].end(7)
        await node.clock.settle()
        assert node.statuses["t1"].error == "task: non-zero exit (7)"


async def test_exit_while_the_daemon_was_away_is_reported(tmp_path):
    host = FakeHost()
    async with daemon(tmp_path, host) as node:
        await node.give_all(task("t1"))
    host.containers["t1"].end(0)
    async with daemon(tmp_path, host) as node:
        assert node.statuses["t1"].state is TaskState.COMPLETE
        assert host.containers["t1"].starts == 1


async def test_damaged_file_is_forgotten(tmp_path):
    (tmp_path / "bad.json").write_bytes(b"{")
    async with daemon(tmp_path) as node:
        assert node.worker.statuses() == {}
        assert list(tmp_path.iterdir()) == []


async def test_tasks_are_prepared_after_their_network_map(tmp_path):
    network = MapNetwork(id="net", name="front", vni=4096, subnet="10.0.1.0/24", gateway="10.0.1.1")
    attached = task("t1", networks=(NetworkAttachment(network_id="net", address="10.0.1.3/24", mac="02:00"),))
    async with daemon(tmp_path) as node:
        node.host.refuse["apply_map"] = "kernel says no"
        await node.give_all(attached, network_map=NetworkMap(version=5, networks=(network,)))
        assert node.history["t1"] == [TaskState.ACCEPTED]
        assert node.acknowledged == []
        del node.host.refuse["apply_map"]
        await node.clock.advance(1)
        assert node.statuses["t1"].state is TaskState.RUNNING
        assert node.acknowledged == [5]
        assert node.host.maps[0].networks[0].vni == 4096


async def test_secrets_and_configs_are_given_but_never_on_disk(tmp_path):
    reference = FileReference(id="s1", name="pass", target="pass", uid="10", mode=0o400)
    config = FileReference(id="c1", name="conf", target="/etc/conf")
    spec = TaskSpec(container=ContainerSpec(secrets=(reference,), configs=(config,)))
    async with daemon(tmp_path) as node:
        await node.give_all(task("t1", spec=spec))
        assert node.history["t1"] == [TaskState.ACCEPTED]
        await node.give(
            secrets=(Secret(id="s1", spec=SecretSpec(annotations=Annotations(name="pass"), data=b"hush!")),),
            configs=(Config(id="c1", spec=ConfigSpec(annotations=Annotations(name="conf"), data=b"x=1")),),
        )
        assert node.statuses["t1"].state is TaskState.RUNNING
        files = [(f.target, f.data, f.uid, f.mode) for f in node.host.files["t1"]]
        assert files == [("/run/secrets/pass", b"hush!", 10, 0o400), ("/etc/conf", b"x=1", 0, 0o444)]
        on_disk = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert b"t1" in on_disk
        assert b"hush" not in on_disk
        assert b"aHVzaC" not in on_disk  # base64


async def test_stop_all_leaves_nothing(tmp_path):
    async with daemon(tmp_path) as node:
        await node.give_all(task("t1"), task("t2", desired_state=TaskState.SHUTDOWN))
        await node.worker.stop_all()
        assert node.host.containers == {}
        assert list(tmp_path.iterdir()) == []


async def test_hundred_tasks(tmp_path):
    async with daemon(tmp_path) as node:
        await node.give_all(*(task(f"t{i}") for i in range(100)))
        for _ in range(30):
            await node.clock.settle()
        assert sum(s.state is TaskState.RUNNING for s in node.statuses.values()) == 100
