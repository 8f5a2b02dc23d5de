from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from engine.config import ContainerConfig, HostConfig, LogConfig
from engine.container import Container, Status
from engine.containers import Containers
from engine.creation import checked_host_config
from engine.errors import Conflict, EngineFailure, InvalidParameter, NotFound
from engine.memory_files import MemoryFiles
from engine.networking import ContainerNetworking
from engine.preparation import HostPreparation, cgroup_path
from engine.runtime.limit_support import LimitSupport
from engine.settings import EngineSettings
from engine.state import StateStore
from engine.storage.driver import NO_OPTIONS, Rootfs
from engine.storage.tree_copy import copy_tree
from engine.storage.vfs import VfsDriver
from engine.volumes import VolumeCreate, VolumeStore
from tests.networks import MemoryNetworks
from tests.records import container_record, running, volume_mount


class ImageRoots(VfsDriver):
    """Every new container finds a copy of `image` as its root."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.image = root.parent / "image"
        self.image.mkdir()

    def create_rootfs(
        self, container_id: str, top_layer: str | None, options: Mapping[str, str] = NO_OPTIONS
    ) -> Rootfs:
        made = super().create_rootfs(container_id, top_layer, options)
        copy_tree(self.image, Path(made.upper))
        return made


class Machine:
    """A host of plain folders."""

    def __init__(self, folder: Path) -> None:
        self.settings = EngineSettings(root=folder, run_dir=folder / "run", hostname="node-1")
        self.containers = Containers(StateStore(folder / "engine.db"))
        self.storage = ImageRoots(folder / "vfs")
        self.volumes = VolumeStore(folder / "volumes", self.containers.users_of_volume)
        self.networks = MemoryNetworks()
        find = self.containers.find
        self.preparation = HostPreparation(
            self.settings,
            self.storage,
            self.volumes,
            ContainerNetworking(self.settings, self.networks, find),
            MemoryFiles(self.settings.memory_files_dir),
            find,
            lambda chain: None,
        )

    def with_volumes(self, name: str, **targets: str) -> Container:
        """A container with a volume of that name at each target; "" makes an anonymous one."""
        mounts = []
        for target, volume in targets.items():
            made = str(self.volumes.create(VolumeCreate(name=volume), anonymous=not volume)["Name"])
            mount = volume_mount(made, f"/{target}", copy_up=True, anonymous=not volume)
            mount.source = str(self.volumes.data_path(made))
            mounts.append(mount)
        return container_record(name, mounts=mounts)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    made.containers.state.close()


async def test_an_empty_volume_gets_what_the_image_has_there(machine: Machine) -> None:
    container = machine.with_volumes("c1", data="named", none="other")
    image = machine.storage.image
    (image / "data/sub").mkdir(parents=True)
    (image / "data/sub/file").write_text("from the image")
    (image / "data").chmod(0o750)
    await machine.preparation.create(container, None, ())
    volume = machine.volumes.data_path("named")
    assert (volume / "sub/file").read_text() == "from the image"
    assert volume.stat().st_mode & 0o777 == 0o750
    assert list(machine.volumes.data_path("other").iterdir()) == []


async def test_a_volume_with_content_is_left_as_it_is(machine: Machine) -> None:
    container = machine.with_volumes("c1", data="named")
    (machine.volumes.data_path("named") / "mine").touch()
    (machine.storage.image / "data").mkdir()
    (machine.storage.image / "data/theirs").touch()
    await machine.preparation.create(container, None, ())
    assert [path.name for path in machine.volumes.data_path("named").iterdir()] == ["mine"]


async def test_links_of_the_image_stay_within_the_image(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").touch()
    container = machine.with_volumes("c1", inner="inner1", outer="outer1", loop="loop1")
    image = machine.storage.image
    (image / "real").mkdir()
    (image / "real/file").touch()
    (image / "inner").symlink_to("/real")
    (image / "outer").symlink_to(tmp_path / "outside")
    (image / "loop").symlink_to("loop")
    await machine.preparation.create(container, None, ())
    found = {
        name: [p.name for p in machine.volumes.data_path(name).iterdir()]
        for name in ("inner1", "outer1", "loop1")
    }
    assert found == {"inner1": ["file"], "outer1": [], "loop1": []}


async def test_one_volume_at_two_places_takes_the_first(machine: Machine) -> None:
    container = machine.with_volumes("c1", one="shared", two="shared")
    image = machine.storage.image
    for name in ("one", "two"):
        (image / name).mkdir()
        (image / name / "link").symlink_to(name)
    await machine.preparation.create(container, None, ())
    assert (machine.volumes.data_path("shared") / "link").readlink() == Path("one")


async def test_a_creation_that_fails_leaves_nothing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = machine.with_volumes("c1", data="named")

    def fails(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("engine.preparation.copy_up", fails)
    (machine.storage.image / "data").mkdir()
    with pytest.raises(OSError, match="No space left"):
        await machine.preparation.create(container, None, ())
    assert not machine.settings.container_dir(container.id).exists()
    with pytest.raises(NotFound):
        machine.storage.rootfs(container.id)


async def test_a_removal_takes_anonymous_volumes_that_nobody_else_has(machine: Machine) -> None:
    first = machine.with_volumes("c1", data="", more="named")
    second = container_record("c2", mounts=[volume_mount(first.mounts[0].name, "/theirs")])
    for container in (first, second):
        machine.containers.state.add(container)
    await machine.preparation.create(first, None, ())
    first.state.status = Status.REMOVING
    await machine.preparation.destroy(first, volumes=True)
    assert machine.containers.users_of_volume(first.mounts[0].name) == [second.id]
    assert machine.volumes.data_path(first.mounts[0].name).is_dir()
    machine.containers.forget(second)
    await machine.preparation.create(first, None, ())
    await machine.preparation.destroy(first, volumes=True)
    with pytest.raises(NotFound):
        machine.volumes.data_path(first.mounts[0].name)
    assert machine.volumes.data_path("named").is_dir()


async def start_spec(machine: Machine, container: Container) -> dict[str, object]:
    await machine.preparation.create(container, None, ())
    machine.containers.state.add(container)
    request = await machine.preparation.prepare(container)
    return {**request.spec, "request": request}


async def test_what_a_start_hands_to_the_runtime(machine: Machine) -> None:
    container = container_record(
        "c1",
        config=ContainerConfig(env=["A=1"], user="", tty=True, open_stdin=True),
        host=HostConfig(
            log_config=LogConfig(config={"max-size": "1m", "max-file": "3"}),
            cgroup_parent="/team/",
            console_size=[24, 80],
        ),
    )
    spec = await start_spec(machine, container)
    process, request = spec["process"], spec["request"]
    assert set(process["env"]) >= {"A=1", "HOME=/", f"HOSTNAME={container.short_id}", "TERM=xterm"}
    assert (request.netns, request.cgroup) == (f"/run/netns/{container.id}", f"team/{container.id}")
    assert (request.log_max_size, request.log_max_file, request.console_size) == (1 << 20, 3, (24, 80))


async def test_namespaces_of_another_container(machine: Machine) -> None:
    other = container_record("other", config=ContainerConfig(hostname="theirs"), state=running())
    machine.containers.state.add(other)
    machine.settings.container_dir(other.id).mkdir(parents=True)
    container = container_record(
        "c1",
        host=HostConfig(network_mode="container:other", pid_mode="container:other"),
    )
    spec = await start_spec(machine, container)
    namespaces = {n["type"]: n.get("path") for n in spec["linux"]["namespaces"]}
    assert namespaces["pid"] == "/proc/4711/ns/pid"
    assert spec["request"].netns == "/proc/4711/ns/net"
    assert spec["hostname"] == "theirs"
    other.state.status = Status.EXITED
    with pytest.raises(Conflict, match="cannot join network of a non running container"):
        await machine.preparation.prepare(container)


async def test_ipc_is_shared_only_by_those_who_say_so(machine: Machine) -> None:
    other = container_record("other", state=running())
    machine.containers.state.add(other)
    container = container_record("c1", host=HostConfig(ipc_mode="container:other"))
    with pytest.raises(Conflict, match="non-shareable IPC"):
        await start_spec(machine, container)
    other.state.status = Status.EXITED
    with pytest.raises(Conflict, match="cannot join ipc namespace of a non running container"):
        await machine.preparation.prepare(container)


async def test_the_init_program_comes_first(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    program = machine.settings.root / "init"
    monkeypatch.setattr("engine.preparation.init_program", lambda: str(program))
    spec = await start_spec(machine, container_record("c1", host=HostConfig(init=True)))
    assert spec["process"]["args"] == ["/sbin/docker-init", "--", "server", "--fast"]
    mount = next(mount for mount in spec["mounts"] if mount["destination"] == "/sbin/docker-init")
    assert (mount["source"], "ro" in mount["options"]) == (str(program), True)


async def test_namespaces_of_the_host(machine: Machine) -> None:
    host = HostConfig(
        network_mode="host", pid_mode="host", ipc_mode="host", uts_mode="host", cgroupns_mode="host"
    )
    spec = await start_spec(machine, container_record("c1", host=host))
    assert [n["type"] for n in spec["linux"]["namespaces"]] == ["mount"]
    assert spec["request"].netns == "host"
    assert spec["hostname"] == "node-1"


async def test_secrets_that_are_gone_are_not_passed_over(machine: Machine) -> None:
    container = container_record("c1", has_memory_files=True)
    await machine.preparation.create(container, None, ())
    with pytest.raises(EngineFailure, match="the secrets of container c1 are gone"):
        await machine.preparation.prepare(container)
    assert machine.networks.sandboxes == {}


async def test_a_user_that_the_image_does_not_know(machine: Machine) -> None:
    container = container_record("c1", config=ContainerConfig(user="nobody-here"))
    with pytest.raises(InvalidParameter, match="unable to find user nobody-here"):
        await start_spec(machine, container)


@pytest.mark.parametrize(
    "host",
    [
        HostConfig(pid_mode="container:"),
        HostConfig(pid_mode="shareable"),
        HostConfig(ipc_mode="whatever"),
        HostConfig(uts_mode="private"),
        HostConfig(cgroupns_mode="container:x"),
        HostConfig(log_config=LogConfig(type="syslog")),
    ],
)
def test_modes_that_do_not_exist_are_refused_when_the_container_is_made(host: HostConfig) -> None:
    with pytest.raises(InvalidParameter):
        checked_host_config(host, ContainerConfig(), LimitSupport())


@pytest.mark.parametrize(
    ("parent", "path"),
    [
        ("swarmctl", "swarmctl/c1"),
        ("/a.slice/b/", "a.slice/b/c1"),
        ("../../etc", "etc/c1"),
        ("a/../../..", "c1"),
        ("/", "c1"),
    ],
)
def test_a_control_group_is_never_outside_the_hierarchy(parent: str, path: str) -> None:
    assert cgroup_path(parent, "c1") == path
