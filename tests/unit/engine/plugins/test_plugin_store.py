from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from engine.errors import Conflict, InvalidParameter, NotFound
from engine.plugins.container import path_on_host, plugin_spec
from engine.plugins.store import Plugin, PluginStore
from tests.unit.engine.plugins.test_plugin_config import MINIMAL


def archive(config: object = None, *, rootfs: str = "dir", packed: bool = False) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz" if packed else "w") as tar:
        if config is not False:
            data = json.dumps(config or MINIMAL).encode()
            member = tarfile.TarInfo("config.json")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        root = tarfile.TarInfo("rootfs")
        root.type = {"dir": tarfile.DIRTYPE, "link": tarfile.SYMTYPE}[rootfs]
        root.linkname, root.mode = "/etc", 0o755
        tar.addfile(root)
        if rootfs == "dir":
            tar.addfile(tarfile.TarInfo("rootfs/p"))
    out.seek(0)
    return out


@pytest.fixture
def store(tmp_path: Path) -> PluginStore:
    return PluginStore(tmp_path / "plugins")


def left(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "plugins").iterdir())


@pytest.mark.parametrize("packed", [False, True])
def test_made_from_an_archive_and_found_again(tmp_path: Path, store: PluginStore, packed: bool) -> None:
    made = store.create("sample", archive(packed=packed))
    assert (made.name, made.enabled, store.rootfs(made).joinpath("p").exists()) == (
        "sample:latest",
        False,
        True,
    )
    for ref in ("sample", "sample:latest", made.id, made.id[:12]):
        assert store.find(ref) is made
    with pytest.raises(Conflict, match="plugin sample:latest already exists"):
        store.create("sample:latest", archive())
    again = PluginStore(tmp_path / "plugins")
    assert again.find("sample") == made
    again.remove(again.find("sample"))
    assert left(tmp_path) == []
    with pytest.raises(NotFound, match='plugin "sample" not found'):
        again.find("sample")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (archive(False), "config.json cannot be read"),
        (archive({"a": 1}), "invalid plugin config.json"),
        (archive(rootfs="link"), "needs a folder rootfs"),
        (io.BytesIO(b"no archive" * 100), "not a valid tar"),
        (io.BytesIO(b"\x1f\x8bno gzip" * 100), "damaged"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_archive_leaves_nothing(
    tmp_path: Path, store: PluginStore, content: io.BytesIO, words: str
) -> None:
    with pytest.raises(InvalidParameter, match=words):
        store.create("bad", content)
    assert left(tmp_path) == []
    assert store.all() == []


def test_what_a_crash_left_goes_and_what_is_damaged_stays(tmp_path: Path, store: PluginStore) -> None:
    made = store.create("sample", archive())
    for name in (".new-1", ".doomed-2", "damaged"):
        (tmp_path / "plugins" / name).mkdir()
    assert PluginStore(tmp_path / "plugins").all() == [made]
    assert left(tmp_path) == sorted([made.id, "damaged"])


def spec_of(store: PluginStore, **more: object) -> tuple[Plugin, dict[str, object]]:
    plugin = store.create("sample", archive(MINIMAL | more))
    made = plugin_spec(plugin, sockets=Path("/sockets"), propagated=Path("/shared"))
    return plugin, {mount["destination"]: mount for mount in made["mounts"]} | {"spec": made}


def test_its_container(store: PluginStore) -> None:
    mounts = [
        {"name": "data", "source": "/data", "destination": "/d", "type": "bind", "options": ["bind", "ro"]}
    ]
    _, made = spec_of(
        store,
        propagatedmount="/mnt/v",
        mounts=mounts,
        linux={"capabilities": ["CAP_SYS_ADMIN"]},
        args={"value": ["-v"]},
    )
    assert made["/run/docker/plugins"]["source"] == "/sockets"  # type: ignore[index]
    assert "rshared" in made["/mnt/v"]["options"]  # type: ignore[index]
    assert made["/d"]["options"] == ["bind", "rprivate", "ro"]  # type: ignore[index]
    process = made["spec"]["process"]  # type: ignore[index]
    assert process["args"] == ["/p", "-v"]
    assert "CAP_SYS_ADMIN" in process["capabilities"]["bounding"]


def test_a_mount_without_a_source_asks_to_be_set(store: PluginStore) -> None:
    with pytest.raises(InvalidParameter, match="the mount data has no source"):
        spec_of(store, mounts=[{"name": "data", "destination": "/d", "type": "bind"}])


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        ("/mnt/v/x", "/shared/x"),
        ("/mnt/v", "/shared"),
        ("/mnt/vx", "/root/mnt/vx"),
        ("/mnt/v/../../etc", "/root/etc"),
        ("//../etc", "/root/etc"),
    ],
)
def test_its_paths_on_the_host(store: PluginStore, inside: str, outside: str) -> None:
    plugin, _ = spec_of(store, propagatedmount="/mnt/v")
    assert path_on_host(plugin, inside, rootfs=Path("/root"), propagated=Path("/shared")) == outside
