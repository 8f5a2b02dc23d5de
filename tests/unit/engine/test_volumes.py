from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from engine.config import VolumeCreate
from engine.errors import Conflict, InvalidParameter, NotFound
from engine.volumes import VolumeStore


class Users:
    """Which containers have which volume."""

    def __init__(self) -> None:
        self.of: dict[str, list[str]] = {}

    def __call__(self, name: str) -> list[str]:
        return self.of.get(name, [])


@pytest.fixture
def users() -> Users:
    return Users()


@pytest.fixture
def store(tmp_path: Path, users: Users) -> VolumeStore:
    return VolumeStore(tmp_path / "volumes", users)


def names(store: VolumeStore, **filters: list[str]) -> list[str]:
    return [volume["Name"] for volume in store.summaries(filters)["Volumes"]]


def folders(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "volumes").iterdir())


def test_a_new_volume_as_the_api_shows_it(tmp_path: Path, store: VolumeStore) -> None:
    created = store.create(VolumeCreate(name="data", labels={"a": "1"}))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", created.pop("CreatedAt"))
    assert created == {
        "Name": "data",
        "Driver": "local",
        "Mountpoint": str(tmp_path / "volumes/data/_data"),
        "Labels": {"a": "1"},
        "Options": None,
        "Scope": "local",
    }
    assert store.data_path("data").is_dir()


def test_create_again_gives_the_same_volume_and_its_labels(store: VolumeStore) -> None:
    first = store.create(VolumeCreate(name="data", labels={"a": "1"}))
    (store.data_path("data") / "file").write_text("kept")
    assert store.create(VolumeCreate(name="data", labels={"b": "2"})) == first
    assert (store.data_path("data") / "file").read_text() == "kept"


def test_without_a_name_it_is_anonymous(store: VolumeStore) -> None:
    first, second = store.create(VolumeCreate()), store.create(VolumeCreate())
    assert re.fullmatch("[0-9a-f]{64}", first["Name"]) and first["Name"] != second["Name"]
    assert first["Labels"] == {"com.docker.volume.anonymous": ""}
    assert store.create(VolumeCreate(name="mine"), anonymous=True)["Labels"] == {
        "com.docker.volume.anonymous": ""
    }


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (
            VolumeCreate(name="a"),
            "volume name is too short, names should be at least two alphanumeric characters",
        ),
        (VolumeCreate(name="../etc"), '"../etc" includes invalid characters for a local volume name'),
        (VolumeCreate(name="a/b"), "If you intended to pass a host directory, use absolute path"),
        (VolumeCreate(name="-ab"), "includes invalid characters"),
        (VolumeCreate(name=".doomed-1"), "includes invalid characters"),
        (VolumeCreate(name="ab\n"), "includes invalid characters"),
        (VolumeCreate(name="ab\0"), "includes invalid characters"),
        (VolumeCreate(name="a" * 256), "includes invalid characters"),
        (VolumeCreate(name="ok", driver_opts={"type": "nfs", "o": "x"}), 'missing required option: "device"'),
        (VolumeCreate(name="ok", driver_opts={"device": "/x"}), 'missing required option: "type"'),
        (VolumeCreate(name="ok", driver_opts={"colour": "red"}), 'create ok: invalid option: "colour"'),
        (VolumeCreate(name="ok", driver_opts={"size": "1g"}), "no quota support"),
    ],
)
def test_what_cannot_be_created(
    tmp_path: Path, store: VolumeStore, request_: VolumeCreate, words: str
) -> None:
    with pytest.raises(InvalidParameter) as refusal:
        store.create(request_)
    assert words in str(refusal.value)
    assert folders(tmp_path) == []


def test_another_driver_is_not_here(store: VolumeStore) -> None:
    with pytest.raises(NotFound, match='plugin "nfs" not found'):
        store.create(VolumeCreate(name="data", driver="nfs"))


def test_filters(store: VolumeStore, users: Users) -> None:
    store.create(VolumeCreate(name="web-data", labels={"tier": "front", "x": ""}))
    store.create(VolumeCreate(name="db-data", labels={"tier": "back"}))
    store.create(VolumeCreate(name="logs"))
    users.of["logs"] = ["c1"]
    assert names(store) == ["db-data", "logs", "web-data"]
    assert names(store, name=["data"]) == ["db-data", "web-data"]
    assert names(store, name=["web", "log"]) == ["logs", "web-data"]
    assert names(store, label=["tier"]) == ["db-data", "web-data"]
    assert names(store, label=["tier=front", "x"]) == ["web-data"]
    assert names(store, dangling=["true"]) == ["db-data", "web-data"]
    assert names(store, dangling=["0"]) == ["logs"]
    assert names(store, driver=["local"], name=["logs"]) == ["logs"]
    assert names(store, driver=["nfs"]) == []
    with pytest.raises(InvalidParameter, match="invalid filter 'colour'"):
        names(store, colour=["red"])
    with pytest.raises(InvalidParameter, match="invalid filter 'dangling="):
        names(store, dangling=["perhaps"])


