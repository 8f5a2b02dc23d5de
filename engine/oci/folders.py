"""What is known of a container between two calls of the command: one folder below --root.

Layout: <root>/<id>/{state.json,config.json,lock,gate,paused}. `gate` is the FIFO at which a created container waits, and
is there exactly as long; a process is known by its pid and its start time, so that a pid used again is not mistaken.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from engine.errors import Conflict, InvalidParameter, NotFound
from engine.oci.configuration import Configuration
from engine.runtime.birth import start_ticks

OCI_VERSION = "1.1.0"
_ID = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9_+.-]*")


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """state.json. `birth_pid`: the process that waits for the container's start with it."""

    id: str
    bundle: str
    created: str
    pid: int
    start_ticks: int
    birth_pid: int
    birth_ticks: int
    cgroup: str
    cgroup_parents: tuple[str, ...] = ()
    annotations: dict[str, str] = {}
    rootfs: str = ""


class Folder:
    """Of one container. Made by `create`, found by `find`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.gate, self._paused = path / "gate", path / "paused"

    @classmethod
    def create(cls, root: Path, container_id: str, configuration: Configuration) -> Folder:
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        folder = cls(root / checked_id(container_id))
        try:
            folder.path.mkdir(mode=0o711)
        except FileExistsError as error:
            raise Conflict("container with given ID already exists") from error
        (folder.path / "config.json").write_text(json.dumps(configuration.raw))
        os.mkfifo(folder.gate, 0o600)
        return folder

    @classmethod
    def find(cls, root: Path, container_id: str) -> Folder:
        folder = cls(root / checked_id(container_id))
        if not folder.path.is_dir():
            raise NotFound(f"container {container_id} does not exist")
        return folder

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One verb at a time."""
        with (self.path / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def save(self, saved: Saved) -> None:
        new = self.path / "state.json.new"
        new.write_bytes(msgspec.json.encode(saved))
        new.rename(self.path / "state.json")

    def saved(self) -> Saved:
        try:
            return msgspec.json.decode((self.path / "state.json").read_bytes(), type=Saved)
        except FileNotFoundError as error:
            raise Conflict(
                f"container {self.path.name} was never created whole: delete --force it"
            ) from error

    def configuration(self) -> Configuration:
        """As it was at the creation, whatever became of the bundle."""
        return Configuration(json.loads((self.path / "config.json").read_bytes()), Path(self.saved().bundle))

    def open_gate(self) -> None:
        """Let a created container go on. Conflict when it does not wait."""
        try:
            descriptor = os.open(self.gate, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise Conflict("cannot start a container that has stopped or runs already") from error
        try:
            os.write(descriptor, b"!")
        finally:
            os.close(descriptor)
        self.gate.unlink()

    def set_paused(self, paused: bool) -> None:
        if paused:
            self._paused.touch()
        else:
            self._paused.unlink(missing_ok=True)

    def status(self) -> str:
        """creating, created, running, paused or stopped."""
        if not (self.path / "state.json").exists():
            return "creating"
        saved = self.saved()
        if not is_alive(saved.pid, saved.start_ticks):
            return "stopped"
        if self._paused.exists():
            return "paused"
        return "created" if self.gate.exists() else "running"

    def state(self, status: str = "") -> dict[str, Any]:
        """The state of the specification, with what runc adds; `status`: to tell hooks."""
        saved, now = self.saved(), status or self.status()
        return {
            "ociVersion": OCI_VERSION,
            "id": saved.id,
            "pid": 0 if now == "stopped" else saved.pid,
            "status": now,
            "bundle": saved.bundle,
            "rootfs": saved.rootfs,
            "created": saved.created,
            "owner": "",
            "annotations": saved.annotations,
        }

    def remove(self) -> None:
        shutil.rmtree(self.path)


def checked_id(container_id: str) -> str:
    if not _ID.fullmatch(container_id):
        raise InvalidParameter(f"invalid container ID {container_id!r}: use letters, digits and _ + - .")
    return container_id


def is_alive(pid: int, ticks: int) -> bool:
    """Whether that very process runs; one that has ended and was not waited for does not."""
    if not pid or start_ticks(pid) != ticks:
        return False
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    return False
