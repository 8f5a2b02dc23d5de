"""`--runtime crun|runc`: what another OCI runtime needs for a container, made before a start and gone after its end.

A bundle per container in <run-dir>/bundles/<id>: config.json as `bundle` builds it, with what the built-in runtime gets
beside it (network namespace, control group), and `rootfs`, the container's root mounted on the host. Everything else
(pipes, logs, execs, limits) is the supervisor's, as for the built-in runtime: docs/adr/0020.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.container import Container
from engine.errors import InvalidParameter
from engine.preparation import HostPreparation
from engine.runtime import syscalls
from engine.runtime.client import ContainerStart
from engine.runtime.foreign import delete_command
from engine.runtime.wire import ForeignStart
from engine.settings import LiveSettings
from engine.storage.overlay import mount_overlay

NAMES = ("runc", "crun")
BUILT_IN = "swarmctl"
DELETES_WITHIN_S = 30.0
_PLACES = os.pathsep.join(("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"))


def runtimes(configured: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Name -> {"path", "runtimeArgs"}: those that are installed, and the daemon's own (`runtimes` of daemon.json)."""
    found = ((name, shutil.which(name, path=_PLACES)) for name in NAMES)
    return {name: {"path": path} for name, path in found if path} | dict(configured)


def check_runtime(name: str, configured: Mapping[str, Any]) -> None:
    """InvalidParameter, in Docker's words, for a runtime that is not here."""
    if name not in ("", BUILT_IN) and not (runtimes(configured).get(name) or {}).get("path"):
        raise InvalidParameter(
            f"unknown or invalid runtime name: {name}: use {BUILT_IN} (the default), or install one of {', '.join(NAMES)}"
        )


class Bundles:
    """Of the containers that run under another runtime."""

    def __init__(self, run_dir: Path, live: LiveSettings) -> None:
        self.live = live
        self._folder = run_dir / "bundles"
        self._states = run_dir / "runtimes"

    def make(self, container: Container, start: ContainerStart) -> ForeignStart:
        runtime = container.host_config.runtime
        if start.spec["linux"].get("uidMappings"):
            raise InvalidParameter(
                f"--runtime {runtime} serves no remapped users: use {BUILT_IN}, or --userns host"
            )
        self.remove(container.id)
        folder = self._folder / container.id
        (folder / "rootfs").mkdir(mode=0o711, parents=True)
        root = folder / "rootfs"
        if start.rootfs.lower:
            mount_overlay(start.rootfs, root)
        else:
            root = Path(start.rootfs.upper)
        (folder / "runtime").write_text(runtime)
        (folder / "config.json").write_text(json.dumps(foreign_spec(start, root)))
        return ForeignStart(command=self._command(runtime), bundle=str(folder))

    def remove(self, container_id: str) -> None:
        """What the runtime and `make` left of it; nothing is fine."""
        folder = self._folder / container_id
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = self._command((folder / "runtime").read_text())
            foreign = delete_command(ForeignStart(command=command, bundle=str(folder)), container_id)
            subprocess.run(foreign, capture_output=True, timeout=DELETES_WITHIN_S)
        if os.path.ismount(folder / "rootfs"):
            syscalls.umount(str(folder / "rootfs"), syscalls.MNT_DETACH)
        shutil.rmtree(folder, ignore_errors=True)

    def recover(self, known: set[str]) -> None:
        for folder in self._folder.iterdir() if self._folder.is_dir() else ():
            if folder.name not in known:
                self.remove(folder.name)

    def _command(self, runtime: str) -> list[str]:
        known = runtimes(self.live.runtimes).get(runtime) or {}
        words = [str(word) for word in known.get("runtimeArgs") or ()]
        return [str(known.get("path") or runtime), *words, "--root", str(self._states / runtime)]


class ForeignPreparation:
    """`lifecycle.Preparation` with a bundle on top, for the containers that ask for another runtime."""

    def __init__(self, host: HostPreparation, bundles: Bundles) -> None:
        self._host = host
        self._bundles = bundles

    async def prepare(self, container: Container) -> ContainerStart:
        start = await self._host.prepare(container)
        if _is_foreign(container):
            try:
                check_runtime(container.host_config.runtime, self._bundles.live.runtimes)
                start.foreign = await asyncio.to_thread(self._bundles.make, container, start)
            except BaseException:
                await self.release(container)
                raise
        return start

    async def release(self, container: Container) -> None:
        if _is_foreign(container):
            await asyncio.to_thread(self._bundles.remove, container.id)
        await self._host.release(container)

    async def destroy(self, container: Container, *, volumes: bool) -> None:
        await self._host.destroy(container, volumes=volumes)


def foreign_spec(start: ContainerStart, root: Path) -> dict[str, Any]:
    """The configuration with everything in it. Pure."""
    linux = dict(start.spec["linux"])
    linux["cgroupsPath"] = f"/{start.cgroup}"
    namespaces = [entry for entry in linux["namespaces"] if entry["type"] != "network"]
    if start.netns != "host":
        namespaces.append({"type": "network", **({"path": start.netns} if start.netns else {})})
    linux["namespaces"] = namespaces
    specification = {"ociVersion": "1.0.2", "root": {**start.spec["root"], "path": str(root)}}
    return {**start.spec, **specification, "linux": linux}


def _is_foreign(container: Container) -> bool:
    return container.host_config.runtime not in ("", BUILT_IN)