def test_a_wrong_filter_is_refused_also_when_there_is_no_volume(store: VolumeStore) -> None:
    with pytest.raises(InvalidParameter, match="invalid filter 'colour'"):
        names(store, colour=["red"])


def test_remove(tmp_path: Path, store: VolumeStore, users: Users) -> None:
    store.create(VolumeCreate(name="data"))
    (store.data_path("data") / "file").write_text("x")
    users.of["data"] = ["c1", "c2"]
    with pytest.raises(Conflict, match=r"^remove data: volume is in use - \[c1, c2\]$"):
        store.remove("data", force=True)
    users.of.clear()
    store.remove("data", force=False)
    assert folders(tmp_path) == []
    for call in (store.inspect, store.data_path, lambda name: store.remove(name, force=False)):
        with pytest.raises(NotFound, match=r"^get data: no such volume$"):
            call("data")
    store.remove("data", force=True)


@pytest.mark.parametrize(
    ("filters", "deleted"),
    [
        ({}, {"anonymous"}),
        ({"all": ["true"]}, {"anonymous", "named", "kept"}),
        ({"all": ["false"]}, {"anonymous"}),
        ({"all": ["1"], "label": ["keep"]}, {"kept"}),
        ({"all": ["1"], "label!": ["keep"]}, {"anonymous", "named"}),
    ],
)
def test_prune(store: VolumeStore, users: Users, filters: dict[str, list[str]], deleted: set[str]) -> None:
    by_name = {store.create(VolumeCreate())["Name"]: "anonymous"}
    for name, labels in (("named", {}), ("kept", {"keep": "1"}), ("used", {"keep": "1"})):
        by_name[store.create(VolumeCreate(name=name, labels=labels))["Name"]] = name
    users.of["used"] = ["c1"]
    for name in by_name:
        (store.data_path(name) / "file").write_bytes(b"x" * 100)
    result = store.prune(filters)
    assert {by_name[name] for name in result["VolumesDeleted"]} == deleted
    assert result["SpaceReclaimed"] == 100 * len(deleted)
    assert {by_name[name] for name in names(store)} == set(by_name.values()) - deleted


@pytest.mark.parametrize("filters", [{"name": ["x"]}, {"until": ["1h"]}, {"all": ["perhaps"]}])
def test_prune_with_a_wrong_filter_deletes_nothing(store: VolumeStore, filters: dict[str, list[str]]) -> None:
    store.create(VolumeCreate())
    with pytest.raises(InvalidParameter, match="invalid filter"):
        store.prune(filters)
    assert len(names(store)) == 1


def test_volumes_survive_a_restart(tmp_path: Path, store: VolumeStore, users: Users) -> None:
    created = store.create(VolumeCreate(name="data", labels={"a": "1"}))
    (store.data_path("data") / "file").write_text("x")
    assert VolumeStore(tmp_path / "volumes", users).inspect("data") == created


def test_leftovers_of_an_interrupted_create_or_remove_are_deleted(tmp_path: Path, users: Users) -> None:
    root = tmp_path / "volumes"
    (root / "created/_data").mkdir(parents=True)
    (root / "made").mkdir()
    (root / ".doomed-12/_data").mkdir(parents=True)
    (root / ".doomed-12/_data/file").write_text("x")
    (root / ".doomed-12/volume.json").write_text("{}")
    assert names(VolumeStore(root, users)) == []
    assert folders(tmp_path) == []


@pytest.mark.parametrize("description", [b"", b'{"name":', b"\xff", None])
def test_data_outlives_a_damaged_description(
    tmp_path: Path,
    store: VolumeStore,
    users: Users,
    caplog: pytest.LogCaptureFixture,
    description: bytes | None,
) -> None:
    store.create(VolumeCreate(name="data", labels={"a": "1"}))
    (store.data_path("data") / "file").write_text("precious")
    path = tmp_path / "volumes/data/volume.json"
    path.unlink() if description is None else path.write_bytes(description)
    with caplog.at_level(logging.WARNING):
        again = VolumeStore(tmp_path / "volumes", users)
    assert (again.data_path("data") / "file").read_text() == "precious"
    assert again.inspect("data")["Labels"] is None
    assert "description of volume data is damaged" in caplog.text
    assert VolumeStore(tmp_path / "volumes", users).inspect("data") == again.inspect("data")
