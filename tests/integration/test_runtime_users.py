"""Containers whose users are others on the host, on the real kernel, with both interpreters of start programs."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from runtime_bundle import SPAWNERS, Node, mount, started_node_with

from engine import remapped
from engine.runtime.user_namespaces import NamespaceKeeper, Remapping, running_remapping
from tests.commands import PATIENCE

pytestmark = [pytest.mark.root, pytest.mark.timeout(60 * PATIENCE)]
REMAPPING = Remapping(uid=200_000, gid=300_000)


@pytest.fixture(params=SPAWNERS)
async def node(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Node]:
    async for made in started_node_with(request.param, tmp_path, monkeypatch):
        yield made


@pytest.fixture
def namespace() -> Iterator[str]:
    keeper = NamespaceKeeper(REMAPPING)
    yield keeper.path()
    keeper.close()


def start(
    node: Node, namespace: str, id: str, *args: str, volumes: tuple[str, ...] = (), **changes: Any
) -> Any:
    """A start request of a remapped container."""
    request = node.bundles.start(id, *args, **changes)
    request.spec["linux"].setdefault("devices", [])
    remapped.apply(request.spec, REMAPPING, namespace, volumes)
    return request


async def output(node: Node, namespace: str, id: str, script: str, **changes: Any) -> list[str]:
    await node.client.start(start(node, namespace, id, "sh", "-c", f"exec 2>&1; {script}", **changes))
    event = await node.exits.of(id)
    await node.client.forget(id)
    lines = [json.loads(line)["log"].rstrip("\n") for line in node.bundles.log(id).splitlines()]
    assert event.exit_code == 0, lines
    return lines


async def test_root_is_somebody_else_and_files_are_its_own(node: Node, namespace: str) -> None:
    lines = await output(
        node,
        namespace,
        "root",
        "id -u; cat /proc/self/uid_map /proc/self/gid_map; ls -ln /bin/busybox | cat; echo x > /made; "
        "ls -ln /made | cat; echo y > /dev/shm/y; ls -ln /dev/shm/y | cat; echo out > /dev/stdout; : > /dev/null",
    )
    assert lines[0] == "0"
    assert lines[1].split() == ["0", "200000", "65536"] and lines[2].split() == ["0", "300000", "65536"]
    assert [line.split()[2:4] for line in lines[3:6]] == [["0", "0"]] * 3
    assert lines[6] == "out"
    # On the disk nothing is shifted.
    status = (node.bundles.folder / "root/upper/made").stat()
    assert (status.st_uid, status.st_gid) == (0, 0)


async def test_it_has_no_rights_over_the_host(node: Node, namespace: str) -> None:
    (node.bundles.folder / "host").mkdir(mode=0o700)
    (node.bundles.folder / "host/secret").write_text("secret")
    (node.bundles.folder / "host/secret").chmod(0o600)
    lines = await output(
        node,
        namespace,
        "rights",
        "ls -ln / | grep host | cat; cat /host/secret; echo x > /proc/sys/kernel/hostname; mount -t tmpfs x /bin; true",
        mounts=[mount("bind", str(node.bundles.folder / "host"), "/host", "rbind", "rprivate")],
        linux={"readonlyPaths": [], "maskedPaths": []},
    )
    assert lines[0].split()[2:4] == ["65534", "65534"]
    assert all("denied" in line or "not permitted" in line for line in lines[1:]), lines


async def test_volumes_have_their_owners_on_both_sides(node: Node, namespace: str) -> None:
    volume = node.bundles.folder / "volume"
    volume.mkdir()
    (volume / "theirs").write_text("x")
    os.chown(volume / "theirs", 1000, 1000)
    lines = await output(
        node,
        namespace,
        "volume",
        "ls -ln /v/theirs | cat; echo x > /v/made; ls -ln /v/made | cat",
        volumes=("/v",),
        mounts=[mount("bind", str(volume), "/v", "rbind", "rprivate")],
    )
    assert [line.split()[2:4] for line in lines] == [["1000", "1000"], ["0", "0"]]
    assert ((volume / "made").stat().st_uid, (volume / "theirs").stat().st_uid) == (0, 1000)


async def test_another_user_and_its_streams(node: Node, namespace: str) -> None:
    process = node.bundles.process("sh", uid=1000)
    lines = await output(
        node,
        namespace,
        "user",
        "id -u; grep CapEff /proc/self/status; echo out > /dev/stdout; touch /x; true",
        process={"user": process["user"], "capabilities": process["capabilities"]},
    )
    assert lines[:3] == ["1000", "CapEff:\t0000000000000000", "out"]
    assert "Permission denied" in lines[3]


@pytest.mark.parametrize("tty", [False, True])
async def test_a_further_process_is_remapped_as_well(node: Node, namespace: str, tty: bool) -> None:
    started = await node.client.start(start(node, namespace, "first", "sleep", "1000"))
    remapping = running_remapping(started.pid)
    assert remapping == REMAPPING
    process = node.bundles.process("sh", "-c", "id -u; cat /proc/self/uid_map; tty; : > /made", tty=tty)
    process["user"]["hostID"] = remapping.uid
    exec_ = await node.client.exec("first", "e", process, tty=tty, stdin=False)
    event = await node.exits.of("first", "e")
    os.set_blocking(exec_.stdout_fd, False)
    text = os.read(exec_.stdout_fd, 4096).decode().split()
    assert event.exit_code == 0 and text[:4] == ["0", "0", "200000", "65536"], text
    assert (text[4] == "/dev/pts/0") == tty
    for descriptor in (exec_.stdout_fd, exec_.stderr_fd):
        if descriptor is not None:
            os.close(descriptor)
    await node.client.kill("first", 9)
    await node.exits.of("first")
    await node.client.forget("first")


async def test_a_root_that_is_one_folder(node: Node, namespace: str) -> None:
    """As the vfs driver has it."""
    rootfs = SimpleNamespace(lower=(), upper=str(node.bundles.layer), work="")
    lines = await output(node, namespace, "plain", "echo x > /made; ls -ln /made | cat", rootfs=rootfs)
    assert lines[0].split()[2:4] == ["0", "0"]
    assert (node.bundles.layer / "made").stat().st_uid == 0
