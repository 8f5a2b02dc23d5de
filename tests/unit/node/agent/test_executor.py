"""Tasks as container requests, placeholders, and the engine's answers as task results."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import pytest
from agent_world import task

from engine.config import ContainerCreate, LogOptions, LogRecord, SecretFile, TaskEndpoint
from engine.errors import EngineFailure, NotFound, NotModified, StartFailed
from node.agent.container_body import container_body, endpoints
from node.agent.executor import EngineExecutor
from node.agent.task_step import ExecutorError, TaskFile
from node.agent.templates import Templates
from node.loop import ManualClock
from raft.objects.base import Driver
from raft.objects.service import (
    ContainerSpec,
    Endpoint,
    MountSpec,
    PortConfig,
    PublishMode,
    ResourceRequirements,
    Resources,
    TaskSpec,
)
from raft.objects.task import NetworkAttachment, Task

NODE = {"node_id": "n1", "hostname": "alpha", "os": "linux", "architecture": "x86_64"}


def templates(given: Task) -> Templates:
    return Templates(given, **NODE)


class FakeEngine:
    """Containers by name with the states that inspect shows."""

    def __init__(self) -> None:
        self.created: dict[str, tuple[ContainerCreate, Any, Any]] = {}
        self.state: dict[str, Any] = {
            "Running": False,
            "StartedAt": "0001-01-01T00:00:00Z",
            "Pid": 0,
            "ExitCode": 0,
            "Error": "",
        }
        self.stopped: list[tuple[int | None, str]] = []
        self.fetched: list[tuple[str, str]] = []
        self.fail: Exception | None = None
        self.ended = asyncio.Event()

    def _check(self, name: str) -> None:
        if self.fail is not None:
            raise self.fail
        if name not in self.created:
            raise NotFound(f"No such container: {name}")

    async def create_container(
        self, name: str, body: ContainerCreate, *, files: Any = (), endpoints: Any = ()
    ) -> tuple[str, list[str]]:
        if self.fail is not None:
            raise self.fail
        self.created[name] = (body, files, endpoints)
        return "id", []

    async def fetch_image(self, ref: str, auth: str) -> None:
        self.fetched.append((ref, auth))

    async def start_container(self, ref: str) -> None:
        self._check(ref)

    async def stop_container(self, ref: str, timeout: int | None = None, signal: str = "") -> None:
        self._check(ref)
        self.stopped.append((timeout, signal))

    async def remove_container(self, ref: str, *, force: bool = False, volumes: bool = False) -> None:
        self._check(ref)
        del self.created[ref]

    async def wait_container(self, ref: str, condition: str = "") -> None:
        await self.ended.wait()

    async def inspect_container(self, ref: str, size: bool = False) -> dict[str, Any]:
        if ref not in self.created:
            raise NotFound(f"No such container: {ref}")
        return {"Id": "id", "State": self.state}

    async def container_logs(self, ref: str, options: LogOptions) -> AsyncGenerator[LogRecord, None]:
        self._check(ref)
        yield LogRecord(1, 1, b"hello\n")


def make() -> tuple[FakeEngine, EngineExecutor]:
    engine = FakeEngine()
    return engine, EngineExecutor(engine, ManualClock(), **NODE)


def with_container(given: Task, **fields: Any) -> Task:
    return msgspec.structs.replace(given, spec=TaskSpec(container=ContainerSpec(**fields)))


def test_body_of_a_task():
    spec = TaskSpec(
        container=ContainerSpec(
            image="hello",
            command=("/bin/web",),
            args=("-v",),
            env=("WHO={{.Task.Name}} on {{ .Node.Hostname }}", "SLOT={{.Task.Slot}}"),
            hostname="{{.Service.Name}}-{{.Task.Slot}}",
            labels={"tier": "front"},
            mounts=(
                MountSpec(type="volume", source="data-{{.Task.Slot}}", target="/data", no_copy=True),
                MountSpec(type="tmpfs", target="/tmp", tmpfs_size_bytes=1024),
                MountSpec(type="bind", source="/srv", target="/srv", read_only=True, propagation="rslave"),
            ),
            hosts=("10.0.0.9 db database",),
            ulimits=(("nofile", 10, 20),),
        ),
        resources=ResourceRequirements(limits=Resources(nano_cpus=5, memory_bytes=7, pids=9)),
        log_driver=Driver(name="none"),
    )
    ports = (
        PortConfig(target=80, published=8080, mode=PublishMode.HOST),
        PortConfig(target=80, published=30000),
    )
    given = task("t1", endpoint=Endpoint(ports=ports))
    body = container_body(msgspec.structs.replace(given, spec=spec), templates(given))
    assert body.env == ["WHO=web.1.t1 on alpha", "SLOT=1"]
    assert (body.image, body.entrypoint, body.cmd, body.hostname) == ("hello", ["/bin/web"], ["-v"], "web-1")
    assert body.labels is not None
    assert body.labels["com.docker.swarm.task.id"] == "t1"
    assert body.labels["com.docker.swarm.service.name"] == "web"
    assert body.labels["tier"] == "front"
    host = body.host_config
    assert host is not None
    assert (host.nano_cpus, host.memory, host.pids_limit) == (5, 7, 9)
    assert host.extra_hosts == ["db:10.0.0.9", "database:10.0.0.9"]
    assert [(m.type, m.source, m.target) for m in host.mounts or ()] == [
        ("volume", "data-1", "/data"),
        ("tmpfs", "", "/tmp"),
        ("bind", "/srv", "/srv"),
    ]
    assert host.port_bindings is not None
    assert [b.host_port for b in host.port_bindings["80/tcp"] or ()] == ["8080"]
    assert host.log_config is not None
    assert host.log_config.type == "none"


def test_endpoints_are_the_allocated_addresses():
    attachment = NetworkAttachment(network_id="net", address="10.0.1.3/24", mac="02:42", aliases=("w",))
    assert endpoints(task("t1", networks=(attachment,))) == [
        TaskEndpoint(network="net", cidr="10.0.1.3/24", mac="02:42", aliases=("w",))
    ]


def test_global_tasks_have_their_node_as_slot():
    given = msgspec.structs.replace(task("t1"), slot=0)
    assert templates(given).expand("{{.Task.Slot}}") == "n1"


def test_unknown_placeholder_is_named():
    with pytest.raises(ExecutorError, match=r"unknown placeholder \{\{.Service.Nmae\}\}"):
        templates(task("t1")).expand("{{.Service.Nmae}}")


async def test_the_image_is_fetched_with_the_services_account():
    engine, executor = make()
    await executor.create(with_container(task("t1"), image="reg.example/a:1", registry_auth="e30="), [])
    assert engine.fetched == [("reg.example/a:1", "e30=")]


async def test_create_is_done_once_with_files_in_memory():
    engine, executor = make()
    file = TaskFile(target="/run/secrets/p", data=b"x", uid=1, gid=2, mode=0o400)
    await executor.create(task("t1"), [file])
    await executor.create(task("t1"), [])
    _, files, _ = engine.created["web.1.t1"]
    assert files == [SecretFile(target="/run/secrets/p", data=b"x", uid=1, gid=2, mode=0o400)]


@pytest.mark.parametrize(
    "error", [NotFound("No such image: hello"), EngineFailure("disk full"), StartFailed("not found", 127)]
)
async def test_engine_errors_become_reasons(error):
    engine, executor = make()
    engine.fail = error
    with pytest.raises(ExecutorError, match=str(error)):
        await executor.create(task("t1"), [])


async def test_what_is_done_already_is_no_error():
    engine, executor = make()
    await executor.stop(task("t1"))
    await executor.remove(task("t1"))
    await executor.create(task("t1"), [])
    engine.fail = NotModified("already")
    await executor.start(task("t1"))
    await executor.stop(task("t1"))


async def test_stop_uses_the_specs_signal_and_grace_rounded_up():
    engine, executor = make()
    given = with_container(task("t1"), stop_signal="SIGINT", stop_grace_period_ns=1_500_000_000)
    await executor.create(given, [])
    await executor.stop(given)
    await executor.stop(task("t1"))
    assert engine.stopped == [(2, "SIGINT"), (10, "")]


async def test_health_failures():
    engine, executor = make()
    await executor.create(task("t1"), [])
    engine.state.update({"Running": True, "Health": {"Status": "unhealthy"}})
    with pytest.raises(ExecutorError, match="unhealthy container"):
        await executor.wait_healthy(task("t1"))
    engine.state.update({"Running": False, "ExitCode": 4, "Health": {"Status": "starting"}})
    with pytest.raises(ExecutorError, match=r"non-zero exit \(4\)"):
        await executor.wait_healthy(task("t1"))


async def test_waiting_for_the_end():
    engine, executor = make()
    await executor.create(task("t1"), [])
    waiting = asyncio.create_task(executor.wait_ended(task("t1")))
    await asyncio.sleep(0)
    assert not waiting.done()
    engine.ended.set()
    await waiting


async def test_logs_of_a_task_without_container_are_empty():
    _, executor = make()
    assert [r async for r in executor.logs(task("t1"), LogOptions())] == []
    await executor.create(task("t1"), [])
    assert [r.data async for r in executor.logs(task("t1"), LogOptions())] == [b"hello\n"]
