from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.config import VolumeCreate
from engine.errors import Conflict, EngineError, NotFound
from engine.plugins.catalog import NETWORK, VOLUME, Catalog
from engine.plugins.client import PluginClient
from engine.plugins.discovery import Discovery
from engine.volumes import VolumeStore
from tests.unit.engine.plugins.test_plugin_client import Plugin


class Managed:
    """A plugin that the engine runs itself."""

    def __init__(self, client: PluginClient) -> None:
        self.client = client
        self.name = client.name
        self.capabilities = (VOLUME,)
        self.scoped: Callable[[str], str] = lambda path: f"/propagated{path}"


class Host:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.managed: list[Managed] = []
        self.now = 0.0
        self.comes = ""  # the name of a plugin that starts after three seconds
        self.waits: list[float] = []
        self.catalog = Catalog(Discovery((folder,), ()), self, lambda: self.now, self.wait)
        self.plugins: list[Plugin] = []

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        if sum(self.waits) == 3.0 and self.comes:
            self.start(self.comes, VOLUME)

    def enabled(self) -> list[Managed]:
        return self.managed

    def enabled_plugin(self, name: str) -> Managed | None:
        return next((plugin for plugin in self.managed if plugin.name == name), None)

    def start(self, name: str, *implements: str) -> Plugin:
        plugin = Plugin(self.folder / f"{name}.sock")
        words = ", ".join(f'"{capability}"' for capability in implements)
        plugin.answers["/Plugin.Activate"] = (200, f'{{"Implements": [{words}]}}'.encode())
        self.plugins.append(plugin)
        return plugin

    def dead(self, name: str) -> None:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(self.folder / f"{name}.sock"))

    def volumes(self) -> VolumeStore:
        return VolumeStore(self.folder / "volumes", lambda name: (), self.catalog)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    for plugin in made.plugins:
        plugin.close()


def test_it_is_activated_once(host: Host) -> None:
    plugin = host.start("own", VOLUME)
    first = host.catalog.find("own", VOLUME)
    assert host.catalog.find("own", VOLUME) is first
    assert [path for path, _ in plugin.asked] == ["/Plugin.Activate"]
    assert host.catalog.names(VOLUME) == ["own"]


def test_a_mount_waits_for_a_plugin_that_comes_after_us(host: Host) -> None:
    with pytest.raises(NotFound):
        host.catalog.volume_driver("late", patient=True)
    assert host.waits == [1.0, 2.0, 4.0, 8.0]
    host.waits.clear()
    host.comes = "late"
    assert host.catalog.volume_driver("late", patient=True).name == "late"
    assert host.waits == [1.0, 2.0]
    with pytest.raises(NotFound):
        host.catalog.volume_driver("never")
    assert host.waits == [1.0, 2.0]


def test_a_plugin_of_another_kind_is_not_found(host: Host) -> None:
    host.start("net", NETWORK)
    with pytest.raises(NotFound, match='plugin "net" does not implement VolumeDriver'):
        host.catalog.find("net", VOLUME)
    with pytest.raises(NotFound, match='plugin "none" not found'):
        host.catalog.find("none", VOLUME)
    assert host.catalog.volume_drivers() == ([], [])


def test_a_dead_plugin_is_a_warning_and_left_alone_for_a_while(host: Host) -> None:
    host.start("own", VOLUME)
    host.dead("dead")
    drivers, warnings = host.catalog.volume_drivers()
    assert [driver.name for driver in drivers] == ["own"]
    assert len(warnings) == 1 and 'plugin "dead" does not answer' in warnings[0]
    assert host.catalog.volume_drivers()[1] == []
    host.now += 31.0
    assert len(host.catalog.volume_drivers()[1]) == 1


