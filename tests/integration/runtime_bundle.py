"""A small container to run in the tests of the runtime: root file system and OCI configuration."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.bundle import MASKED_PATHS, READONLY_PATHS, process_capabilities
from engine.runtime import capabilities, spawn
from engine.runtime.client import ContainerStart, ExitEvent, RuntimeClient
from tests.commands import PATIENCE

WAIT_S = 20.0 * PATIENCE

_APPLETS = "sh true false cat ls mount id env hostname ps sleep echo kill head dd stty tty wc nc ip ifconfig"
_FLAGS = ["nosuid", "noexec", "nodev"]


def make_layer(folder: Path) -> Path:
    """A root file system of busybox."""
    (folder / "bin").mkdir(parents=True)
    (folder / "etc").mkdir()
    shutil.copy("/bin/busybox", folder / "bin/busybox")
    for applet in _APPLETS.split():
        (folder / "bin" / applet).symlink_to("busybox")
    (folder / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/home/web:/bin/sh\n")
    (folder / "etc/group").write_text("root:x:0:\nweb:x:1000:\nlog:x:50:web\n")
    return folder


class Bundles:
    """Makes start requests; each container gets an upper layer of its own."""

    def __init__(self, folder: Path, cgroup_parent: str) -> None:
        self.folder = folder
        self.layer = make_layer(folder / "layer")
        self.cgroup_parent = cgroup_parent

    def start(self, id: str, *args: str, **changes: Any) -> ContainerStart:
        """A start of `args`. Keyword arguments: fields of ContainerStart, or `process_*`, `spec`, `linux`."""
        for name in ("upper", "work"):
            (self.folder / id / name).mkdir(parents=True, exist_ok=True)
        root = self.folder / id
        rootfs = SimpleNamespace(lower=(str(self.layer),), upper=str(root / "upper"), work=str(root / "work"))
        spec = self.spec(*args, tty=changes.get("tty", False))
        spec["process"] |= changes.pop("process", {})
        spec["linux"] |= changes.pop("linux", {})
        spec["mounts"] += changes.pop("mounts", [])
        spec |= changes.pop("spec", {})
        fields: dict[str, Any] = {
            "id": id,
            "spec": spec,
            "rootfs": rootfs,
            "cgroup": f"{self.cgroup_parent}/{id}",
            "log_path": str(root / "log"),
        }
        return ContainerStart(**(fields | changes))

    def spec(self, *args: str, tty: bool = False) -> dict[str, Any]:
        return {
            "ociVersion": "1.1.0",
            "hostname": "box",
            "root": {"path": "rootfs", "readonly": False},
            "process": self.process(*args, tty=tty),
            "mounts": [
                _mount("proc", "proc", "/proc", _FLAGS),
                _mount("tmpfs", "tmpfs", "/dev", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
                _mount("devpts", "devpts", "/dev/pts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666"]),
                _mount("sysfs", "sysfs", "/sys", [*_FLAGS, "ro"]),
                _mount("cgroup", "cgroup", "/sys/fs/cgroup", [*_FLAGS, "relatime", "ro"]),
                _mount("mqueue", "mqueue", "/dev/mqueue", _FLAGS),
                _mount("tmpfs", "shm", "/dev/shm", [*_FLAGS, "mode=1777", "size=65536k"]),
            ],
            "linux": {
                "namespaces": [{"type": kind} for kind in ("mount", "pid", "ipc", "uts", "cgroup")],
                "resources": {"devices": []},
                "maskedPaths": list(MASKED_PATHS),
                "readonlyPaths": list(READONLY_PATHS),
            },
        }

    def process(self, *args: str, tty: bool = False, uid: int = 0) -> dict[str, Any]:
        caps = capabilities.container_capabilities()
        return {
            "terminal": tty,
            "user": {"uid": uid, "gid": uid, "additionalGids": []},
            "args": list(args),
            "env": ["PATH=/usr/bin:/bin", "HOME=/root"],
            "cwd": "/",
            "capabilities": process_capabilities(caps, uid),
        }

    def log(self, id: str) -> str:
        return (self.folder / id / "log").read_text()


def mount(kind: str, source: str, target: str, *options: str) -> dict[str, Any]:
    return _mount(kind, source, target, list(options))


def cgroup_leftovers(parent: str) -> list[str]:
    """Folders of `parent` that still exist in any hierarchy."""
    root = Path("/sys/fs/cgroup")
    places = [root / parent, *(entry / parent for entry in root.iterdir() if entry.is_dir())]
    return [str(place) for place in places if place.exists()]


def remove_cgroups(parent: str) -> None:
    for place in cgroup_leftovers(parent):
        for folder, _, _ in os.walk(place, topdown=False):
            Path(folder).rmdir()


def _mount(kind: str, source: str, target: str, options: list[str]) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": source, "options": options}


class Exits:
    """Exit events by (container, exec), awaited by tests."""

    def __init__(self, client: RuntimeClient) -> None:
        self._events: dict[tuple[str, str | None], ExitEvent] = {}
        self._changed = asyncio.Event()
        client.on_exit(self._add)

    def _add(self, event: ExitEvent) -> None:
        self._events[event.id, event.exec_id] = event
        self._changed.set()

    async def of(self, id: str, exec_id: str | None = None) -> ExitEvent:
        async with asyncio.timeout(WAIT_S):
            while (id, exec_id) not in self._events:
                self._changed.clear()
                await self._changed.wait()
        return self._events.pop((id, exec_id))


class Node:
    """A supervisor, its client and bundles to run."""

    def __init__(self, client: RuntimeClient, bundles: Bundles, run_dir: Path) -> None:
        self.client = client
        self.bundles = bundles
        self.run_dir = run_dir
        self.exits = Exits(client)

    async def run(self, id: str, *args: str, **changes: Any) -> tuple[int, list[str]]:
        """(exit code, lines of output)."""
        await self.client.start(self.bundles.start(id, *args, **changes))
        event = await self.exits.of(id)
        await self.client.forget(id)
        lines = [json.loads(line) for line in self.bundles.log(id).splitlines()]
        return event.exit_code, [line["log"].rstrip("\n") for line in lines]

    async def output(self, id: str, script: str, **changes: Any) -> list[str]:
        code, lines = await self.run(id, "sh", "-c", f"exec 2>&1; {script}", **changes)
        assert code == 0, lines
        return lines


async def started_node(tmp_path: Path) -> AsyncIterator[Node]:
    parent = f"swarmctl-test-{os.getpid()}"
    bundles = Bundles(tmp_path, parent)
    client = await RuntimeClient.connect(tmp_path / "run")
    try:
        yield Node(client, bundles, tmp_path / "run")
    finally:
        closer = client if not client._closed else await RuntimeClient.connect(tmp_path / "run")
        await closer.shutdown()
        left = cgroup_leftovers(parent)
        remove_cgroups(parent)
        assert left == []


SPAWNERS = ("compiled", "portable")


async def started_node_with(
    spawner: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Node]:
    """A node whose containers are started by the compiled helper, or by the interpreter of the same list."""
    if spawner == "portable":
        monkeypatch.setenv("SWARMCTL_PORTABLE_SPAWN", "1")
    else:
        assert spawn.COMPILED is not None, "build the extension: python setup.py build_ext --inplace"
    async for made in started_node(folder):
        yield made
