"""What is read of a config.json, and what is refused in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.errors import Conflict, InvalidParameter, NotFound
from engine.oci.configuration import Configuration, console_size
from engine.oci.folders import Folder, Saved, is_alive
from engine.oci.main import main
from engine.runtime.birth import start_ticks


def raw(**linux: Any) -> dict[str, Any]:
    linux.setdefault("namespaces", [{"type": "mount"}])
    return {"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "process": {"args": ["x"]}, "linux": linux}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ociVersion": "2.0"}, "ociVersion '2.0'"),
        ({"root": {}}, r"root\.path"),
        ({"linux": {"namespaces": [{"type": "mount"}], "intelRdt": {"closID": "x"}}}, r"linux\.intelRdt"),
        ({"process": {"apparmorProfile": "x"}}, r"process\.apparmorProfile"),
        ({"vm": {"kernel": "x"}}, "vm of config.json"),
        ({"linux": {"namespaces": [{"type": "mount"}, {"type": "time"}]}}, "namespace 'time'"),
        ({"linux": {"namespaces": []}}, "no new mount namespace"),
    ],
)
def test_what_is_not_served_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        Configuration(raw() | change, Path("/bundle"))


def test_a_bundle_without_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match=r"config\.json not found in"):
        Configuration.read(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InvalidParameter, match="is not valid JSON"):
        Configuration.read(tmp_path)


@pytest.mark.parametrize(
    ("path", "group"),
    [("/a/b", "a/b"), ("a//b/.", "a/b"), (None, "swarmctl-runtime/c1")],
)
def test_the_control_group(path: str | None, group: str) -> None:
    assert Configuration(raw(cgroupsPath=path), Path("/bundle")).cgroup("c1") == group


@pytest.mark.parametrize("path", ["/a/../../b", "machine.slice:libpod:c1"])
def test_control_groups_that_cannot_be(path: str) -> None:
    with pytest.raises(InvalidParameter, match="cgroupsPath"):
        Configuration(raw(cgroupsPath=path), Path("/bundle")).cgroup("c1")


@pytest.mark.parametrize(
    ("namespaces", "network"),
    [([], "host"), ([{"type": "network"}], ""), ([{"type": "network", "path": "/run/n"}], "/run/n")],
)
def test_the_network(namespaces: list[dict[str, str]], network: str) -> None:
    assert Configuration(raw(namespaces=[{"type": "mount"}, *namespaces]), Path("/b")).network == network


def test_every_container_has_the_pseudo_devices() -> None:
    resources = Configuration(
        raw(resources={"devices": [{"allow": False, "access": "rwm"}], "pids": {"limit": 5}, "cpu": {}}),
        Path("/b"),
    ).resources
    assert resources["devices"][0] == {"allow": False, "access": "rwm"}
    assert {"allow": True, "type": "c", "access": "rwm", "major": 1, "minor": 3} in resources["devices"]
    assert resources["pids"] == {"limit": 5} and "cpu" not in resources
    assert "devices" not in Configuration(raw(), Path("/b")).resources


def test_the_size_of_a_terminal() -> None:
    assert console_size({"consoleSize": {"height": 4, "width": 5}}) == (4, 5)
    assert console_size({}) is None


def test_a_process_is_known_by_its_start_too() -> None:
    ticks = start_ticks(1)
    assert is_alive(1, ticks) and not is_alive(1, ticks + 1) and not is_alive(0, 0)


def test_a_folder_and_its_states(tmp_path: Path) -> None:
    folder = Folder.create(tmp_path, "c1", Configuration(raw(), tmp_path))
    with pytest.raises(Conflict, match="already exists"):
        Folder.create(tmp_path, "c1", Configuration(raw(), tmp_path))
    assert folder.status() == "creating"
    folder.save(
        Saved(
            id="c1",
            bundle="/b",
            created="",
            pid=1,
            start_ticks=start_ticks(1),
            birth_pid=0,
            birth_ticks=0,
            cgroup="c",
        )
    )
    assert (folder.status(), folder.state()["pid"]) == ("created", 1)
    with pytest.raises(Conflict, match="has stopped"):
        folder.open_gate()  # nobody waits
    folder.gate.unlink()
    assert folder.status() == "running"
    folder.set_paused(True)
    assert folder.status() == "paused"
    folder.remove()
    with pytest.raises(NotFound, match="container c1 does not exist"):
        Folder.find(tmp_path, "c1")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".host", "a b"])
def test_names_that_are_none(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid container ID"):
        Folder.find(tmp_path, name)


def test_errors_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    options = ["--root", str(tmp_path / "state"), "--log", str(log), "--log-format", "json"]
    assert main([*options, "state", "c1"]) == 1
    assert capsys.readouterr().err == "container c1 does not exist\n"
    assert json.loads(log.read_text())["msg"] == "container c1 does not exist"
    assert main([*options, "delete", "--force", "c1"]) == 0
    assert main([*options, "--systemd-cgroup", "list"]) == 1
    assert "cgroupfs" in capsys.readouterr().err
    assert main([*options, "run", "c1"]) == 1
    capsys.readouterr()
    assert main([*options, "list", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_features_say_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["features"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "rbind" in told["mountOptions"] and "CAP_KILL" in told["linux"]["capabilities"]
    assert "SCMP_ACT_ERRNO" in told["linux"]["seccomp"]["actions"]