def test_volumes_of_a_plugin(host: Host) -> None:
    plugin = host.start("own", VOLUME)
    plugin.answers["/VolumeDriver.Capabilities"] = (200, b'{"Capabilities": {"Scope": "Global"}}')
    plugin.answers["/VolumeDriver.Mount"] = (200, b'{"Mountpoint": "/there/a1"}')
    plugin.answers["/VolumeDriver.Get"] = (
        200,
        b'{"Volume": {"Name": "a1", "Mountpoint": "/there/a1", "Status": {"x": 1}}}',
    )
    plugin.answers["/VolumeDriver.List"] = (200, b'{"Volumes": [{"Name": "a1"}, {"Name": "strange"}]}')
    store = host.volumes()
    made = store.create(VolumeCreate(name="a1", driver="own", driver_opts={"o": "1"}))
    assert (made["Driver"], made["Scope"], made["Options"]) == ("own", "global", {"o": "1"})
    assert b'"Opts":{"o":"1"}' in next(body for path, body in plugin.asked if path.endswith("Create"))
    assert store.inspect("a1")["Status"] == {"x": 1}
    assert [row["Name"] for row in store.summaries({})["Volumes"]] == ["a1", "strange"]
    assert store.mount("a1", "c1") == store.mount("a1", "c1") == "/there/a1"
    assert store.data_path("a1") == Path("/there/a1")
    store.unmount("a1", "c1")
    store.unmount("a1", "c1")
    mounts = [(path, body) for path, body in plugin.asked if "ount" in path]
    assert mounts == [
        ("/VolumeDriver.Mount", b'{"Name":"a1","ID":"c1"}'),
        ("/VolumeDriver.Unmount", b'{"Name":"a1","ID":"c1"}'),
    ]
    assert host.volumes().inspect("a1") == store.inspect("a1") | {"CreatedAt": made["CreatedAt"]}
    with pytest.raises(Conflict, match="driver 'own' already has volume 'a1'"):
        store.create(VolumeCreate(name="a1", driver="local"))
    assert store.users_of_driver("own") == ["a1"]
    store.remove("a1", force=False)
    assert "/VolumeDriver.Remove" in [path for path, _ in plugin.asked]


def test_a_volume_that_the_plugin_refuses_is_not_made_and_not_lost(host: Host) -> None:
    plugin = host.start("own", VOLUME)
    store = host.volumes()
    plugin.answers["/VolumeDriver.Create"] = (200, b'{"Err": "no space"}')
    with pytest.raises(EngineError, match="no space"):
        store.create(VolumeCreate(name="a1", driver="own"))
    assert store.users_of_driver("own") == []
    plugin.answers["/VolumeDriver.Create"] = (200, b"{}")
    store.create(VolumeCreate(name="a1", driver="own"))
    plugin.answers["/VolumeDriver.Remove"] = (500, b'{"Err": "busy"}')
    with pytest.raises(EngineError, match="busy"):
        store.remove("a1", force=False)
    assert store.users_of_driver("own") == ["a1"]
    store.remove("a1", force=True)
    assert store.users_of_driver("own") == []


@pytest.mark.parametrize("name", ["user/volume", "..", ".", "a" * 60 + "@big", "%2e"])
def test_names_are_the_plugins_business(host: Host, name: str) -> None:
    host.start("own", VOLUME)
    host.volumes().create(VolumeCreate(name=name, driver="own"))
    assert host.volumes().users_of_driver("own") == [name]
    assert [path.parent for path in (host.folder / "volumes").iterdir()] == [host.folder / "volumes"]
    host.volumes().remove(name, force=False)
    assert list((host.folder / "volumes").iterdir()) == []


def test_a_managed_plugin_comes_first_and_its_paths_are_translated(host: Host) -> None:
    plugin = host.start("own", VOLUME)
    plugin.answers["/VolumeDriver.Mount"] = (200, b'{"Mountpoint": "/mnt/a1"}')
    host.managed.append(Managed(host.catalog.find("own", VOLUME)))
    store = host.volumes()
    store.create(VolumeCreate(name="a1", driver="own"))
    assert store.mount("a1", "c1") == "/propagated/mnt/a1"
