"""The verbs after `create`: start, state, kill, delete, pause, resume, ps, list, update.

Each looks at the container's folder and the kernel, never at another process of ours. Errors in the words of runc where
engines match on them ("does not exist", "not running", "already exists").
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import Conflict, EngineError, EngineFailure
from engine.oci.configuration import Configuration
from engine.oci.creation import end_group
from engine.oci.folders import Folder, Saved, is_alive
from engine.oci.hooks import run_hooks
from engine.runtime.cgroup import Cgroups, choose_cgroups

STARTS_WITHIN_S = 60.0
DIES_WITHIN_S = 10.0


def start(root: Path, container_id: str) -> None:
    folder = Folder.find(root, container_id)
    with folder.locked():
        status = folder.status()
        if status != "created":
            raise Conflict(f"cannot start a container in the {status} state")
        saved, configuration = folder.saved(), folder.configuration()
        run_hooks(configuration, "startContainer", folder.state())
        folder.open_gate()
        _await_end(saved.birth_pid, saved.birth_ticks, STARTS_WITHIN_S)
        failure = folder.path / "failure"
        if failure.exists():
            raise EngineFailure(failure.read_text())
        with contextlib.suppress(EngineFailure):  # the specification: as if it had succeeded
            run_hooks(configuration, "poststart", folder.state("running"))


def state(root: Path, container_id: str) -> dict[str, Any]:
    return Folder.find(root, container_id).state()


def kill(root: Path, container_id: str, number: int, *, everything: bool) -> None:
    folder = Folder.find(root, container_id)
    saved = folder.saved()
    if everything:
        for pid in _cgroups(saved).pids(saved.cgroup):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return
    try:
        pidfd = os.pidfd_open(saved.pid)
    except OSError:
        raise Conflict("container not running") from None
    try:
        if not is_alive(
            saved.pid, saved.start_ticks
        ):  # after the opening: the number cannot change hands any more
            raise Conflict("container not running")
        signal.pidfd_send_signal(pidfd, number)
    finally:
        os.close(pidfd)


def delete(root: Path, container_id: str, *, force: bool) -> None:
    try:
        folder = Folder.find(root, container_id)
    except EngineError:
        if force:
            return
        raise
    with folder.locked():
        status = folder.status()
        if status != "stopped" and not force:
            raise Conflict(f"cannot delete container {container_id} that is not stopped: {status}")
        if status == "creating":  # its `create` was killed
            raw = json.loads((folder.path / "config.json").read_bytes())
            end_group(choose_cgroups(), Configuration(raw, folder.path).cgroup(container_id))
            folder.remove()
            return
        saved, configuration = folder.saved(), folder.configuration()
        if status != "stopped":
            with contextlib.suppress(OSError):
                _cgroups(saved).thaw(saved.cgroup)
            with contextlib.suppress(ProcessLookupError):
                os.kill(saved.pid, signal.SIGKILL)
            _await_end(saved.pid, saved.start_ticks, DIES_WITHIN_S)
        end_group(_cgroups(saved), saved.cgroup)
        told = folder.state("stopped")
        folder.remove()
        with contextlib.suppress(EngineFailure):
            run_hooks(configuration, "poststop", told)


def pause(root: Path, container_id: str) -> None:
    folder = Folder.find(root, container_id)
    with folder.locked():
        if folder.status() not in ("running", "created"):
            raise Conflict(f"container not running: it is {folder.status()}")
        saved = folder.saved()
        _cgroups(saved).freeze(saved.cgroup)
        folder.set_paused(True)


def resume(root: Path, container_id: str) -> None:
    folder = Folder.find(root, container_id)
    with folder.locked():
        if folder.status() != "paused":
            raise Conflict("container not paused")
        saved = folder.saved()
        _cgroups(saved).thaw(saved.cgroup)
        folder.set_paused(False)


def update(root: Path, container_id: str, resources: Mapping[str, Any]) -> None:
    saved = _alive(Folder.find(root, container_id))
    _cgroups(saved).update(saved.cgroup, resources)


def processes(root: Path, container_id: str) -> list[int]:
    saved = _alive(Folder.find(root, container_id))
    return sorted(_cgroups(saved).pids(saved.cgroup))


def containers(root: Path) -> list[dict[str, Any]]:
    """Their states, oldest first; those that are being made or removed are left out."""
    found = []
    for path in root.iterdir() if root.is_dir() else ():
        if not path.name.startswith("."):
            with contextlib.suppress(EngineError, FileNotFoundError):
                found.append(Folder(path).state())
    return sorted(found, key=lambda known: str(known["created"]))


def _alive(folder: Folder) -> Saved:
    saved = folder.saved()
    if not is_alive(saved.pid, saved.start_ticks):
        raise Conflict("container not running")
    return saved


def _cgroups(saved: Saved) -> Cgroups:
    cgroups = choose_cgroups()
    cgroups.adopt(saved.cgroup, saved.cgroup_parents)
    return cgroups


def _await_end(pid: int, ticks: int, within_s: float) -> None:
    """EngineFailure when the process is still there then."""
    if not is_alive(pid, ticks):
        return
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if not select.select([pidfd], [], [], within_s)[0] and is_alive(pid, ticks):
            raise EngineFailure(f"process {pid} does not get further within {within_s:.0f} s")
    finally:
        os.close(pidfd)
